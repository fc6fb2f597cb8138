"""How long one piece of work may hold the interpreter, and why.

CPython runs one thread at a time: the thread that holds the global interpreter lock (GIL). A thread
that waits for the GIL asks for it after the switch interval of 5 ms, and a thread that computes
gives it up only then. So an export that converts 10,000 histograms without a pause makes the event
loop wait 5 ms each time it needs the GIL, thousands of times. Measured on two cores: ``select 1`` on
a loop fell from 8,050 to 147 a second, and group commit on SQLite from 28,000 commands a second to
about 100.

Two rules follow. Work off the event loop is cut into slices of about half a millisecond, and its
thread pauses after each. Work on the event loop is cut into slices of a few milliseconds, and yields
(``await asyncio.sleep(0)``) after each.

The reverse direction is slow, too: a call that releases the GIL (each step of SQLite, for instance)
may wait 5 ms to get it back, and an event loop that never waits hardly ever lets another thread run
(see ``LoopYielder``).
"""

from __future__ import annotations

from typing import Final

THREAD_SLICE: Final = 0.0005
"""Seconds of its own processor time that a thread beside the event loop works before it pauses."""

THREAD_PAUSE: Final = 0.003
"""Seconds that such a thread pauses: long enough for one iteration of the event loop."""
