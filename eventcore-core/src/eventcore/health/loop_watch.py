"""Measures for how long callbacks block the event loop: a timer that should run every quarter of a second, and runs late."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, final

_INTERVAL: Final = 0.25
# Blocks that are remembered, and for how many seconds.
_MAX_BLOCKS: Final = 64
_REMEMBERED: Final = 30.0


@final
class LoopWatch:
    """Watches the running event loop from when it is made until ``stop``. Other threads may read it at any time.

    Args:
        threshold: blocks shorter than this many seconds are not remembered.
        clock: seconds that never go back.
    """

    def __init__(self, threshold: float, clock: Callable[[], float] = monotonic) -> None:
        self._threshold = threshold
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # (when it ended, how long it took). Only the loop appends; a reader copies.
        self._blocks: deque[tuple[float, float]] = deque(maxlen=_MAX_BLOCKS)
        self._due = clock() + _INTERVAL
        self._timer = self._again()

    def stop(self) -> None:
        """Watch no more; to be called in the thread of the loop."""
        self._timer.cancel()

    def blocked_for(self) -> float:
        """Seconds for which the loop has been blocked until now; 0 while it runs."""
        return max(0.0, self._clock() - self._due)

    def longest_block(self) -> tuple[float, float] | None:
        """Of the blocks of the last 30 seconds, the longest one: how long it took, and how many seconds ago it ended."""
        now = self._clock()
        recent = [(seconds, now - ended) for ended, seconds in tuple(self._blocks) if now - ended <= _REMEMBERED]
        if (running := now - self._due) >= self._threshold:
            recent.append((running, 0.0))
        return max(recent, default=None)

    def _again(self) -> asyncio.TimerHandle:
        # In an empty context: the timer must not keep the context variables of the code that opened the store.
        return self._loop.call_later(_INTERVAL, self._tick, context=contextvars.Context())

    def _tick(self) -> None:
        now = self._clock()
        if (late := now - self._due) >= self._threshold:
            self._blocks.append((now, late))
        self._due = now + _INTERVAL
        self._timer = self._again()
