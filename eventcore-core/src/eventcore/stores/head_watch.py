"""Waiting for the next event: woken by this process's own appends, looking now and then for those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, final

_POLL: Final = 0.05


@final
class LocalHeadWatch:
    """Those who wait for the head position to move.

    Args:
        look: asks the store for its head position; for stores that only this process writes, leave it out.
    """

    def __init__(self, look: Callable[[], Awaitable[int]] | None = None) -> None:
        self._look = look
        self._head = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def advance(self, head: int) -> None:
        """Wake those who wait: this process has appended up to ``head``."""
        if head > self._head:
            self._head = head
            if self._waiting:
                for future in self._waiting:
                    if not future.done():
                        future.set_result(None)
                self._waiting.clear()

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``Backend.wait_beyond``."""
        deadline = monotonic() + timeout
        while (head := await self._known(position)) <= position and (left := deadline - monotonic()) > 0:
            await self._moved(left if self._look is None else min(left, _POLL))
        return head

    async def _known(self, position: int) -> int:
        if self._look is not None and self._head <= position:
            self._head = max(self._head, await self._look())
        return self._head

    async def _moved(self, timeout: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(future)
