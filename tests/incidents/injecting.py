"""How each incident is brought about. Nothing here depends on how it is watched, so alerts are tested with the same functions.

Functions that take a server act from outside, on any service. Those at the end run inside the service, which
``tests.incidents.service`` offers as requests.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from eventcore import Event, EventStore, StreamId
from eventcore.stores.postgres.schema import lock_key
from examples.service.domain import Deposit, account
from tests.real_parts.postgres import PostgresServer

# Deposits to this account cannot be applied while the handler is broken.
POISONED = "poison"


class Restartable(Protocol):
    """A server that can be stopped and started again at the same address."""

    def stop(self) -> None:
        """Stop it."""

    def start(self) -> None:
        """Start it again."""


@contextmanager
def killed(server: PostgresServer) -> Iterator[None]:
    """In this block, the database server is away: it was killed, and all its connections with it. Afterwards it recovers."""
    server.stop(signal.SIGKILL)
    try:
        yield
    finally:
        server.start()


@contextmanager
def append_lock_held(server: PostgresServer, database: str, schema: str = "eventcore") -> Iterator[None]:
    """In this block, another session holds the append lock: no command can append."""
    with _session(server, database) as (runner, connection):
        runner.run(connection.execute("SELECT pg_advisory_lock($1)", lock_key(schema)))
        yield


@contextmanager
def events_locked(server: PostgresServer, database: str, schema: str = "eventcore") -> Iterator[None]:
    """In this block, a migration that forgot to commit holds the table of events: reads and appends wait, and fill the pool."""
    with _session(server, database) as (runner, connection):
        runner.run(connection.execute(f"BEGIN; LOCK TABLE {schema}.events IN ACCESS EXCLUSIVE MODE"))
        yield


@contextmanager
def handler_broken(server: PostgresServer, database: str) -> Iterator[None]:
    """In this block, the projection's handler raises for the account ``POISONED``: the table refuses it."""
    server.sql(f"ALTER TABLE balances ADD CONSTRAINT no_poison CHECK (account <> '{POISONED}')", database)
    try:
        yield
    finally:
        server.sql("ALTER TABLE balances DROP CONSTRAINT no_poison", database)


@contextmanager
def away(server: Restartable) -> Iterator[None]:
    """In this block, the server (a collector) is stopped."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def terminate(pid: int) -> None:
    """Ask a process to end, as Kubernetes does."""
    os.kill(pid, signal.SIGTERM)


@contextmanager
def _session(server: PostgresServer, database: str) -> Iterator[tuple[asyncio.Runner, Any]]:
    import asyncpg

    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(server.url(database)))
        try:
            yield runner, connection
        finally:
            # Ends the session, and so the locks that it holds.
            runner.run(connection.close())


# Inside the service


def block_the_event_loop(seconds: float) -> None:
    """What a forgotten ``requests.get`` does in an ``async def``."""
    time.sleep(seconds)


class Reckon(Deposit):
    """A command whose ``handle`` computes for seconds."""

    seconds: float

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            sum(range(1000))
        return super().handle(state)


async def execute_many_types(store: EventStore, count: int) -> None:
    """Execute a command of each of ``count`` types: an application that makes a class for each customer."""
    types = [type(f"DepositOfCustomer{number}", (Deposit,), {"__module__": __name__}) for number in range(count)]
    for at in range(0, count, 50):
        await asyncio.gather(*(store.execute(each(account=account("customers"), amount=1)) for each in types[at : at + 50]))
