"""The event log of a store in memory: one list of rows, and a list for each stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, final

from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.base import (
    AppendRequest,
    BackendPage,
    Checkpoint,
    EventFilter,
    KeyRecord,
    LogPage,
    NewEvent,
    Purpose,
    Verdict,
    Versions,
)
from eventcore.stores.failures import diverged
from eventcore.stores.head_watch import LocalHeadWatch
from eventcore.stores.judging import has_keys, judge, key_records, verdicts, with_known_keys, with_new_keys
from eventcore.stores.memory.keys import MemoryKeys
from eventcore.stores.paging import MAX_PAGE, window


@final
class MemoryLog:
    """Implements ``EventLog``. No method awaits before it has finished its work, so each is one transaction.

    Attributes:
        rows: every event in order of position, which is the index plus 1.
    """

    def __init__(self) -> None:
        self.rows: list[StoredEvent] = []
        self._streams: dict[str, list[StoredEvent]] = {}
        self._keys = MemoryKeys()
        self._watch = LocalHeadWatch()

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """See ``EventLog.append``."""
        head = len(self.rows)
        if not has_keys(requests):
            return self._append(requests)
        known = self._keys.find([request.key.key for request in requests if request.key is not None])
        found = with_known_keys(requests, known, self._append(with_new_keys(requests, known)))
        self._keys.add(key_records(requests, found, head))
        return found

    def _append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        head = len(self.rows)
        began = {stream: len(self._streams.get(stream, ())) for request in requests for stream in request.base}
        accepted = judge(requests, began)
        for request, is_accepted in zip(requests, accepted, strict=True):
            if is_accepted:
                self._store(request.events)
        self._watch.advance(len(self.rows))
        return verdicts(requests, accepted, head)

    def _store(self, events: Sequence[NewEvent]) -> None:
        for position, new in enumerate(events, len(self.rows) + 1):
            row = _row(position, new)
            self.rows.append(row)
            self._streams.setdefault(row.stream_id, []).append(row)

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        """See ``EventLog.find_keys``."""
        return self._keys.find(keys)

    async def read_streams(
        self, after: Versions, *, up_to: int | None = None, origins: Sequence[Any] = (), purpose: Purpose = "command"
    ) -> BackendPage:
        """See ``EventLog.read_streams``."""
        rows: dict[StreamId, Sequence[StoredEvent]] = {}
        for stream, version in after.items():
            page = self._streams.get(stream, [])[version : version + MAX_PAGE]
            if up_to is not None and page and page[-1].position > up_to:
                page = [row for row in page if row.position <= up_to]
            rows[stream] = page
        return BackendPage(rows, len(self.rows), MAX_PAGE)

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """See ``EventLog.scan``."""
        return list(islice(self._matching(after, up_to, wanted), limit))

    def _matching(self, after: int, up_to: int, wanted: EventFilter) -> Iterator[StoredEvent]:
        for row in self.rows[after:up_to]:
            if wanted.event_types is not None and row.event_type not in wanted.event_types:
                continue
            if wanted.pattern is not None and not wanted.pattern.regex.fullmatch(row.stream_id):
                continue
            yield row

    async def head_position(self) -> int:
        """See ``EventLog.head_position``."""
        return len(self.rows)

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``EventLog.follow``."""
        head = len(self.rows)
        found = self.rows[after.position - 1].event_id if 0 < after.position <= head else ""
        if found != after.event_id:
            raise diverged(after, found)
        last = min(after.position + window(wanted, limit), head)
        rows = list(islice(self._matching(after.position, last, wanted), limit))
        end = rows[-1].position if len(rows) == limit else last
        return LogPage(rows, Checkpoint(end, self.rows[end - 1].event_id) if end else after, head)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``; the next append wakes the caller."""
        return await self._watch.wait_beyond(position, timeout)


def _row(position: int, new: NewEvent) -> StoredEvent:
    event, data, metadata = new.recorded, new.data.decode(), new.metadata.decode()
    return StoredEvent(
        position, event.stream_id, event.version, event.event_id, event.event_type, data, metadata, event.recorded_at_ns
    )
