"""An event loop shares its time: it yields to other threads while they are late, and does small parts of their work.

A loop that always has something to do releases the GIL only for the instant in which it polls for
input, and takes it back before a thread that waits for it has woken up. The 5 ms after which
CPython would force a switch begin anew each time (see ``eventcore.ground.pacing``). So a thread may
get nothing for seconds (measured on 3.11 to 3.13), and no scrape is answered.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Final, final

_CHECK_INTERVAL: Final = 0.1
# Seconds; a smaller delay may be the noise of a busy machine.
_LATE: Final = 0.02
# When a thread is late, the loop sleeps for 0.1 ms every 5 ms during one second, which costs it
# some percent of its time.
_YIELD_DURATION: Final = 1.0
_YIELD_INTERVAL: Final = 0.005
_SLEEP: Final = 0.0001
# A loop that has not begun with the work of another thread within so many seconds is blocked: the thread does it itself.
_LONGEST_WAIT: Final = 0.5
# Seconds that such a thread pauses between two slices.
_PAUSE: Final = 0.001


@final
class LoopYielder:
    """Checks regularly, in the running event loop, whether threads are late, and lets them run by short sleeps.

    Must be created in the event loop's thread; from then on the loop calls it.

    Args:
        lateness: returns how many seconds a thread is behind its schedule; 0 or less when it is
            not.
    """

    def __init__(self, lateness: Callable[[], float]) -> None:
        self._lateness = lateness
        self._loop = asyncio.get_running_loop()
        self._yield_until = 0.0
        self._timer = self._check_in(_CHECK_INTERVAL)

    def stop(self) -> None:
        """Check no more; to be called in the event loop's thread."""
        self._timer.cancel()

    def _check_in(self, seconds: float) -> asyncio.TimerHandle:
        # In an empty context: the timer must not keep the context variables of the request that
        # created it.
        return self._loop.call_later(seconds, self._check, context=contextvars.Context())

    def _check(self) -> None:
        now = time.monotonic()
        if self._lateness() > _LATE:
            self._yield_until = now + _YIELD_DURATION
        if is_yielding := now < self._yield_until:
            # A blocking sleep on purpose: it releases the GIL for long enough that a waiting thread
            # wakes up and takes it.
            time.sleep(_SLEEP)
        self._timer = self._check_in(_YIELD_INTERVAL if is_yielding else _CHECK_INTERVAL)


@final
class LoopSlices:
    """Event loops that do work for other threads, in slices.

    A thread that computes beside a busy event loop waits for the GIL before each slice, up to 5 ms, and makes the loop wait
    after it. On the loop itself the same slice costs nothing but its own time.
    """

    def __init__(self) -> None:
        # Replaced as a whole, so that reading it needs no lock.
        self._loops: tuple[asyncio.AbstractEventLoop, ...] = ()

    def lend(self) -> Callable[[], None]:
        """Let the running event loop do such work from now on. Call the returned function to stop."""
        loop = asyncio.get_running_loop()
        self._loops = (*self._loops, loop)

        def stop() -> None:
            loops = list(self._loops)
            if loop in loops:
                loops.remove(loop)
            self._loops = tuple(loops)

        return stop

    def run(self, work: Callable[[], bool]) -> None:
        """Call ``work`` until it returns false: on an event loop if one runs, else in the calling thread. Waits for the end.

        Args:
            work: does one slice, in at most some tenths of a millisecond, and returns whether there is more. It is called by
                one thread at a time, but not always by the same one.

        Raises:
            BaseException: what ``work`` raises.
        """
        for loop in self._loops:
            if loop.is_running() and _LoopWork(loop, work).wait():
                return
        while work():
            time.sleep(_PAUSE)


@final
class _LoopWork:
    """Work that an event loop does for another thread, which waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], bool]) -> None:
        self._loop = loop
        self._work = work
        # Held during a slice, so that the waiting thread never takes the work over in the middle of one.
        self._slicing = threading.Lock()
        self._waited_for = True
        self._slices = 0
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def wait(self) -> bool:
        """Wait until the loop has done the work; false if the loop has stopped, or is blocked, before the end."""
        try:
            self._loop.call_soon_threadsafe(self._slice, context=contextvars.Context())
        except RuntimeError:
            return False  # the loop is closed
        seen = -1
        while not self._ended.wait(_LONGEST_WAIT) and self._slices != seen:
            seen = self._slices
        with self._slicing:
            self._waited_for = False
        if self._error is not None:
            raise self._error
        return self._ended.is_set()

    def _slice(self) -> None:
        with self._slicing:
            if not self._waited_for:
                return
            self._slices += 1
            try:
                is_more = self._work()
            except BaseException as error:  # noqa: BLE001  # it is raised in the thread that waits
                self._error, is_more = error, False
        if is_more:
            self._loop.call_soon(self._slice, context=contextvars.Context())
        else:
            self._ended.set()
