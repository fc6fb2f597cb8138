"""Long-lived asyncio tasks: started in an empty context, cancelled and awaited by their owner."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, Final, TypeVar
from weakref import WeakSet

T = TypeVar("T")

# Tasks that `cancel_and_wait` has cancelled. `Task.cancelling()` does not tell: it also counts an `asyncio.timeout` inside the
# task that has just expired. Such a timeout takes its own cancellation back, and nobody would have cancelled the task.
_cancelled: Final = WeakSet[asyncio.Task[Any]]()


def spawn(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task on the running loop in an empty context; the caller owns it and must await it.

    A task normally inherits the context of whoever creates it. A long-lived task would then keep the context variables of one
    request for ever, and its spans would become children of that request.
    """
    return asyncio.get_running_loop().create_task(work, name=name, context=contextvars.Context())


async def cancel_and_wait(task: asyncio.Task[Any], timeout: float | None = None) -> bool:
    """Cancel a task and wait until it has ended; whether it ended within ``timeout`` seconds (``None``: no limit).

    Several calls cancel a task once: a second cancellation would interrupt its clean-up. An exception stays in the task and
    counts as retrieved, so that asyncio does not log it as lost. When the caller itself is cancelled, ``CancelledError`` leaves
    this function as usual.
    """
    if task not in _cancelled:
        _cancelled.add(task)
        task.cancel()
    done, _ = await asyncio.wait([task], timeout=timeout)
    if done and not task.cancelled():
        task.exception()
    return bool(done)
