"""Measures for how long callbacks block the event loop: a timer that should run every quarter of a second, and runs late.

A thread looks at the timer, too. While the loop is blocked, the thread logs the stack of the loop's thread: it shows the code
that blocks. After the block, that stack is gone.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from time import monotonic, process_time
from typing import Final, final

from eventcore.exporting.logs import bounded_logger

_INTERVAL: Final = 0.25
# Blocks that are remembered, and for how many seconds.
_MAX_BLOCKS: Final = 64
_REMEMBERED: Final = 30.0
# The innermost frames of a stack that are logged.
_MAX_FRAMES: Final = 25
# Seconds between two looks of the thread, at least.
_SHORTEST_LOOK: Final = 0.02
_logger: Final = bounded_logger("eventcore.loop")


@final
class LoopWatch:
    """Watches the running event loop from when it is made until ``stop``. Other threads may read it at any time.

    Args:
        threshold: blocks shorter than this many seconds are neither remembered nor logged.
        clock: seconds that never go back.
        record_lag: called in the loop, four times a second, with the seconds by which the timer was late.
    """

    def __init__(
        self,
        threshold: float,
        clock: Callable[[], float] = monotonic,
        record_lag: Callable[[float], None] | None = None,
    ) -> None:
        self._threshold = threshold
        self._clock = clock
        self._record_lag = record_lag
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        # (when it ended, how long it took). Only the loop appends; a reader copies.
        self._blocks: deque[tuple[float, float]] = deque(maxlen=_MAX_BLOCKS)
        self._due = clock() + _INTERVAL
        self._processor_time = process_time()
        # When the timer was due that ran late in the last block that was logged; changed under the lock.
        self._logged = 0.0
        self._log_lock = threading.Lock()
        self._stopped = threading.Event()
        self._timer = self._again()
        # Not joined: it ends by itself when the watch is stopped or the loop is closed, and a process need not wait for it.
        threading.Thread(target=self._look_for_ever, name="eventcore-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no more; to be called in the thread of the loop."""
        self._stopped.set()
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
        due = self._due
        late = max(0.0, now - due)
        before, self._processor_time = self._processor_time, process_time()
        if self._record_lag is not None:
            self._record_lag(late)
        self._due = now + _INTERVAL
        self._timer = self._again()
        if late >= self._threshold:
            self._blocks.append((now, late))
            if self._is_first_to_log(due):
                # The watching thread did not run, either: the whole process stood still, or code kept the GIL.
                if (ran := self._processor_time - before) < self._threshold / 2:
                    _logger.warning("the process did not run for %.2f s: it got %.2f s of processor time", late, ran)
                else:
                    _logger.warning(
                        "a callback blocked the event loop for %.2f s; no other thread could run to see its stack", late
                    )

    def _is_first_to_log(self, due: float) -> bool:
        # The loop and the thread may want to log the same block at the same moment.
        with self._log_lock:
            first = self._logged != due
            self._logged = due
        return first

    # In the thread

    def _look_for_ever(self) -> None:
        pause = max(_SHORTEST_LOOK, min(_INTERVAL, self._threshold / 2))
        looked = monotonic()
        while not self._stopped.wait(pause) and not self._loop.is_closed():
            # After a time in which this thread did not run either, the stack shows nothing about that time.
            before, looked = looked, monotonic()
            if looked - before < pause + self._threshold / 2:
                self._look()

    def _look(self) -> None:
        due = self._due
        blocked = self._clock() - due
        # A loop that is not running, between two calls of `run_until_complete`, is not blocked.
        if blocked < self._threshold or not self._loop.is_running() or self._logged == due:
            return
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001  # documented; there is no other way
        stack = "".join(traceback.format_stack(frame, _MAX_FRAMES)) if frame is not None else "unknown\n"
        del frame
        # The block may have ended while the stack was taken: then it is that of other code.
        if self._due == due and self._is_first_to_log(due):
            _logger.warning(
                "the event loop has been blocked for %.2f s by this code, the innermost call last:\n%s", blocked, stack.rstrip()
            )
