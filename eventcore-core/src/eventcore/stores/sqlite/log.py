"""The event log of an SQLite store: which call runs in which thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, final

from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.failures import check_reason
from eventcore.stores.judging import has_keys, last_appended
from eventcore.stores.paging import LAST_POSITION, SEARCH_WINDOW, rows_per_stream
from eventcore.stores.sqlite.connection import ConnectionThread
from eventcore.stores.sqlite.following import Follower
from eventcore.stores.sqlite.snapshots import read_behind_snapshots, redact, save_snapshots
from eventcore.stores.sqlite.statements import (
    append,
    append_with_keys,
    count_redactions,
    find_event,
    find_keys,
    head,
    read_streams,
    scan,
)
from eventcore.stores.values import (
    AppendHints,
    AppendRequest,
    BackendPage,
    Checkpoint,
    EventFilter,
    EventsRedacted,
    KeyRecord,
    LogPage,
    Purpose,
    Redaction,
    Snapshot,
    StateKey,
    Verdict,
    Versions,
)
from eventcore.stores.watching import LocalHeadWatch, SeenRedactions

_NO_KEYS: Final[Mapping[StreamId, StateKey]] = {}


@final
class SqliteLog:
    """Implements ``EventLog``. Each read is one statement, and so one snapshot.

    Args:
        writer: the connection that appends.
        reader: the connection for short reads.
        follower: the connection for long reads of the global order.
    """

    append_hints = AppendHints(speculate=True)

    def __init__(self, writer: ConnectionThread, reader: ConnectionThread, follower: ConnectionThread) -> None:
        self._writer = writer
        self._reader = reader
        self._scanner = follower
        self._follower = Follower(follower)
        self._watch = LocalHeadWatch(self.head_position)
        self._redactions = SeenRedactions()

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """See ``EventLog.append``."""
        job = append_with_keys if has_keys(requests) else append
        try:
            redactions = self._redactions.at_most if self._redactions.is_known else None
            verdicts = await self._writer.run(partial(job, requests, redactions))
        except EventsRedacted:
            self._redactions.forget()
            raise
        if verdicts.redactions is not None:
            self._redactions.appended(verdicts.redactions)
        self._watch.advance(last_appended(requests, verdicts).position)
        return verdicts

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        """See ``EventLog.find_keys``."""
        return await self._reader.run(partial(find_keys, keys))

    async def read_streams(
        self,
        after: Versions,
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = _NO_KEYS,
    ) -> BackendPage:
        """See ``EventLog.read_streams``."""
        last, limit = LAST_POSITION if up_to is None else up_to, rows_per_stream(len(after))
        if snapshots:
            page = await self._reader.run(partial(read_behind_snapshots, after, last, limit, snapshots))
        else:
            page = await self._reader.run(partial(read_streams, after, last, limit))
        if purpose == "command":
            self._redactions.observe(page.redactions)
        return page

    async def save_snapshots(self, snapshots: Mapping[StreamId, Snapshot]) -> None:
        """See ``EventLog.save_snapshots``."""
        await self._writer.run(partial(save_snapshots, snapshots))

    async def find_event(self, event_id: str) -> StoredEvent | None:
        """See ``EventLog.find_event``."""
        up_to = await self.head_position()
        while up_to > 0:
            if (event := await self._scanner.run(partial(find_event, event_id, up_to))) is not None:
                return event
            up_to -= SEARCH_WINDOW
        return None

    async def redact(self, event_id: str, data: bytes, reason: str, *, position: int | None = None) -> Redaction | None:
        """See ``EventLog.redact``."""
        check_reason(reason)
        if position is None:
            if (event := await self.find_event(event_id)) is None:
                return None
            position = event.position
        return await self._writer.run(partial(redact, position, event_id, data.decode(), reason))

    async def check_redactions(self) -> None:
        """See ``EventLog.check_redactions``."""
        if self._redactions.is_known:
            self._redactions.observe(await self._reader.run(count_redactions))

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
