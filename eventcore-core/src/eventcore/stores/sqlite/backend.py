"""The store in one SQLite file: its threads and connections, opened and closed together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import final

from eventcore.stores.sampling import BackendCounters, DatabaseSample
from eventcore.stores.sqlite.connection import ConnectionThread, StoreConnection
from eventcore.stores.sqlite.ledger import SqliteLedger
from eventcore.stores.sqlite.log import SqliteLog
from eventcore.stores.sqlite.schema import Synchronous, prepare, set_up_ledger, set_up_reader
from eventcore.stores.sqlite.statements import last_append
from eventcore.stores.sqlite.worker import Worker


@final
class SqliteBackend:
    """A backend on one file, which other processes may use at the same time.

    One thread writes, one reads streams, one follows the global order: reading a long log never delays commands.

    Args:
        path: the file; it is created when it is missing, its directory is not.
        synchronous: ``"full"`` makes every acknowledged event survive a power cut; with ``"normal"`` a power cut may lose the
            last ones, a crash of the process does not; ``"extra"`` as SQLite documents it.
        busy_timeout: seconds to wait for another process's lock.
    """

    system = "sqlite"

    def __init__(self, path: str, *, synchronous: Synchronous = "full", busy_timeout: float = 5.0) -> None:
        self.path = path
        self.counters = BackendCounters()
        self.counters.bytes_read = self.counters.bytes_written = 0
        self._busy_timeout = busy_timeout
        for_appends = partial(prepare, path=path, synchronous=synchronous, busy_timeout=busy_timeout)
        for_ledger = partial(set_up_ledger, busy_timeout=busy_timeout)
        for_reading = partial(set_up_reader, busy_timeout=busy_timeout)
        writer = ConnectionThread(path, self.counters, for_appends)
        ledger_writer = ConnectionThread(path, self.counters, for_ledger)
        follower = ConnectionThread(path, self.counters, for_reading)
        self._reader = ConnectionThread(path, self.counters, for_reading)
        # The connections by the name of their thread, in the order in which they are opened: the first creates the schema. The
        # ledger writes in the thread of appends, so that the two never wait for each other's lock.
        self._threads = {"writer": (writer, ledger_writer), "reader": (self._reader,), "log": (follower,)}
        self._workers: dict[str, Worker] = {}
        self.log = SqliteLog(writer, self._reader, follower)
        self.ledger = SqliteLedger(self._reader, ledger_writer)

    async def open(self) -> None:
        """Open the connections, and create or check the schema.

        Raises:
            IncompatibleStore: the file is something else, or has a later schema version.
            StoreUnavailable: the file cannot be opened or written.
        """
        try:
            for name, connections in self._threads.items():
                worker = self._workers[name] = Worker(f"eventcore-sqlite-{name}")
                for connection in connections:
                    await connection.open(worker)
        except BaseException:
            await self.close(self._busy_timeout)
            raise

    async def close(self, timeout: float) -> None:
        """Finish the calls that are running, then close the connections and end the threads."""
        for connections in self._threads.values():
            for connection in connections:
                connection.close()
        # The writer last: SQLite copies the write-ahead log into the file when the last connection closes, and a connection
        # that may only read cannot do that.
        for name, connections in reversed(self._threads.items()):
            if (worker := self._workers.pop(name, None)) is not None:
                await worker.close(partial(_disconnect, connections), timeout)

    async def sample(self) -> DatabaseSample:
        """The last event, the size of the file and its write-ahead log, and what is free on its disk."""
        return await self._reader.run(self._sample)

    def _sample(self, connection: StoreConnection) -> DatabaseSample:
        position, recorded_at_ns = last_append(connection)
        size = 0
        for name in (self.path, f"{self.path}-wal"):
            with suppress(FileNotFoundError):
                size += os.stat(name).st_size
        free = None
        with suppress(OSError):
            free = shutil.disk_usage(self.path).free
        return DatabaseSample(position, recorded_at_ns, size, free)


def _disconnect(connections: Sequence[ConnectionThread]) -> None:
    # The ledger's connection first: the connection of appends does the final copying.
    for connection in reversed(connections):
        connection.disconnect()
