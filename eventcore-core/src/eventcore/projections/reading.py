"""Reading ahead: while one page is applied the next ones are on their way."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Final, final

from eventcore.stores.base import Checkpoint, EventFilter, EventLog, LogPage

_AHEAD: Final = 2


@final
class Pages:
    """The pages of the global order, read ahead as long as there are more.

    Args:
        limit: asked for the size of each page when it is read.
        saw: told the head position of each page when it is read.
    """

    def __init__(self, log: EventLog, wanted: EventFilter, limit: Callable[[], int], saw: Callable[[int], None]) -> None:
        self._log = log
        self._wanted = wanted
        self._limit = limit
        self._saw = saw
        self._ready: asyncio.Queue[LogPage | Exception] = asyncio.Queue(_AHEAD)
        self._task: asyncio.Task[None] | None = None

    async def next(self, after: Checkpoint) -> LogPage:
        """The page behind ``after``, which is where the last one ended.

        Raises:
            StoreError: it could not be read.
        """
        if self._task is None:
            page: LogPage | Exception = await self._read(after)
        else:
            page = await self._ready.get()
        if isinstance(page, Exception):
            raise page
        if page.end.position >= page.head:
            await self.close()
        elif self._task is None:
            self._task = asyncio.create_task(
                self._read_ahead(page.end), name="eventcore-projection-read", context=contextvars.Context()
            )
        return page

    async def close(self) -> None:
        """Read no further."""
        if (task := self._task) is not None:
            self._task = None
            task.cancel()
            await asyncio.wait([task])

    async def _read_ahead(self, after: Checkpoint) -> None:
        while True:
            try:
                page = await self._read(after)
            except Exception as error:  # noqa: BLE001  # it belongs to the one who waits for the page
                await self._ready.put(error)
                return
            await self._ready.put(page)
            if page.end.position >= page.head:
                return
            after = page.end

    async def _read(self, after: Checkpoint) -> LogPage:
        page = await self._log.follow(after, self._limit(), self._wanted)
        self._saw(page.head)
        return page
