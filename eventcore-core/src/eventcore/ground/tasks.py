"""Long-lived asyncio tasks: started in an empty context, cancelled and awaited by their owner."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class OwnedTask(asyncio.Task[T]):
    """A task that knows whether ``cancel_and_wait`` has cancelled it.

    ``Task.cancelling()`` does not tell: it also counts an ``asyncio.timeout`` inside the task that has just expired. Such a
    timeout takes its own cancellation back, and the task would go on.
    """

    cancelled_by_owner = False


def spawn(work: Coroutine[Any, Any, T], name: str) -> OwnedTask[T]:
    """Start a task on the running loop in an empty context; the caller owns it and must await it.

    A task normally inherits the context of its creator. A long-lived task would then keep the context variables of one request
    for ever, and its spans would become children of that request.
    """
    return OwnedTask(work, loop=asyncio.get_running_loop(), name=name, context=contextvars.Context())


async def cancel_and_wait(task: OwnedTask[Any], timeout: float | None = None) -> bool:
    """Cancel a task and wait until it has ended.

    Returns whether the task ended within ``timeout`` seconds (``None`` for no limit). An exception stays in the task and counts
    as retrieved, so that asyncio does not log it as lost. If the caller is cancelled meanwhile, it stops waiting and
    ``CancelledError`` is raised as usual.
    """
    # Several calls cancel a task once: a second cancellation would interrupt the clean-up that the first one started.
    if not task.cancelled_by_owner:
        task.cancelled_by_owner = True
        task.cancel()
    done, _ = await asyncio.wait([task], timeout=timeout)
    if done and not task.cancelled():
        task.exception()
    return bool(done)
