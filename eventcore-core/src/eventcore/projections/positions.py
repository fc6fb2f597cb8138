"""Which position each projection has reached, for those who wait to read what they wrote."""

from __future__ import annotations

import asyncio
from typing import final


@final
class Positions:
    """The positions of the projections that this process leads."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._waiting: dict[str, set[tuple[int, asyncio.Future[None]]]] = {}

    def get(self, projection: str) -> int | None:
        """Where a projection is, ``None`` when this process does not lead it."""
        return self._positions.get(projection)

    def reached(self, projection: str, position: int) -> None:
        """Wake those who have waited for it."""
        self._positions[projection] = position
        if waiting := self._waiting.get(projection):
            for wanted, future in waiting:
                if wanted <= position and not future.done():
                    future.set_result(None)

    def forget(self, projection: str) -> None:
        """This process does not lead it any more."""
        self._positions.pop(projection, None)

    async def wait(self, projection: str, position: int, timeout: float) -> bool:
        """Whether this process has brought the projection so far within ``timeout`` seconds."""
        if self._positions.get(projection, -1) >= position:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(projection, set())
        waiting.add((position, future))
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            return False
        finally:
            waiting.discard((position, future))
            if not waiting and self._waiting.get(projection) is waiting:
                del self._waiting[projection]
        return True
