"""The embedded store: one SQLite file, one thread that writes, one that reads streams, one that follows the global order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeAlias, TypeVar, final

from eventcore.errors import IncompatibleStore, StoreClosed
from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.base import (
    SCHEMA_VERSION,
    AppendRequest,
    BackendPage,
    Checkpoint,
    DeadLetter,
    EventFilter,
    Lease,
    LogPage,
    ProjectionRecord,
    Purpose,
    Verdict,
)
from eventcore.stores.head_watch import LocalHeadWatch
from eventcore.stores.sampling import BackendCounters, DatabaseSample
from eventcore.stores.sqlite.connection import ConnectionThread, StoreConnection
from eventcore.stores.sqlite.following import Follower
from eventcore.stores.sqlite.ledger import (
    PROJECTION_TABLES,
    acquire_lease,
    commit_checkpoint,
    dead_letters,
    is_leased,
    projections,
    release_lease,
    remove_dead_letter,
    renew_lease,
    reset_projection,
)
from eventcore.stores.sqlite.statements import append, head, last_append_ns, read_streams, scan
from eventcore.stores.sqlite.worker import Worker

T = TypeVar("T")
Synchronous: TypeAlias = Literal["full", "normal", "extra"]

_APPLICATION_ID: Final = 0x65766374  # "evct"
_MAX_PAGE: Final = 500
_PAGE_BUDGET: Final = 4096
_MIN_PAGE: Final = 16
_END: Final = 2**62

# What each version of the schema brings. Every part can be run again, since another process may do the same at this moment.
_EVENTS: Final = """
    CREATE TABLE IF NOT EXISTS events (
        position INTEGER PRIMARY KEY,
        stream_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        event_id TEXT NOT NULL,
        event_type TEXT NOT NULL,
        data TEXT NOT NULL,
        metadata TEXT NOT NULL,
        recorded_at_ns INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX IF NOT EXISTS events_by_stream ON events (stream_id, version);
    CREATE TRIGGER IF NOT EXISTS events_are_kept BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never deleted: positions must stay dense'); END;
"""
_SCHEMAS: Final = (_EVENTS, PROJECTION_TABLES)


@final
class SqliteBackend:
    """A backend on one file, which other processes may use at the same time.

    Args:
        path: the file; it is created when it is missing, its directory is not.
        synchronous: ``"full"`` makes every acknowledged event survive a power cut; ``"normal"`` may lose the last ones then,
            but not when only the process dies; ``"extra"`` as SQLite says.
        busy_timeout: seconds to wait for another process's lock.
    """

    system = "sqlite"

    def __init__(self, path: str, *, synchronous: Synchronous = "full", busy_timeout: float = 5.0) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self.counters = BackendCounters()
        self.counters.bytes_read = self.counters.bytes_written = 0
        self._workers: dict[str, Worker] = {}
        self._writer: ConnectionThread | None = None
        self._reader: ConnectionThread | None = None
        # Writes of projections, by the thread that writes: the two never wait for each other's lock.
        self._projecting: ConnectionThread | None = None
        # Long reads of the global order, so that commands need not wait behind them.
        self._log: ConnectionThread | None = None
        self._follower: Follower | None = None
        self._watch = LocalHeadWatch(self.head_position)

    async def open(self) -> None:
        """Open both connections, and create or check the schema.

        Raises:
            IncompatibleStore: the file is something else, or has a later schema version.
            StoreUnavailable: it cannot be opened or written.
        """
        try:
            self._writer = self._connect("writer")
            await self._writer.run(self._open_writer)
            self._projecting = ConnectionThread(self._workers["writer"], self.path, self.counters)
            await self._projecting.run(self._open_projecting)
            self._reader = self._connect("reader")
            await self._reader.run(self._open_reader)
            self._log = self._connect("log")
            await self._log.run(self._open_reader)
            self._follower = Follower(self._log)
        except BaseException:
            await self.close(self._busy_timeout)
            raise

    async def close(self, timeout: float) -> None:
        """Finish what is in flight, then close both connections."""
        # The writer last, so that it is the one who moves the log into the file.
        ends = (("log", [self._log]), ("reader", [self._reader]), ("writer", [self._projecting, self._writer]))
        self._log = self._reader = self._writer = self._projecting = self._follower = None
        for name, connections in ends:
            if (worker := self._workers.pop(name, None)) is not None:
                await worker.close(partial(_disconnect, connections), timeout)

    def _connect(self, name: str) -> ConnectionThread:
        worker = self._workers[name] = Worker(f"eventcore-sqlite-{name}")
        return ConnectionThread(worker, self.path, self.counters)

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Judge and commit the batch in the writer thread."""
        verdicts = await _opened(self._writer).run(partial(append, requests))
        for request, verdict in zip(reversed(requests), reversed(verdicts), strict=True):
            if verdict > 0:
                self._watch.advance(verdict + len(request.events) - 1)
                break
        return verdicts

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
        return await _opened(self._reader).run(partial(read_streams, after, _END if up_to is None else up_to, limit))

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """Rows of a range of positions."""
        return await _opened(self._log).run(partial(scan, after, up_to, limit, wanted))

    async def head_position(self) -> int:
        """The highest position."""
        return await _opened(self._reader).run(head)

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """A page of the global order in one statement, which is one snapshot."""
        return await _opened(self._follower).follow(after, limit, wanted)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """Woken at once by appends of this backend, within a twentieth of a second by others'."""
        return await self._watch.wait_beyond(position, timeout)

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """Look first, so that those who stand by disturb no writer."""
        if await _opened(self._reader).run(partial(is_leased, projection, owner)):
            return None
        return await _opened(self._projecting).run(partial(acquire_lease, projection, owner, seconds))

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """Renew in the writer thread."""
        return await _opened(self._projecting).run(partial(renew_lease, lease, seconds))

    async def release_lease(self, lease: Lease) -> None:
        """Release in the writer thread."""
        await _opened(self._projecting).run(partial(release_lease, lease))

    async def commit_checkpoint(
        self,
        lease: Lease,
        before: Checkpoint,
        after: Checkpoint,
        dead_letters: Sequence[DeadLetter] = (),
        apply: Callable[[Any], Any] | None = None,
    ) -> None:
        """Apply and commit in the writer thread."""
        await _opened(self._projecting).run(partial(commit_checkpoint, lease, before, after, dead_letters, apply))

    async def projections(self) -> Sequence[ProjectionRecord]:
        """Every projection of the file."""
        return await _opened(self._reader).run(projections)

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """The dead letters of the file."""
        return await _opened(self._reader).run(partial(dead_letters, projection, limit))

    async def remove_dead_letter(self, letter: DeadLetter, apply: Callable[[Any], Any] | None = None) -> bool:
        """Apply and remove in the writer thread."""
        return await _opened(self._projecting).run(partial(remove_dead_letter, letter, apply))

    async def reset_projection(self, projection: str) -> None:
        """Reset in the writer thread."""
        await _opened(self._projecting).run(partial(reset_projection, projection))

    async def sample(self) -> DatabaseSample:
        """The newest event, and the bytes of the file and its log."""
        return await _opened(self._reader).run(self._sample)

    def _sample(self, connection: StoreConnection) -> DatabaseSample:
        position, recorded_at_ns = last_append_ns(connection)
        size = 0
        for name in (self.path, f"{self.path}-wal"):
            with suppress(FileNotFoundError):
                size += os.stat(name).st_size
        return DatabaseSample(position, recorded_at_ns, size)

    def _open_writer(self, connection: StoreConnection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if tables and application != _APPLICATION_ID:
            raise IncompatibleStore(
                f"{self.path} is a database of something else; give the path of an eventcore store or of a new file"
            )
        if tables and not 0 < version <= SCHEMA_VERSION:
            raise IncompatibleStore(
                f"{self.path} has schema version {version}, this eventcore knows versions up to {SCHEMA_VERSION}; "
                "open it with the eventcore that made it, or upgrade"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        if version < SCHEMA_VERSION:
            connection.executescript(
                f"BEGIN IMMEDIATE; {' '.join(_SCHEMAS[version:])} PRAGMA application_id = {_APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
            )

    def _open_projecting(self, connection: StoreConnection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")
        connection.execute("PRAGMA synchronous = NORMAL")

    def _open_reader(self, connection: StoreConnection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")
        connection.execute("PRAGMA query_only = ON")


def _disconnect(connections: Sequence[ConnectionThread | None]) -> None:
    for connection in connections:
        if connection is not None:
            connection.disconnect()


def _opened(part: T | None) -> T:
    if part is None:
        raise StoreClosed("the store is not open")
    return part
