"""Gathering: what is asked for in the same turns of the event loop goes to the store in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Sized


async def until_settled(waiting: Sized, enough: int) -> None:
    """Let the loop turn as long as each turn brings more, up to ``enough``.

    One answer makes many tasks runnable at once, and each comes back within a turn or two: who takes the first of them at once
    makes several small calls of what could be one. A lone caller waits for one turn, some microseconds.
    """
    seen = 0
    while seen < len(waiting) < enough:
        seen = len(waiting)
        await asyncio.sleep(0)
