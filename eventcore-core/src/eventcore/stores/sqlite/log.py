"""The event log of an SQLite store: which call runs in which thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, final

from eventcore.events.codec import StoredEvent
from eventcore.stores.base import (
    AppendRequest,
    BackendPage,
    Checkpoint,
    EventFilter,
    KeyRecord,
    LogPage,
    Purpose,
    Verdict,
    Versions,
)
from eventcore.stores.head_watch import LocalHeadWatch
from eventcore.stores.judging import has_keys, last_appended
from eventcore.stores.paging import LAST_POSITION, rows_per_stream
from eventcore.stores.sqlite.connection import ConnectionThread
from eventcore.stores.sqlite.following import Follower
from eventcore.stores.sqlite.statements import append, append_with_keys, find_keys, head, read_streams, scan


@final
class SqliteLog:
    """Implements ``EventLog``. Each read is one statement, and so one snapshot.

    Args:
        writer: the connection that appends.
        reader: the connection for short reads.
        follower: the connection for long reads of the global order.
    """

    def __init__(self, writer: ConnectionThread, reader: ConnectionThread, follower: ConnectionThread) -> None:
        self._writer = writer
        self._reader = reader
        self._scanner = follower
        self._follower = Follower(follower)
        self._watch = LocalHeadWatch(self.head_position)

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """See ``EventLog.append``."""
        job = append_with_keys if has_keys(requests) else append
        verdicts = await self._writer.run(partial(job, requests))
        self._watch.advance(last_appended(requests, verdicts).position)
        return verdicts

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        """See ``EventLog.find_keys``."""
        return await self._reader.run(partial(find_keys, keys))

    async def read_streams(
        self, after: Versions, *, up_to: int | None = None, origins: Sequence[Any] = (), purpose: Purpose = "command"
    ) -> BackendPage:
        """See ``EventLog.read_streams``."""
        last = LAST_POSITION if up_to is None else up_to
        return await self._reader.run(partial(read_streams, after, last, rows_per_stream(len(after))))

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """See ``EventLog.scan``."""
        return await self._scanner.run(partial(scan, after, up_to, limit, wanted))

    async def head_position(self) -> int:
        """See ``EventLog.head_position``."""
        return await self._reader.run(head)

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``EventLog.follow``."""
        return await self._follower.follow(after, limit, wanted)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``: appends of this backend wake the caller at once, others' within 0.05 seconds."""
        return await self._watch.wait_beyond(position, timeout)
