"""The event log of a PostgreSQL store: which call uses which connection, and what happens when a connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import HistoryDiverged, StoreError, StoreUnavailable
from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.failures import check_reason, diverged
from eventcore.stores.judging import has_keys, last_appended, verdicts, with_known_keys, with_new_keys
from eventcore.stores.paging import (
    LAST_POSITION,
    MAX_PAGE,
    PAGE_BYTES,
    REFUSED_BYTES,
    REFUSED_ROWS,
    SEARCH_WINDOW,
    rows_per_stream,
    window,
)
from eventcore.stores.postgres.arguments import NO_KEYS, append_arguments, conditions, key_arguments, streams_of
from eventcore.stores.postgres.connections import Pool, one_try
from eventcore.stores.postgres.connections.reading import ReadingPool
from eventcore.stores.postgres.errors import KeysKnown
from eventcore.stores.postgres.watch import HEAD, PostgresHeadWatch
from eventcore.stores.values import (
    START,
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
    Refused,
    Snapshot,
    StateKey,
    Verdict,
    Verdicts,
    Versions,
)
from eventcore.stores.watching import SeenRedactions

# Seconds before an append whose answer was lost is sent again.
_RESEND_DELAY: Final = 0.05
# Seconds for the calls that warm a new connection up.
_WARM_UP: Final = 1.0
_by_position: Final = attrgetter("position")

_APPEND: Final = """
    SELECT * FROM {schema}.append_requests(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
        $27, $28, $29
    )
"""
_FIND_KEYS: Final = """
    SELECT key, fingerprint, attempts, first, events, position FROM {schema}.command_keys
    WHERE key = ANY ($1) AND expires_at > clock_timestamp()
"""
_READ: Final = "SELECT * FROM {schema}.load_streams($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_FOLLOW: Final = "SELECT * FROM {schema}.follow_page($1, $2, $3, $4, $5, $6)"
_FIND: Final = "SELECT * FROM {schema}.find_event($1, $2, $3)"
_SAVE: Final = "SELECT {schema}.save_snapshots($1, $2, $3, $4, $5, $6, $7)"
_REDACT: Final = """
    SELECT number, stream_id, version, (extract(epoch FROM redacted_at) * 1000000000)::bigint
    FROM {schema}.redact($1, $2, $3, $4)
"""
_EVERY_EVENT: Final = EventFilter()
_REDACTIONS: Final = "SELECT coalesce(max(redaction), 0) FROM {schema}.redactions"
_NO_KEYS: Final[Mapping[StreamId, StateKey]] = {}


@final
class PostgresLog:
    """Implements ``EventLog``. Each read is one statement, and so one snapshot.

    Args:
        appending: the pool of the one connection that appends.
        loading: the pool of the one connection that reads for commands.
        reading: the pool for all other reads.
        watch: watches the head position.
    """

    append_hints = AppendHints(speculate=True, smallest_half=32)

    def __init__(self, appending: Pool, loading: Pool, reading: ReadingPool, watch: PostgresHeadWatch) -> None:
        self._appending = appending
        self._loading = loading
        self._reading = reading
        self._watch = watch
        self._counters = appending.counters
        # The newest event that commands of this process have read or appended. The server checks that it is still there, before
        # it trusts versions that this process has seen: a failover may have lost events.
        self._newest_seen = START
        self._redactions = SeenRedactions()

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """See ``EventLog.append``. One call of an SQL function checks and commits the batch, and returns what refused requests'
        streams hold. When it finds that idempotency keys are known, a second one does so for the other requests.

        When the answer is lost, the call is repeated over a new connection until the deadline. The function then first looks
        whether the earlier call was committed. If the earlier call reaches the server after its repetition, it is refused,
        since the versions of its streams have grown.

        Raises:
            StoreUnavailable: ``may_have_committed`` is true when the answer was lost and every repetition failed, too.
            HistoryDiverged, EventsRedacted: see ``EventLog.append``.
        """
        if not has_keys(requests):
            return await self._append(requests)
        known: set[str] = set()
        while True:
            new = with_new_keys(requests, known)
            try:
                decided = await self._append(new, key_arguments(new)) if new else Verdicts(())
            except KeysKnown as error:
                known.update(error.keys)
                continue
            return Verdicts(with_known_keys(requests, known, decided), decided.refused)

    async def _append(self, requests: Sequence[AppendRequest], keys: tuple[Any, ...] = NO_KEYS) -> Verdicts:
        arguments = (*append_arguments(requests), self._redactions.at_most)
        # Every repetition names the same event. A newer one, read meanwhile, could be lost in a failover, and the repetition
        # would then fail although the first call has committed the batch.
        seen = self._newest_seen
        deadline = self._appending.deadline()
        settling = False
        while True:
            try:
                row = await self._call_append(arguments, seen, deadline, settling=settling, keys=keys)
                head, judged, waited, known, redactions = row[:5]
                if known:
                    raise KeysKnown(known)
            except KeysKnown:
                raise
            except HistoryDiverged:
                self._forget(seen)
                raise
            except EventsRedacted:
                self._redactions.forget()
                raise
            except StoreError as error:
                settling = settling or (isinstance(error, StoreUnavailable) and error.may_have_committed)
                if not settling:
                    raise
                # The batch may be committed, so whatever fails now, the caller must not send its requests again.
                if monotonic() + _RESEND_DELAY >= deadline:
                    raise StoreUnavailable(
                        "an append was sent and may be committed: its answer was lost, and asking again failed until the "
                        f"timeout: {error}",
                        may_have_committed=True,
                    ) from error
                await asyncio.sleep(_RESEND_DELAY)
                continue
            if (on_wait := self._counters.on_wait) is not None:
                on_wait("lock", "append", waited)
            size = sum([len(new.data) + len(new.metadata) for request in requests for new in request.events])
            self._counters.bytes_written = (self._counters.bytes_written or 0) + size
            # The function returns no verdicts when it has accepted every request.
            found: Sequence[Verdict] = verdicts(requests, [True] * len(requests), head) if judged is None else judged
            refused = None if row[5] is None else self._refused(row, arguments)
            # A batch that an earlier call has appended may have been redacted since, so what it has seen is not known.
            self._redactions.appended(0 if settling else redactions)
            end = last_appended(requests, found)
            self._saw(end)
            self._watch.advance(end.position)
            return Verdicts(found, refused)

    def _refused(self, row: Sequence[Any], arguments: tuple[Any, ...]) -> Refused:
        """What the function has returned of the streams of refused requests."""
        head, _, _, _, redactions, began, positions, numbers, *columns = row
        streams, bases = streams_of(arguments)
        of_rows: list[StreamId] = [streams[number - 1] for number in numbers or ()]
        rows: dict[StreamId, list[StoredEvent]] = {}
        for stored in self._stored(list(zip(positions or (), of_rows, *(column or () for column in columns), strict=True))):
            rows.setdefault(StreamId(stored.stream_id), []).append(stored)
        for stream, version, base in zip(streams, began, bases, strict=True):
            # The last stream may not have fitted.
            if stream in rows and len(rows[stream]) < version - base:
                del rows[stream]
        if newest := max([of_stream[-1] for of_stream in rows.values()], key=_by_position, default=None):
            self._saw(Checkpoint(newest.position, newest.event_id))
        return Refused(dict(zip(streams, began, strict=True)), rows, head, redactions)

    async def _call_append(
        self, arguments: tuple[Any, ...], seen: Checkpoint, deadline: float, *, settling: bool, keys: tuple[Any, ...] = NO_KEYS
    ) -> Sequence[Any]:
        async with self._appending.connection(deadline) as connection:
            seconds = one_try(deadline)
            # The server stops waiting for the lock before the client stops waiting for the answer, so that the answer is not
            # lost.
            lock_milliseconds = int(800 * seconds) + 1
            async with asyncio.timeout(seconds):
                rows = await self._appending.rows(
                    connection,
                    _APPEND,
                    *(
                        settling,
                        lock_milliseconds,
                        *arguments,
                        seen.position,
                        seen.event_id,
                        REFUSED_ROWS,
                        REFUSED_BYTES,
                        *keys,
                    ),
                )
        row: Sequence[Any] = rows[0]
        return row

    async def warm_up(self, deadline: float) -> None:
        """Call the functions of commands once: the first call of a connection takes many times as long as later ones."""
        deadline = min(deadline, monotonic() + _WARM_UP)
        # Another process may hold the append lock for long, or the server may be a standby. The store is open all the same.
        with suppress(StoreError):
            timeout = deadline - monotonic()
            await self._loading.fetch(_READ, [], [], LAST_POSITION, 1, PAGE_BYTES, 0, "", [], [], timeout=timeout)
            arguments = (*append_arguments(()), self._redactions.at_most)
            await self._call_append(arguments, START, deadline, settling=False)

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        """See ``EventLog.find_keys``."""
        rows = await self._loading.fetch(_FIND_KEYS, list(keys))
        return {key: KeyRecord(*values) for key, *values in rows}

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
        # Only commands have versions from earlier reads, in the stream cache.
        pool: Pool | ReadingPool
        seen, pool = (self._newest_seen, self._loading) if purpose == "command" else (START, self._reading)
        last = LAST_POSITION if up_to is None else up_to
        keys = [None if version else snapshots.get(stream) for stream, version in after.items()] if snapshots else []
        arguments = (
            list(after),
            list(after.values()),
            last,
            rows_per_stream(len(after)),
            PAGE_BYTES,
            seen.position,
            seen.event_id,
            [key and key.state_type for key in keys],
            [key and key.state_version for key in keys],
        )
        try:
            head, *records = await pool.fetch(_READ, *arguments)
        except HistoryDiverged:
            self._forget(seen)
            raise
        if purpose == "command":
            self._redactions.observe(head[2])
        rows: dict[StreamId, list[StoredEvent]] = {stream: [] for stream in after}
        found = {}
        if snapshots:
            found = {record[1]: _snapshot(record, snapshots[record[1]]) for record in records if record[0] is None}
        fitting = [record for record in records if record[5] is not None and record[0] is not None]
        stored = self._stored(fitting)
        for row in stored:
            rows[row.stream_id].append(row)  # type: ignore[index]  # they are the keys of `after`
        if stored and purpose == "command":
            newest = max(stored, key=_by_position)
            self._saw(Checkpoint(newest.position, newest.event_id))
        more: frozenset[StreamId] = frozenset()
        if len(fitting) + len(found) < len(records):
            more = frozenset({record[1] for record in records if record[5] is None})
        return BackendPage(rows, head[0], more, found, head[2])

    async def save_snapshots(self, snapshots: Mapping[StreamId, Snapshot]) -> None:
        """See ``EventLog.save_snapshots``."""
        states = list(snapshots.values())
        await self._reading.fetch(
            _SAVE,
            list(snapshots),
            [one.key.state_type for one in states],
            [one.key.state_version for one in states],
            [one.version for one in states],
            [one.event_id for one in states],
            [one.redactions for one in states],
            [one.data for one in states],
        )

    async def find_event(self, event_id: str) -> StoredEvent | None:
        """See ``EventLog.find_event``."""
        up_to = await self.head_position()
        while up_to > 0:
            if records := await self._reading.fetch(_FIND, event_id, up_to, SEARCH_WINDOW):
                return self._stored(records)[0]
            up_to -= SEARCH_WINDOW
        return None

    async def redact(self, event_id: str, data: bytes, reason: str, *, position: int | None = None) -> Redaction | None:
        """See ``EventLog.redact``. When the answer was lost and the call is sent again, the event may have two traces."""
        check_reason(reason)
        if position is None:
            if (event := await self.find_event(event_id)) is None:
                return None
            position = event.position
        for number, stream, version, at in await self._reading.fetch(_REDACT, position, event_id, data, reason):
            return Redaction(number, stream, version, position, event_id, reason, at)
        return None

    async def check_redactions(self) -> None:
        """See ``EventLog.check_redactions``: one query, none while commands keep nothing."""
        if self._redactions.is_known:
            self._redactions.observe((await self._reading.fetch(_REDACTIONS))[0][0])

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """See ``EventLog.scan``."""
        arguments = (after, max(0, up_to - after), limit, PAGE_BYTES, *conditions(wanted))
        _, *records = await self._reading.fetch(_FOLLOW, *arguments)
        return self._stored(_fitting(records))

    async def head_position(self) -> int:
        """See ``EventLog.head_position``."""
        position: int = (await self._reading.fetch(HEAD))[0][0]
        return position

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``EventLog.follow``. The same statement returns the event at the checkpoint, which is checked here."""
        limit = min(limit, MAX_PAGE)
        arguments = (after.position, window(wanted, limit), limit, PAGE_BYTES, *conditions(wanted))
        snapshot, *records = await self._reading.fetch(_FOLLOW, *arguments)
        head, _, end, end_id, found = snapshot[:5]
        if after.position and found != after.event_id:
            raise diverged(after, found or "")
        fitting = _fitting(records)
        rows = self._stored(fitting)
        # There may be more in the window if the page is full, by number or by bytes. One event may be larger than a page.
        # Without a filter, the window ends at the last event in any case.
        is_cut = len(rows) == limit or len(fitting) < len(records) or bool(rows and _size(fitting[0]) > PAGE_BYTES)
        if rows and (is_cut or wanted == _EVERY_EVENT):
            end, end_id = rows[-1].position, rows[-1].event_id
        return LogPage(rows, Checkpoint(end, end_id or ""), head)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``: woken by notifications, or by polling where there are none."""
        self._reading.check_open()
        return await self._watch.wait_beyond(position, timeout)

    def _saw(self, event: Checkpoint) -> None:
        if event.position > self._newest_seen.position:
            self._newest_seen = event

    def _forget(self, lost: Checkpoint) -> None:
        # Another call may have replaced the lost event already, by one that is still stored.
        if self._newest_seen == lost:
            self._newest_seen = START

    def _stored(self, records: Sequence[Any]) -> list[StoredEvent]:
        size = sum([len(record[5]) + len(record[6]) for record in records])
        self._counters.bytes_read = (self._counters.bytes_read or 0) + size
        try:
            return _decoded(records, "strict")
        except UnicodeDecodeError:
            # Bytes that are not UTF-8 become escapes that are not JSON: the codec then refuses this row only.
            return _decoded(records, "backslashreplace")


def _fitting(records: list[Any]) -> list[Any]:
    """The records without the last one if it stands for an event that did not fit into the page."""
    return records[:-1] if records and records[-1][5] is None else records


def _size(record: Any) -> int:
    return len(record[5]) + len(record[6])


def _snapshot(record: Any, key: StateKey) -> Snapshot:
    _, _, version, event_id, _, data, _, redactions = record
    return Snapshot(key, version, event_id, redactions, data)


def _decoded(records: Sequence[Any], errors: str) -> list[StoredEvent]:
    return [
        StoredEvent(
            position, stream, version, event_id, kind, data.decode("utf-8", errors), metadata.decode("utf-8", errors), time
        )
        for position, stream, version, event_id, kind, data, metadata, time in records
    ]
