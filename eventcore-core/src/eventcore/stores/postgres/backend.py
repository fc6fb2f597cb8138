"""The store on a PostgreSQL server: which calls go over which connection, and what becomes of them when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from operator import attrgetter
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import HistoryDiverged, StoreClosed, StoreError, StoreUnavailable
from eventcore.events import StreamId, StreamPattern
from eventcore.events.codec import StoredEvent
from eventcore.stores.base import (
    START,
    AppendRequest,
    BackendPage,
    Checkpoint,
    EventFilter,
    LogPage,
    Purpose,
    Verdict,
)
from eventcore.stores.failures import diverged
from eventcore.stores.postgres.batch import Batch
from eventcore.stores.postgres.connections import Connector, Pool, one_try
from eventcore.stores.postgres.driver import FAILURES, Connection
from eventcore.stores.postgres.errors import AnswerLost, explained
from eventcore.stores.postgres.ledger import ProjectionStore
from eventcore.stores.postgres.migrating import prepare
from eventcore.stores.postgres.schema import channel, for_schema
from eventcore.stores.postgres.url import PostgresSettings
from eventcore.stores.postgres.watch import PostgresHeadWatch
from eventcore.stores.sampling import BackendCounters, DatabaseSample

_MAX_PAGE: Final = 500
_PAGE_BUDGET: Final = 4096
_MIN_PAGE: Final = 16
_WINDOW: Final = 10_000
_END: Final = 2**62
_PAUSE: Final = 0.05
_WARM_UP: Final = 1.0
_EVERYTHING: Final = EventFilter()
_by_position: Final = attrgetter("position")

_APPEND: Final = """
    SELECT head, verdicts, waited FROM {schema}.append_events(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20
    )
"""
_READ: Final = "SELECT * FROM {schema}.read_streams($1, $2, $3, $4, $5, $6)"
_SCAN: Final = "SELECT * FROM {schema}.scan_events($1, $2, $3, $4, $5)"
_FOLLOW: Final = "SELECT * FROM {schema}.follow_events($1, $2, $3, $4, $5)"
_SAMPLE: Final = """
    SELECT coalesce(last.position, 0), last.recorded_at_ns, (
        SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_catalog.pg_class
        WHERE relnamespace = quote_ident($1)::regnamespace AND relkind = 'r'
    )
    FROM (SELECT) AS one LEFT JOIN (
        SELECT position, recorded_at_ns FROM {schema}.events ORDER BY position DESC LIMIT 1
    ) AS last ON true
"""
_HEAD: Final = "SELECT coalesce(max(position), 0) FROM {schema}.events"


@final
class PostgresBackend(ProjectionStore):
    """A backend on one schema of a PostgreSQL database, which other processes may use at the same time.

    Args:
        settings: what the URL says.
        migrate: whether opening may create the schema or bring it up to date.
    """

    system = "postgresql"

    def __init__(self, settings: PostgresSettings, *, migrate: bool = True) -> None:
        self._settings = settings
        self._migrate = migrate
        self.counters = BackendCounters()
        self._connector = Connector(settings)
        # Appends never wait for reads, nor commands for projections.
        cache = settings.statement_cache
        self._appending = Pool(self._connector, 1, self.counters, statement_cache=cache)
        self._loading = Pool(self._connector, 1, self.counters, statement_cache=cache)
        self._reading = Pool(self._connector, settings.pool, self.counters, statement_cache=cache)
        self._watch = PostgresHeadWatch(
            self._connector, channel(settings.schema) if settings.listen else None, self._sql(_HEAD), settings.timeout
        )
        super().__init__(self._reading, settings)
        self._append_sql = self._sql(_APPEND)
        self._read_sql = self._sql(_READ)
        self._scan_sql = self._sql(_SCAN)
        self._follow_sql = self._sql(_FOLLOW)
        self._head_sql = self._sql(_HEAD)
        self._sample_sql = self._sql(_SAMPLE)
        self._open = False
        # The newest event that commands of this process have seen, in what they read or wrote.
        self._known = START

    async def open(self) -> None:
        """Connect, look at the server, and create or check the schema.

        Raises:
            StoreUnavailable: no server answers at this address.
            AccessDenied: it refuses the user, or the user has too few rights.
            IncompatibleStore: there is no such database, or it or its schema cannot be used.
        """
        settings = self._settings
        connection = await self._connector.once(settings.timeout)
        try:
            async with asyncio.timeout(settings.timeout):
                await prepare(connection, settings, migrate=self._migrate)
        except FAILURES as error:
            connection.terminate()
            raise explained(error, settings.address) from error
        except BaseException:
            connection.terminate()
            raise
        self._appending.add(connection)
        self._open = True
        await self._warm_up()

    async def close(self, timeout: float) -> None:
        """Finish what is in flight, then end all connections."""
        self._open = False
        deadline = monotonic() + timeout
        await self._watch.close()
        for pool in (self._loading, self._reading, self._appending):
            await pool.close(max(0.05, deadline - monotonic()))

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Judge and commit the batch by one call of a function.

        When its answer is lost, the call is made again over a new connection, and looks first whether it was carried out
        before. Versions only grow, so that a lost call that arrives later than that is refused.

        Raises:
            StoreUnavailable: ``may_have_committed`` is true when the answer was lost and could not be had in time.
            HistoryDiverged: the requests may build on events that are gone; none of them stands.
        """
        self._check_open()
        batch = Batch(requests)
        # As it is now: what others have written meanwhile may be gone while the batch, sent before, stands.
        known = self._known
        deadline = monotonic() + self._settings.timeout
        settling = False
        while True:
            try:
                async with self._appending.connection(deadline) as connection:
                    seconds = one_try(deadline)
                    head, singly, waited = await self._call_append(connection, seconds, batch, known, settling=settling)
            except HistoryDiverged:
                self._forget(known)
                raise
            except StoreError as error:
                settling = settling or isinstance(error, AnswerLost)
                if not settling:
                    raise
                # Whatever hinders settling: the batch may stand, and must not be sent anew in parts.
                if monotonic() + _PAUSE >= deadline:
                    raise StoreUnavailable(
                        f"an append was on its way, and may stand: its answer was lost, and could not be had since: {error}",
                        may_have_committed=True,
                    ) from error
                await asyncio.sleep(_PAUSE)
                continue
            if (tell := self.counters.on_wait) is not None:
                tell("lock", "append", waited)
            self.counters.bytes_written = (self.counters.bytes_written or 0) + batch.size()
            verdicts = batch.verdicts(head, singly)
            end = batch.end(verdicts)
            self._learn(end)
            self._watch.notified(end.position)
            return verdicts

    async def _warm_up(self) -> None:
        """Have the server plan what commands wait for: first calls of a connection take many times as long as later ones."""
        deadline = monotonic() + _WARM_UP
        try:
            await self._loading.fetch(self._read_sql, [], [], _END, 1, 0, "", deadline=deadline)
            async with self._appending.connection(deadline) as connection:
                await self._call_append(connection, one_try(deadline), Batch(()), START, settling=False)
        except StoreError:
            # Somebody holds the lock, or the server is a standby: the store is open all the same.
            pass

    async def _call_append(
        self, connection: Connection, seconds: float, batch: Batch, known: Checkpoint, *, settling: bool
    ) -> Sequence[Any]:
        # The server gives up waiting for the lock before the client does, so that its answer is not lost.
        lock_milliseconds = int(800 * seconds) + 1
        async with asyncio.timeout(seconds):
            arguments = (settling, lock_milliseconds, *batch.arguments, known.position, known.event_id)
            rows = await self._appending.rows(connection, self._append_sql, *arguments)
        row: Sequence[Any] = rows[0]
        return row

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
    ) -> BackendPage:
        """A page of each stream in one statement, which is one snapshot."""
        limit = max(_MIN_PAGE, min(_MAX_PAGE, _PAGE_BUDGET // max(1, len(after))))
        # Others come without anything that they remember.
        known, pool = (self._known, self._loading) if purpose == "command" else (START, self._reading)
        last = _END if up_to is None else up_to
        arguments = (list(after), list(after.values()), last, limit, known.position, known.event_id)
        try:
            head, *found = await self._fetch(pool, self._read_sql, *arguments)
        except HistoryDiverged:
            self._forget(known)
            raise
        rows: dict[str, list[StoredEvent]] = {stream: [] for stream in after}
        stored = self._stored(found)
        for row in stored:
            rows[row.stream_id].append(row)
        if stored and purpose == "command":
            newest = max(stored, key=_by_position)
            self._learn(Checkpoint(newest.position, newest.event_id))
        return BackendPage(rows, head[0], limit)  # type: ignore[arg-type]  # its keys are those of after

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """Rows of a range of positions."""
        return self._stored(await self._fetch(self._reading, self._scan_sql, after, up_to, limit, *_conditions(wanted)))

    async def head_position(self) -> int:
        """The highest position."""
        position: int = (await self._fetch(self._reading, self._head_sql))[0][0]
        return position

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """A window of positions behind a checkpoint, which is verified in the same statement."""
        limit = min(limit, _MAX_PAGE)
        width = limit if wanted == _EVERYTHING else _WINDOW
        about, *found = await self._fetch(self._reading, self._follow_sql, after.position, width, limit, *_conditions(wanted))
        head, _, end, end_id, standing = about[:5]
        if after.position and standing != after.event_id:
            raise diverged(after, standing or "")
        rows = self._stored(found)
        if len(rows) == limit:
            end, end_id = rows[-1].position, rows[-1].event_id
        return LogPage(rows, Checkpoint(end, end_id or ""), head)

    async def sample(self) -> DatabaseSample:
        """The end of the log, and the size of all tables with their indexes."""
        [(head, last_append_ns, size)] = await self._fetch(self._reading, self._sample_sql, self._settings.schema)
        return DatabaseSample(head, last_append_ns, size)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """Wait for a notification, or for what polling finds."""
        self._check_open()
        return await self._watch.wait_beyond(position, timeout)

    def _learn(self, newest: Checkpoint) -> None:
        if newest.position > self._known.position:
            self._known = newest

    def _forget(self, gone: Checkpoint) -> None:
        if self._known == gone:
            self._known = START

    def _stored(self, records: Sequence[Any]) -> list[StoredEvent]:
        size = sum([len(record[5]) + len(record[6]) for record in records])
        self.counters.bytes_read = (self.counters.bytes_read or 0) + size
        try:
            return _decoded(records, "strict")
        except UnicodeDecodeError:
            # Bytes that are not UTF-8 become what is no JSON: then the codec refuses that one row only.
            return _decoded(records, "backslashreplace")

    def _sql(self, text: str) -> str:
        return for_schema(text, self._settings.schema)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreClosed("the store is not open")

    async def _fetch(self, pool: Pool, sql: str, *arguments: Any) -> Sequence[Any]:
        self._check_open()
        return await pool.fetch(sql, *arguments, deadline=monotonic() + self._settings.timeout)


def _decoded(records: Sequence[Any], errors: str) -> list[StoredEvent]:
    return [
        StoredEvent(
            position, stream, version, event_id, kind, data.decode("utf-8", errors), metadata.decode("utf-8", errors), time
        )
        for position, stream, version, event_id, kind, data, metadata, time in records
    ]


def regular_expression(pattern: StreamPattern) -> str:
    """A pattern as PostgreSQL writes it.

    Python's expression means the same there, since each of its escapes is of a single character that is no letter or digit. In
    the collation of stream ids, characters are in the order of their code points.
    """
    return f"^(?:{pattern.regex.pattern})$"


def _conditions(wanted: EventFilter) -> tuple[str | None, Sequence[str] | None]:
    return (None if wanted.pattern is None else regular_expression(wanted.pattern)), wanted.event_types
