"""Following the global order of a file: the thread that reads goes on to the next page by itself.

While an event loop is busy, a thread gets the interpreter's lock only every 5 ms. So the thread that has just read a page, and
holds the lock, begins with the next one at once: SQLite then works, without that lock, beside the handlers of the page before.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Final, TypeAlias, final

from eventcore.errors import StoreClosed
from eventcore.stores.base import Checkpoint, EventFilter, LogPage
from eventcore.stores.sqlite.connection import ConnectionThread, StoreConnection
from eventcore.stores.sqlite.statements import follow

_Question: TypeAlias = "tuple[Checkpoint, int, EventFilter]"

# Pages that nobody has asked for yet, for so many readers and so many seconds.
_MOST: Final = 8
_FRESH: Final = 0.5


@final
class Follower:
    """Reads pages in the thread of a connection, the next one before it is asked for."""

    def __init__(self, thread: ConnectionThread) -> None:
        self._thread = thread
        self._ahead: dict[_Question, tuple[float, Future[LogPage]]] = {}

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``Backend.follow``."""
        question = (after, limit, wanted)
        begun, page = self._ahead.pop(question, (0.0, None))
        if page is None or (page.done() and monotonic() - begun > _FRESH):
            return await self._thread.run(partial(self._read, question, True))
        if page.done():
            found = page.result()
            self._go_on(question, found)
            return found
        return await asyncio.wrap_future(page)

    def _read(self, question: _Question, asked: bool, connection: StoreConnection) -> LogPage:
        page = follow(*question, connection)
        if asked or question not in self._ahead:
            self._go_on(question, page)
        return page

    def _go_on(self, question: _Question, page: LogPage) -> None:
        if page.end.position >= page.head:
            return
        while len(self._ahead) >= _MOST:
            self._ahead.pop(next(iter(self._ahead)), None)
        following = (page.end, *question[1:])
        try:
            self._ahead[following] = monotonic(), self._thread.post(partial(self._read, following, False))
        except StoreClosed:
            pass
