"""A bounded number of slots: taking a free one costs no coroutine, unlike ``asyncio.Semaphore``."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import final


@final
class Slots:
    """Slots on one event loop. Who takes one gives it back; those who wait get one in the order of their arrival.

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
