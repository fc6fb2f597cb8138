"""Yielding: an event loop that never waits lets the exporters' threads have their turn.

A loop with something to do at every turn gives the interpreter's lock up when it asks for input, and takes it back before a
thread that waits for it has woken; and that thread's 5 ms, after which CPython would force a switch, begin anew each time. So
it may come to nothing for seconds (measured on 3.11 to 3.13), in which no scrape is answered.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Final, final

_LOOK_EVERY: Final = 0.1
# Later than this is more than a busy machine's noise.
_LATE: Final = 0.02
# Once a thread was late, so long in so many small steps; the loop loses some hundredths of its time.
_YIELD_FOR: Final = 1.0
_YIELD_EVERY: Final = 0.005
_NAP: Final = 0.0001


@final
class LoopYielder:
    """Looks from the running event loop whether threads are late, and naps for moments while they are.

    Args:
        lateness: tells how many seconds a thread is behind that should have run, at most 0 when none is.
    """

    def __init__(self, lateness: Callable[[], float]) -> None:
        self._lateness = lateness
        self._loop = asyncio.get_running_loop()
        self._yield_until = 0.0
        self._handle = self._look_in(_LOOK_EVERY)

    def stop(self) -> None:
        """Look no more."""
        self._handle.cancel()

    def _look_in(self, seconds: float) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, self._look, context=contextvars.Context())

    def _look(self) -> None:
        now = time.monotonic()
        if self._lateness() > _LATE:
            self._yield_until = now + _YIELD_FOR
        if yields := now < self._yield_until:
            time.sleep(_NAP)
        self._handle = self._look_in(_YIELD_EVERY if yields else _LOOK_EVERY)
