"""Long-lived asyncio tasks: started in an empty context, cancelled and awaited by their owner."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def spawn(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task on the running loop in an empty context; the caller owns it and must await it.

    A task normally inherits the context of its creator. A long-lived task would then keep the context variables of one request
    for ever, and its spans would become children of that request.
    """
    return asyncio.get_running_loop().create_task(work, name=name, context=contextvars.Context())


async def cancel_and_wait(task: asyncio.Task[Any], timeout: float | None = None) -> bool:
    """Cancel a task and wait until it has ended.

    Returns whether the task ended within ``timeout`` seconds (``None`` for no limit). An exception of the task stays in the
    task. If the caller is cancelled meanwhile, it stops waiting and ``CancelledError`` is raised as usual.
    """
    # Cancel only once: a second cancellation would interrupt the clean-up that the first one started.
    if not task.cancelling():
        task.cancel()
    done, _ = await asyncio.wait([task], timeout=timeout)
    return bool(done)
