"""A connection to SQLite, the thread that alone uses it, and what it counts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, final

import msgspec

from eventcore.errors import CorruptEvent
from eventcore.stores.sampling import BackendCounters
from eventcore.stores.sqlite.errors import explained
from eventcore.stores.sqlite.worker import Worker

T = TypeVar("T")


class StoreConnection(sqlite3.Connection):
    """A connection that knows where its store counts."""

    counters: BackendCounters


@contextmanager
def write_transaction(connection: StoreConnection) -> Generator[None]:
    """A transaction that holds the write lock from its beginning, and tells how long it waited for it."""
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
    """A connection to the file at ``path``, opened by the first job, which only one thread uses.

    Args:
        worker: the thread, where several connections share it.
    """

    def __init__(self, worker: Worker, path: str, counters: BackendCounters) -> None:
        self._path = path
        self._counters = counters
        self._worker = worker
        self._connection: StoreConnection | None = None

    async def run(self, job: Callable[[StoreConnection], T]) -> T:
        """The result of ``job``; SQLite's errors come in the words of eventcore."""
        return await self._worker.run(partial(self._call, job))

    def post(self, job: Callable[[StoreConnection], T]) -> Future[T]:
        """Like ``run``, from any thread."""
        return self._worker.post(partial(self._call, job))

    def disconnect(self) -> None:
        """Close the connection; to be called in the thread."""
        if self._connection is not None:
            self._connection.close()

    def _call(self, job: Callable[[StoreConnection], T]) -> T:
        try:
            if self._connection is None:
                connection = sqlite3.connect(self._path, isolation_level=None, factory=StoreConnection)
                connection.text_factory = bytes
                connection.counters = self._counters
                self._connection = connection
            return job(self._connection)
        except sqlite3.Error as error:
            raise explained(error, self._path) from error
        except msgspec.DecodeError as error:
            raise CorruptEvent(f"{self._path} holds a row that cannot be read ({error}); it was changed by hand") from error
