"""Gather requests of several tasks into one call, and answer many tasks without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sized
from typing import Final, TypeVar

T = TypeVar("T")

# Commands to decide, or futures to answer, before the event loop runs other tasks (see `eventcore.ground.pacing`). Each of them
# costs some microseconds at once, and as much again when its caller goes on.
AT_ONCE: Final = 32


async def until_settled(queue: Sized, enough: int) -> None:
    """Yield to the event loop while each iteration adds to ``queue``, until it holds ``enough``.

    One answer from the store makes many tasks runnable, and each submits again within an iteration or two. Taking the first
    of them at once would make several small calls of what could be one. A lone caller waits for one iteration, some
    microseconds.
    """
    seen = 0
    while seen < len(queue) < enough:
        seen = len(queue)
        await asyncio.sleep(0)


async def answer_all(answers: deque[tuple[asyncio.Future[T], T]]) -> None:
    """Set the results of futures, oldest first, and yield to the event loop after every 32.

    An answered pair is removed first, so a cancelled call leaves exactly the unanswered pairs.
    """
    number = 0
    while answers:
        answer(*answers.popleft())
        number += 1
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


def answer(future: asyncio.Future[T], result: T) -> None:
    """Set the result, unless the caller gave up (which cancels the future)."""
    if not future.done():
        future.set_result(result)
