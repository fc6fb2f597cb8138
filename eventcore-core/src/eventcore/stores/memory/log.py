"""The event log of a store in memory: one list of rows, and a list for each stream."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from sys import byteorder
from typing import Any, Final, final

import msgspec

from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.failures import check_reason, diverged
from eventcore.stores.judging import (
    base_versions,
    has_keys,
    judge,
    key_records,
    rows_to_return,
    verdicts,
    with_known_keys,
    with_new_keys,
)
from eventcore.stores.memory.keys import MemoryKeys
from eventcore.stores.paging import MAX_PAGE, PAGE_BYTES, REFUSED_BYTES, cut, window
from eventcore.stores.values import (
    AppendHints,
    AppendRequest,
    BackendPage,
    Checkpoint,
    EventFilter,
    KeyRecord,
    LogPage,
    NewEvent,
    Purpose,
    Redaction,
    Refused,
    Snapshot,
    StateKey,
    Verdict,
    Verdicts,
    Versions,
)
from eventcore.stores.watching import LocalHeadWatch, SeenRedactions, redacted

_NO_KEYS: Final[Mapping[StreamId, StateKey]] = {}
_EVERY_EVENT: Final = EventFilter()


_NONE: Final = bytearray()
_POSITION: Final = 8
# Rows of which the size of the largest one is known.
_RANGE: Final = 512


@final
class Rows:
    """Rows in order of position, and for each range of them a size that none of them exceeds.

    Most pages are known to fit from these sizes alone, so that rows are neither measured when they are added nor when they are
    read.
    """

    __slots__ = ("_largest", "rows")

    def __init__(self) -> None:
        self.rows: list[StoredEvent] = []
        self._largest: list[int] = []

    def add(self, events: Sequence[NewEvent], streams: dict[str, bytearray]) -> None:
        """Add events at the end, and their positions to ``streams``."""
        if len(events) == 1:
            self._add_one(events[0], streams)
            return
        rows = self.rows
        head = position = len(rows)
        begin = head + 1
        stream: StreamId | None = None
        encoded: bytes | None = None
        text = metadata = ""
        largest = largest_metadata = 0
        for position, new in enumerate(events, begin):
            event = new.recorded
            if event.stream_id is not stream:
                if stream is not None:
                    _add_positions(streams, text, begin, position)
                stream, begin = event.stream_id, position
                # A text and not a `StreamId`, which the garbage collector tracks.
                text = str(stream)
            if new.metadata is not encoded:
                # All events of a command have the same metadata.
                encoded = new.metadata
                metadata = encoded.decode()
                largest_metadata = max(largest_metadata, len(metadata))
            data = new.data.decode()
            if len(data) > largest:
                largest = len(data)
            rows.append(
                StoredEvent(
                    position, text, event.version, event.event_id, event.event_type, data, metadata, event.recorded_at_ns
                )
            )
        if stream is not None:
            _add_positions(streams, text, begin, position + 1)
            self._note(head, position, largest + largest_metadata)

    def _add_one(self, new: NewEvent, streams: dict[str, bytearray]) -> None:
        """``add`` one event, which is all that most commands write."""
        event, rows, largest = new.recorded, self.rows, self._largest
        head = len(rows)
        text, data, metadata = str(event.stream_id), new.data.decode(), new.metadata.decode()
        rows.append(
            StoredEvent(head + 1, text, event.version, event.event_id, event.event_type, data, metadata, event.recorded_at_ns)
        )
        position = (head + 1).to_bytes(_POSITION, byteorder)
        if (positions := streams.get(text)) is None:
            streams[text] = bytearray(position)
        else:
            positions += position
        size, number = len(data) + len(metadata), head // _RANGE
        if number == len(largest):
            largest.append(size)
        elif size > largest[number]:
            largest[number] = size

    def _note(self, start: int, end: int, size: int) -> None:
        """Note the size of the largest of the rows from ``start`` to ``end``."""
        largest = self._largest
        for number in range(start // _RANGE, (end - 1) // _RANGE + 1):
            if number == len(largest):
                largest.append(size)
            elif size > largest[number]:
                largest[number] = size

    def replace(self, index: int, row: StoredEvent) -> None:
        """Put a row in the place of another one."""
        self.rows[index] = row
        self._note(index, index + 1, _size(row))

    def page(self, start: int, end: int) -> list[StoredEvent]:
        """The rows from ``start`` to ``end`` that fit into a page."""
        rows = self.rows[start:end]
        if not rows or len(rows) * max(self._largest[start // _RANGE : (end - 1) // _RANGE + 1]) <= PAGE_BYTES:
            return rows
        return cut(rows, len(rows))[0]

    def of_stream(self, positions: Sequence[int], room: int) -> tuple[list[StoredEvent], int]:
        """The rows at some positions that fit into ``room`` bytes, and what remains of it.

        A page that is empty so far (``room`` is ``PAGE_BYTES``) takes any first row.
        """
        found: list[StoredEvent] = []
        for position in positions:
            row = self.rows[position - 1]
            size = _size(row)
            if size > room and (found or room < PAGE_BYTES):
                break
            room -= size
            found.append(row)
        return found, room


def _add_positions(streams: dict[str, bytearray], stream: str, begin: int, end: int) -> None:
    if (positions := streams.get(stream)) is None:
        positions = streams[stream] = bytearray()
    positions += begin.to_bytes(_POSITION, byteorder) if end == begin + 1 else array("q", range(begin, end)).tobytes()


def _size(row: StoredEvent) -> int:
    return len(row.data) + len(row.metadata)


@final
class MemoryEvents:
    """What a store in memory holds besides the state of projections; several logs may share it.

    Attributes:
        all: every event in order of position, which is the index plus 1.
        streams: the positions of the events of each stream, 8 bytes each. Of all that can grow, only these are not tracked by
            the garbage collector: a full collection would otherwise walk hundreds of thousands of lists.
        snapshots: the newest stored state by stream and key.
        redactions: the traces in order; the number of a redaction is its index plus 1.
        keys: the idempotency keys of commands.
        watch: wakes readers.
    """

    def __init__(self) -> None:
        self.all = Rows()
        self.streams: dict[str, bytearray] = {}
        self.snapshots: dict[tuple[str, StateKey], Snapshot] = {}
        self.redactions: list[Redaction] = []
        self.keys = MemoryKeys()
        self.watch = LocalHeadWatch()


@final
class MemoryLog:
    """Implements ``EventLog``. No method awaits before it has finished its work, so each is one transaction.

    Args:
        events: what the log reads and writes; other logs may share it, as processes share a file.
    """

    append_hints = AppendHints(speculate=True)

    def __init__(self, events: MemoryEvents) -> None:
        self._events = events
        self._seen = SeenRedactions()

    @property
    def rows(self) -> Sequence[StoredEvent]:
        """Every event in order of position, which is the index plus 1."""
        return self._events.all.rows

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """See ``EventLog.append``."""
        events = self._events
        if events.redactions and len(events.redactions) > self._seen.at_most:
            self._seen.forget()
            raise redacted(len(events.redactions))
        self._seen.appended(len(events.redactions))
        if not has_keys(requests):
            return self._append(requests)
        head, keys = len(events.all.rows), events.keys
        known = keys.find([request.key.key for request in requests if request.key is not None])
        decided = self._append(with_new_keys(requests, known))
        found = Verdicts(with_known_keys(requests, known, decided), decided.refused)
        keys.add(key_records(requests, found, head))
        return found

    def _append(self, requests: Sequence[AppendRequest]) -> Verdicts:
        events = self._events
        head = len(events.all.rows)
        began = {stream: len(events.streams.get(stream, _NONE)) // _POSITION for request in requests for stream in request.base}
        accepted = judge(requests, began)
        refused = None if all(accepted) else self._refused(requests, began)
        for request, is_accepted in zip(requests, accepted, strict=True):
            if is_accepted:
                events.all.add(request.events, events.streams)
        events.watch.advance(len(events.all.rows))
        return Verdicts(verdicts(requests, accepted, head), refused)

    def _refused(self, requests: Sequence[AppendRequest], began: Versions) -> Refused:
        events = self._events
        after = rows_to_return(base_versions(requests), began)
        with_state = {stream for stream, _ in events.snapshots} if 0 in after.values() else ()
        rows: dict[StreamId, Sequence[StoredEvent]] = {}
        room = REFUSED_BYTES
        for stream, version in after.items():
            positions = array("q", events.streams.get(stream, _NONE))[version:]
            missed = [events.all.rows[position - 1] for position in positions]
            size = sum(map(_size, missed))
            if size <= room and (version or stream not in with_state):
                rows[stream] = missed
                room -= size
        return Refused(began, rows, len(events.all.rows), len(events.redactions))

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        """See ``EventLog.find_keys``."""
        return self._events.keys.find(keys)

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
        events = self._events
        if purpose == "command":
            self._seen.observe(len(events.redactions))
        last = len(events.all.rows) if up_to is None else up_to
        room = PAGE_BYTES
        rows: dict[StreamId, Sequence[StoredEvent]] = {}
        more: set[StreamId] = set()
        found: dict[StreamId, Snapshot] = {}
        for stream, version in after.items():
            key = None if version else snapshots.get(stream)
            stored = None if key is None else events.snapshots.get((stream, key))
            if stored is not None and self._fits(stream, stored, last):
                found[stream], version = stored, stored.version  # the rows begin behind the state
            positions = array("q", events.streams.get(stream, _NONE))
            end = len(positions) if up_to is None else bisect_right(positions, up_to)
            page, room = events.all.of_stream(positions[version : min(end, version + MAX_PAGE)], room)
            rows[stream] = page
            if version + len(page) < end:
                more.add(stream)
        return BackendPage(rows, len(events.all.rows), frozenset(more), found, len(events.redactions))

    def _fits(self, stream: str, snapshot: Snapshot, up_to: int) -> bool:
        """Whether a stored state may be used: its event is there, and no later redaction concerns its stream."""
        positions = array("q", self._events.streams.get(stream, _NONE))
        if not 0 < snapshot.version <= len(positions):
            return False
        event = self._events.all.rows[positions[snapshot.version - 1] - 1]
        later = self._events.redactions[snapshot.redactions :]
        return event.event_id == snapshot.event_id and event.position <= up_to and all(one.stream_id != stream for one in later)

    async def save_snapshots(self, snapshots: Mapping[StreamId, Snapshot]) -> None:
        """See ``EventLog.save_snapshots``."""
        kept, last = self._events.snapshots, len(self._events.all.rows)
        for stream, snapshot in snapshots.items():
            older = kept.get((stream, snapshot.key))
            is_newest = older is None or older.version <= snapshot.version or not self._fits(stream, older, last)
            if is_newest and self._fits(stream, snapshot, last):
                kept[stream, snapshot.key] = snapshot

    async def find_event(self, event_id: str) -> StoredEvent | None:
        """See ``EventLog.find_event``."""
        return next((row for row in reversed(self._events.all.rows) if row.event_id == event_id), None)

    async def redact(self, event_id: str, data: bytes, reason: str, *, position: int | None = None) -> Redaction | None:
        """See ``EventLog.redact``."""
        events = self._events
        check_reason(reason)
        row = await self.find_event(event_id)
        if row is None or position not in (None, row.position):
            return None
        changed = msgspec.structs.replace(row, data=data.decode())
        events.all.replace(row.position - 1, changed)
        for stream, key in [one for one in events.snapshots if one[0] == row.stream_id]:
            del events.snapshots[stream, key]
        trace = Redaction(
            len(events.redactions) + 1, row.stream_id, row.version, row.position, event_id, reason, time.time_ns()
        )
        events.redactions.append(trace)
        return trace

    async def check_redactions(self) -> None:
        """See ``EventLog.check_redactions``."""
        if self._seen.is_known:
            self._seen.observe(len(self._events.redactions))

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """See ``EventLog.scan``."""
        if wanted == _EVERY_EVENT:
            return self._events.all.page(after, min(up_to, after + limit))
        return cut(self._matching(after, up_to, wanted), limit)[0]

    def _matching(self, after: int, up_to: int, wanted: EventFilter) -> Iterator[StoredEvent]:
        for row in self._events.all.rows[after:up_to]:
            if wanted.event_types is not None and row.event_type not in wanted.event_types:
                continue
            if wanted.pattern is not None and not wanted.pattern.regex.fullmatch(row.stream_id):
                continue
            yield row

    async def head_position(self) -> int:
        """See ``EventLog.head_position``."""
        return len(self._events.all.rows)

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``EventLog.follow``."""
        rows = self._events.all.rows
        head = len(rows)
        found = rows[after.position - 1].event_id if 0 < after.position <= head else ""
        if found != after.event_id:
            raise diverged(after, found)
        last = min(after.position + window(wanted, limit), head)
        if wanted == _EVERY_EVENT:
            page = self._events.all.page(after.position, last)
            end = after.position + len(page)
        else:
            page, has_more = cut(self._matching(after.position, last, wanted), limit)
            end = page[-1].position if has_more or (page and len(page) == limit) else last
        return LogPage(page, Checkpoint(end, rows[end - 1].event_id) if end else after, head)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``; the next append wakes the caller."""
        return await self._events.watch.wait_beyond(position, timeout)
