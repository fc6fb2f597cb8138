"""A connection to SQLite, the only thread that uses it, what it counts, and its errors as errors of eventcore."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar, final
from urllib.parse import quote

import msgspec

from eventcore.errors import CorruptEvent, IncompatibleStore, StoreClosed, StoreError, StoreUnavailable
from eventcore.ground import describe_error
from eventcore.stores.sampling import BackendCounters
from eventcore.stores.sqlite.worker import Worker

T = TypeVar("T")

# Primary result codes: https://www.sqlite.org/rescode.html
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process; end its long transaction, or raise busy_timeout in the URL",
    sqlite3.SQLITE_LOCKED: "is locked by another connection; end its long transaction",
    sqlite3.SQLITE_FULL: "cannot grow, since the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "cannot be written: check the permissions of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that its directory exists and may be written",
    sqlite3.SQLITE_PERM: "cannot be used: check the permissions of the file",
    sqlite3.SQLITE_IOERR: "cannot be read or written: check the disk and the file system",
    sqlite3.SQLITE_NOMEM: "needs more memory than there is",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup",
}


class StoreConnection(sqlite3.Connection):
    """A connection that carries the path of its file and the counters of its backend."""

    path: str
    counters: BackendCounters


@contextmanager
def write_transaction(connection: StoreConnection) -> Generator[None]:
    """A transaction that holds the write lock from its beginning; how long it waited for the lock is reported."""
    begun = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    if (on_wait := connection.counters.on_wait) is not None:
        on_wait("lock", "write", time.perf_counter() - begun)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@final
class ConnectionThread:
    """A connection that only one thread uses, once it is opened. Its methods but ``disconnect`` may be called from any thread.

    Args:
        path: the file.
        counters: the counters of the backend.
        set_up: sets up the new connection; called in the thread.
    """

    def __init__(self, path: str, counters: BackendCounters, set_up: Callable[[StoreConnection], None]) -> None:
        self._path = path
        self._counters = counters
        self._set_up = set_up
        self._worker: Worker | None = None
        self._connection: StoreConnection | None = None

    async def open(self, worker: Worker) -> None:
        """Open the connection in the thread of ``worker``, which several connections may share."""
        self._worker = worker
        await self.run(self._set_up)

    def close(self) -> None:
        """Accept no more jobs. Jobs that are in the queue still run; the last job of the worker must call ``disconnect``."""
        self._worker = None

    def disconnect(self) -> None:
        """Close the connection; only to be called in its thread."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def run(self, job: Callable[[StoreConnection], T]) -> T:
        """The result of ``job``, called in the thread with the connection. SQLite's errors are raised as ``StoreError``.

        Raises:
            StoreClosed: the connection is not open.
        """
        return await self._opened().run(partial(self._call, job))

    def post(self, job: Callable[[StoreConnection], T]) -> Future[T]:
        """Like ``run``, for a caller that is in any thread and does not await."""
        return self._opened().post(partial(self._call, job))

    def _opened(self) -> Worker:
        if (worker := self._worker) is None:
            raise StoreClosed("the store is not open")
        return worker

    def _call(self, job: Callable[[StoreConnection], T]) -> T:
        try:
            if self._connection is None:
                database, is_uri = location(self._path)
                connection = sqlite3.connect(database, isolation_level=None, factory=StoreConnection, uri=is_uri)
                # Texts come as bytes: bytes that are not UTF-8 must fail one row only, not the whole page.
                connection.text_factory = bytes
                connection.path, connection.counters = self._path, self._counters
                self._connection = connection
            return job(self._connection)
        except sqlite3.Error as error:
            raise explained(error, self._path) from error
        except msgspec.DecodeError as error:
            raise CorruptEvent(f"{self._path} holds a row that cannot be read ({error}); it was changed by hand") from error


def is_read_only(path: str) -> bool:
    """Whether this process may read the file and may not write it, or not create a write-ahead log in its directory."""
    if not os.path.exists(path):
        return False
    return not os.access(path, os.W_OK) or not (_is_in_use(path) or os.access(os.path.dirname(path) or ".", os.W_OK))


def location(path: str) -> tuple[str, bool]:
    """What to open as the database at ``path``, and whether that is a URI.

    A file in a directory that cannot be written is opened as immutable: SQLite then reads it without a write-ahead log and
    without locks. This is right as long as no other process writes the file.
    """
    if not is_read_only(path):
        return path, False
    immutable = "" if _is_in_use(path) else "&immutable=1"
    return f"file:{quote(path)}?mode=ro{immutable}", True


def _is_in_use(path: str) -> bool:
    return os.path.exists(f"{path}-wal")


def is_unavailable(error: sqlite3.Error) -> bool:
    """Whether the file cannot be used now, whatever the request."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNAVAILABLE


def explained(error: sqlite3.Error, path: str) -> StoreError:
    """The ``StoreError`` to raise for an error of SQLite on the file at ``path``."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return IncompatibleStore(f"{path} is not an SQLite database; give the path of an eventcore store or of a new file")
    if advice := _UNAVAILABLE.get(code):
        return StoreUnavailable(f"{path} {advice} ({error})")
    return StoreError(f"{path}: {describe_error(error)}")
