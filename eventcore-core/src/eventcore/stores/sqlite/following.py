"""Following the global order of a file: the thread starts on the next page before it is asked for.

While the event loop is busy, a thread that needs the GIL waits for it (see ``eventcore.ground.pacing``). The thread that has
just read a page holds the GIL, so it starts the next statement at once. SQLite then works without the GIL while the event loop
applies the page before.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final, TypeAlias, final

from eventcore.errors import StoreClosed
from eventcore.stores.sqlite.connection import ConnectionThread, StoreConnection
from eventcore.stores.sqlite.statements import follow
from eventcore.stores.values import Checkpoint, EventFilter, LogPage

_Call: TypeAlias = "tuple[Checkpoint, int, EventFilter]"

# The largest number of pages that are read ahead.
_MAX_AHEAD: Final = 8
# Seconds after which a page that was read ahead is read again: it may lack newer events.
_FRESH: Final = 0.5


@final
class Follower:
    """Reads pages of the global order, one page ahead of each reader.

    The event loop and the thread of the connection both use ``_ahead``, without a lock: each access is a single operation on a
    dictionary. When the two race, a page is read twice or reading ahead stops, and both are harmless.
    """

    def __init__(self, connection: ConnectionThread) -> None:
        self._connection = connection
        # The calls that readers are expected to make next: when the page was started, and the page.
        self._ahead: dict[_Call, tuple[float, Future[LogPage]]] = {}

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``EventLog.follow``."""
        call = (after, limit, wanted)
        begun, page = self._ahead.pop(call, (0.0, None))
        if page is None or (page.done() and monotonic() - begun > _FRESH):
            return await self._connection.run(partial(self._read, call, True))
        if page.done():
            found = page.result()
            self._read_ahead(call, found)
            return found
        return await asyncio.wrap_future(page)

    def _read(self, call: _Call, is_asked_for: bool, connection: StoreConnection) -> LogPage:
        page = follow(*call, connection)
        # A page that was read ahead and not yet asked for ends the chain: `follow` continues it when the reader comes.
        if is_asked_for or call not in self._ahead:
            self._read_ahead(call, page)
        return page

    def _read_ahead(self, call: _Call, page: LogPage) -> None:
        if page.end.position >= page.head:
            return
        while len(self._ahead) >= _MAX_AHEAD:
            self._ahead.pop(next(iter(self._ahead)), None)
        next_call = (page.end, *call[1:])
        with suppress(StoreClosed):
            self._ahead[next_call] = monotonic(), self._connection.post(partial(self._read, next_call, False))
