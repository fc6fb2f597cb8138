"""Waiting for the next event of a store that one machine uses: memory and SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, final

# Seconds between polls of the head position, which another process may have moved.
_POLL: Final = 0.05


@final
class LocalHeadWatch:
    """Wakes waiting readers when the head position moves: at once after an append of this backend, by polling after others.

    Args:
        poll: reads the head position of the store; ``None`` for a store that only this backend writes.
    """

    def __init__(self, poll: Callable[[], Awaitable[int]] | None = None) -> None:
        self._poll = poll
        self._head = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def advance(self, head: int) -> None:
        """Wake the waiting readers: this backend has appended up to ``head``."""
        if head > self._head:
            self._head = head
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``."""
        deadline = monotonic() + timeout
        while (head := await self._current(position)) <= position and (remaining := deadline - monotonic()) > 0:
            await self._moved(remaining if self._poll is None else min(remaining, _POLL))
        return head

    async def _current(self, position: int) -> int:
        # A head position that is above `position` already needs no call to the store.
        if self._poll is not None and self._head <= position:
            self._head = max(self._head, await self._poll())
        return self._head

    async def _moved(self, timeout: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            self._waiting.discard(future)
