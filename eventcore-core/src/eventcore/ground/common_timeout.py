"""One timeout for many tasks at the same time, which costs each of them a tenth of what ``asyncio.timeout`` does."""

from __future__ import annotations

import asyncio
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
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
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
