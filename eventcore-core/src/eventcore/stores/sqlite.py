"""The embedded store: one SQLite file, one thread that writes, one that reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeAlias, TypeVar, final

import msgspec

from eventcore.codec import StoredEvent
from eventcore.errors import CorruptEvent, IncompatibleStore, StoreClosed
from eventcore.stores.base import SCHEMA_VERSION, AppendRequest, BackendPage, EventFilter, Purpose, Verdict
from eventcore.stores.sqlite_errors import explained
from eventcore.stores.sqlite_statements import append, head, read_streams, scan
from eventcore.stores.worker import Worker
from eventcore.streams import StreamId

__all__ = ["SqliteBackend", "Synchronous"]

Synchronous: TypeAlias = Literal["full", "normal", "extra"]
T = TypeVar("T")

_APPLICATION_ID: Final = 0x65766374  # "evct"
_MAX_PAGE: Final = 500
_PAGE_BUDGET: Final = 4096
_MIN_PAGE: Final = 16
_END: Final = 2**62

_SCHEMA: Final = f"""
    BEGIN IMMEDIATE;
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
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
    COMMIT;
"""


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
        self._writer: _Connection | None = None
        self._reader: _Connection | None = None

    async def open(self) -> None:
        """Open both connections, and create or check the schema.

        Raises:
            IncompatibleStore: the file is something else, or has a later schema version.
            StoreUnavailable: it cannot be opened or written.
        """
        try:
            self._writer = _Connection("eventcore-sqlite-writer", self.path)
            await self._writer.run(self._open_writer)
            self._reader = _Connection("eventcore-sqlite-reader", self.path)
            await self._reader.run(self._open_reader)
        except BaseException:
            await self.close(self._busy_timeout)
            raise

    async def close(self, timeout: float) -> None:
        """Finish what is in flight, then close both connections."""
        reader, writer = self._reader, self._writer
        self._reader = self._writer = None
        # The writer last, so that it is the one who moves the log into the file.
        if reader is not None:
            await reader.close(timeout)
        if writer is not None:
            await writer.close(timeout)

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Judge and commit the batch in the writer thread."""
        return await _opened(self._writer).run(partial(append, requests))

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
        return await _opened(self._reader).run(partial(scan, after, up_to, limit, wanted))

    async def head_position(self) -> int:
        """The highest position."""
        return await _opened(self._reader).run(head)

    def _open_writer(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if tables and application != _APPLICATION_ID:
            raise IncompatibleStore(
                f"{self.path} is a database of something else; give the path of an eventcore store or of a new file"
            )
        if tables and version != SCHEMA_VERSION:
            raise IncompatibleStore(
                f"{self.path} has schema version {version}, this eventcore knows version {SCHEMA_VERSION}; "
                "open it with the eventcore that made it, or upgrade"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        if not tables:
            connection.executescript(_SCHEMA)

    def _open_reader(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")
        connection.execute("PRAGMA query_only = ON")


@final
class _Connection:
    """A connection and the thread that alone uses it."""

    def __init__(self, name: str, path: str) -> None:
        self._path = path
        self._worker = Worker(name)
        self._connection: sqlite3.Connection | None = None

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self._worker.run(partial(self._call, job))

    async def close(self, timeout: float) -> None:
        await self._worker.close(self._close, timeout)

    def _call(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, isolation_level=None)
                self._connection.text_factory = bytes
            return job(self._connection)
        except sqlite3.Error as error:
            raise explained(error, self._path) from error
        except msgspec.DecodeError as error:
            raise CorruptEvent(f"{self._path} holds a row that cannot be read ({error}); it was changed by hand") from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _opened(connection: _Connection | None) -> _Connection:
    if connection is None:
        raise StoreClosed("the store is not open")
    return connection
