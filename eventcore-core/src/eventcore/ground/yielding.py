"""An event loop that never waits yields to other threads while they are late.

A loop that always has something to do releases the GIL only for the instant in which it polls for
input, and takes it back before a thread that waits for it has woken up. The 5 ms after which
CPython would force a switch begin anew each time (see ``eventcore.ground.pacing``). So a thread may
get nothing for seconds (measured on 3.11 to 3.13), and no scrape is answered.
"""

from __future__ import annotations

import asyncio
import contextvars
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
