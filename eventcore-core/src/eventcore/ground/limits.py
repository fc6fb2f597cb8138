"""Limits that many tasks of an event loop share: a timeout and a number of slots. They cost a task less than asyncio's do."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, final


@final
class CommonTimeout:
    """Cancels each task that has not ended its piece of work after the same number of seconds.

    All pieces have the same length, so they expire in the order in which they began, and one timer is enough: it waits for the
    oldest. Belongs to one event loop.

    Args:
        seconds: how long a piece of work may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # The tasks in order of their deadlines, each with its deadline and its cancellations before it began.
        self._running: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._expired: dict[asyncio.Task[Any], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Task[Any]:
        """Start the timeout of the current task, which has none yet. Returns the task, for ``expired`` and ``end``."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        deadline = loop.time() + self.seconds
        self._running[task] = (deadline, task.cancelling())
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        return task

    def expired(self, task: asyncio.Task[Any]) -> bool:
        """After a ``CancelledError``: whether the timeout alone was its reason. If so, it must not be raised any further."""
        before = self._expired.pop(task, None)
        return before is not None and task.uncancel() <= before

    def end(self, task: asyncio.Task[Any]) -> None:
        """End the timeout of a task, in any case."""
        self._running.pop(task, None)
        if self._expired and self._expired.pop(task, None) is not None:
            task.uncancel()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        while self._running:
            task, (deadline, before) = next(iter(self._running.items()))
            if deadline > now:
                self._timer = loop.call_at(deadline, self._expire)
                return
            del self._running[task]
            self._expired[task] = before
            task.cancel()


@final
class Slots:
    """A number of slots on one event loop: taking a free one costs no coroutine, unlike ``asyncio.Semaphore``.

    Who takes one gives it back; those who wait get one in the order of their arrival.

    Args:
        count: how many there are.
    """

    __slots__ = ("_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot; false if none is free, then wait for one."""
        # While others wait, none is free: `give_back` passes slots on to them.
        if self._free:
            self._free -= 1
            return True
        return False

    async def wait(self) -> None:
        """Wait until a slot is given back, and take it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            # The slot may have been passed on in the same iteration of the loop.
            if not future.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Give a slot back: to the first who waits, and has not given up."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._free += 1
