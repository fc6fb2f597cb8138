"""Reads the next pages of the global order while the projector applies one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, final

from eventcore.errors import StoreUnavailable
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.projections.context import RunContext
from eventcore.stores.values import Checkpoint, LogPage

_MAX_PAGES: Final = 2


@final
class ReadAhead:
    """The pages of the global order. A task reads ahead from the first page on that is not the last one, up to the head.

    Args:
        page_size: called before each read; the largest number of events of the page.
    """

    def __init__(self, context: RunContext, page_size: Callable[[], int]) -> None:
        self._backend = context.backend
        self._filter = context.definition.filter
        self._progress = context.progress
        self._page_size = page_size
        self._pages: asyncio.Queue[LogPage | Exception] = asyncio.Queue(_MAX_PAGES)
        self._task: OwnedTask[None] | None = None

    async def next(self, after: Checkpoint) -> LogPage:
        """The page behind ``after``, which must be the end of the page before.

        Raises:
            StoreError: the page could not be read.
        """
        page = await (self._read(after) if self._task is None else self._pages.get())
        if isinstance(page, StoreUnavailable):
            # The only connection may have been in use by the handler for long: read again, now that the page is needed.
            await self.close()
            page = await self._read(after)
        if isinstance(page, Exception):
            raise page
        if page.end.position >= page.head:
            # The task has ended, or ends with this page.
            await self.close()
        elif self._task is None:
            self._task = spawn(self._read_ahead(page.end), "eventcore-projection-read")
        return page

    async def close(self) -> None:
        """Stop reading ahead."""
        if (task := self._task) is not None:
            self._task = None
            await cancel_and_wait(task)

    async def _read_ahead(self, after: Checkpoint) -> None:
        while True:
            try:
                page = await self._read(after)
            except Exception as error:  # noqa: BLE001  # `next` raises it, after the pages before it
                await self._pages.put(error)
                return
            # Waits while two pages are queued: memory stays bounded, however slow the handler is.
            await self._pages.put(page)
            if page.end.position >= page.head:
                return
            after = page.end

    async def _read(self, after: Checkpoint) -> LogPage:
        page = await self._backend.log.follow(after, self._page_size(), self._filter)
        self._progress.observe_head(page.head)
        return page
