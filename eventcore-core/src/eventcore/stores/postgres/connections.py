"""Connections to a PostgreSQL server: opened when needed, used by one call at a time, closed when their state is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import InvalidStoreUrl, StoreClosed, StoreUnavailable
from eventcore.ground import backoff
from eventcore.stores.postgres.driver import FAILURES, Connection, InvalidConfiguration, connect, transaction
from eventcore.stores.postgres.errors import AnswerLost, explained, leaves_connection_usable
from eventcore.stores.postgres.schema import for_schema
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.sampling import BackendCounters

_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 1.0
# Seconds for one attempt to connect.
_CONNECT_TIMEOUT: Final = 5.0


@final
class Connector:
    """Opens connections to the server of a store."""

    def __init__(self, settings: PostgresSettings) -> None:
        self.settings: Final = settings

    async def once(self, timeout: float) -> Connection:
        """A new connection, by one attempt of at most ``timeout`` seconds.

        Raises:
            StoreUnavailable, AccessDenied, IncompatibleStore: the server does not answer, or refuses the connection.
            InvalidStoreUrl: asyncpg cannot use the URL.
        """
        settings = self.settings
        try:
            return await connect(settings.dsn, timeout, statement_cache=settings.statement_cache)
        except (InvalidConfiguration, ValueError):
            # The message of asyncpg may contain a part of the password.
            raise InvalidStoreUrl(
                f"the store URL cannot be used ({settings.address}): a host, a port or a setting of asyncpg is wrong"
            ) from None
        except FAILURES as error:
            reason = explained(error, settings.address)
            if isinstance(reason, AnswerLost):
                reason = StoreUnavailable(
                    f"no PostgreSQL server can be reached at {settings.address} ({type(error).__name__}: {error}); start it, "
                    "or correct the address in the store URL"
                )
            raise reason from error

    async def patiently(self, deadline: float) -> Connection:
        """A new connection, by repeated attempts until ``deadline`` (of ``time.monotonic``). Raises as ``once`` does."""
        attempt = 1
        while True:
            try:
                return await self.once(max(0.05, min(_CONNECT_TIMEOUT, deadline - monotonic())))
            except StoreUnavailable:
                pause = backoff(attempt, _FIRST_DELAY, _MAX_DELAY)
                if monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            attempt += 1


@final
class Pool:
    """At most ``size`` connections to one server, opened on demand. Belongs to one event loop.

    A connection is in ``_free``, or used by the one call that holds one of the ``_slots`` for it. Connections that break are
    closed; the next call opens a new one.

    Attributes:
        counters: the counters of the backend.
    """

    def __init__(self, connector: Connector, size: int, counters: BackendCounters) -> None:
        self._connector = connector
        self.counters = counters
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._free: list[Connection] = []
        self._is_open = False

    def open(self) -> None:
        """Accept calls from now on."""
        self._slots = asyncio.Semaphore(self._size)
        self._is_open = True

    def check_open(self) -> None:
        """Raise ``StoreClosed`` before ``open`` and after ``close``."""
        if not self._is_open:
            raise StoreClosed("the store is not open")

    def deadline(self) -> float:
        """The time of ``time.monotonic`` by which a call that starts now must end."""
        return monotonic() + self._connector.settings.timeout

    async def close(self, timeout: float) -> None:
        """Wait until the running calls have ended, and close all connections, within ``timeout`` seconds."""
        if not self._is_open:
            return
        self._is_open = False
        deadline = monotonic() + timeout
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for _ in range(self._size):
                    await self._slots.acquire()
        while self._free:
            await close(self._take(), max(0.05, deadline - monotonic()))

    async def fetch(self, sql: str, *arguments: Any, timeout: float | None = None) -> Sequence[Any]:
        """The rows of a statement. When its answer is lost, it runs again on another connection, so it must be idempotent.

        Args:
            sql: the statement, with the placeholders of ``for_schema``.
            arguments: the values of ``$1``, ``$2`` and so on.
            timeout: seconds for all attempts; ``None``: those of the settings.
        """
        deadline = self.deadline() if timeout is None else monotonic() + timeout
        while True:
            try:
                async with self.connection(deadline) as connection, asyncio.timeout(one_try(deadline)):
                    return await self.rows(connection, sql, *arguments)
            except AnswerLost:
                if monotonic() >= deadline:
                    raise

    async def rows(self, connection: Connection, sql: str, *arguments: Any) -> Sequence[Any]:
        """The rows of a statement that runs once, on a connection of this pool."""
        settings = self._connector.settings
        sql = for_schema(sql, settings.schema)
        if settings.statement_cache:
            return await connection.fetch(sql, *arguments)
        # Behind pgbouncer, parsing and running a statement reach the same connection to the server only in a transaction.
        async with transaction(connection):
            return await connection.fetch(sql, *arguments)

    @asynccontextmanager
    async def connection(self, deadline: float) -> AsyncGenerator[Connection]:
        """A connection for one call or transaction, ready by ``deadline``. Errors of asyncpg are raised as ``StoreError``."""
        await self._slot(deadline)
        self.counters.connections_used = (self.counters.connections_used or 0) + 1
        try:
            connection = await self._open(deadline)
            try:
                yield connection
            except FAILURES as error:
                if leaves_connection_usable(error):
                    self._give_back(connection)
                else:
                    connection.terminate()
                raise explained(error, self._connector.settings.address) from error
            except BaseException:
                # A cancelled call may leave a statement running on the connection.
                connection.terminate()
                raise
            self._give_back(connection)
        finally:
            self.counters.connections_used = (self.counters.connections_used or 0) - 1
            self._slots.release()

    async def _slot(self, deadline: float) -> None:
        self.check_open()
        begun = monotonic()
        try:
            if self._slots.locked():
                async with asyncio.timeout(max(0.0, deadline - begun)):
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError as error:
            raise StoreUnavailable(
                f"all {self._size} connections to PostgreSQL at {self._connector.settings.address} were in use until the "
                "timeout; raise pool in the store URL"
            ) from error
        if (on_wait := self.counters.on_wait) is not None:
            on_wait("pool", "", monotonic() - begun)

    async def _open(self, deadline: float) -> Connection:
        while self._free:
            connection = self._take()
            if not connection.is_closed():
                return connection
        return await self._connector.patiently(deadline)

    def _give_back(self, connection: Connection) -> None:
        if connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            self.add(connection)

    def _take(self) -> Connection:
        self.counters.connections_idle = (self.counters.connections_idle or 0) - 1
        return self._free.pop()

    def add(self, connection: Connection) -> None:
        """Take over an open connection, for the next call to use."""
        self.counters.connections_idle = (self.counters.connections_idle or 0) + 1
        self._free.append(connection)


def one_try(deadline: float) -> float:
    """Seconds for the next attempt of a call: half of the time until the deadline, which leaves time for another attempt."""
    return max(0.05, (deadline - monotonic()) / 2)


async def close(connection: Connection, timeout: float) -> None:
    """Close a connection; if the server does not answer within ``timeout`` seconds, drop it."""
    try:
        await connection.close(timeout=timeout)
    except FAILURES:
        connection.terminate()
