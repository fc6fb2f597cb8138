"""Connections to a PostgreSQL server: made when needed, used by one call at a time, thrown away when in doubt."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import InvalidStoreUrl, StoreClosed, StoreError, StoreUnavailable
from eventcore.stores.postgres.driver import FAILURES, Connection, InvalidConfiguration, connect, transaction
from eventcore.stores.postgres.errors import AnswerLost, explained, leaves_connection_usable
from eventcore.stores.postgres.url import PostgresSettings
from eventcore.stores.sampling import BackendCounters

_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 1.0
_CONNECT_TIMEOUT: Final = 5.0


@final
class Connector:
    """Makes connections to the one server that a URL names."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self.address: Final = settings.address

    async def once(self, timeout: float) -> Connection:
        """A new connection.

        Raises:
            StoreUnavailable, AccessDenied, IncompatibleStore: there is none to be had.
            InvalidStoreUrl: the URL does not say which.
        """
        settings = self._settings
        try:
            return await connect(settings.dsn, timeout, statement_cache=settings.statement_cache)
        except (InvalidConfiguration, ValueError):
            # What asyncpg says may hold a part of the password.
            raise InvalidStoreUrl(
                f"the store URL cannot be used ({self.address}): a host, a port or a setting of asyncpg is wrong"
            ) from None
        except FAILURES as error:
            raise self._refused(error) from error

    async def patiently(self, deadline: float) -> Connection:
        """A new connection, however often it has to be tried until ``deadline`` (of ``time.monotonic``)."""
        delay = _FIRST_DELAY
        while True:
            try:
                return await self.once(max(0.05, min(_CONNECT_TIMEOUT, deadline - monotonic())))
            except StoreUnavailable:
                pause = delay * random.uniform(0.5, 1.0)
                if monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            delay = min(2 * delay, _MAX_DELAY)

    def _refused(self, error: BaseException) -> StoreError:
        reason = explained(error, self.address)
        if isinstance(reason, AnswerLost):
            return StoreUnavailable(
                f"no PostgreSQL server can be reached at {self.address} ({type(error).__name__}: {error}); start it, or mend "
                "the address in the store URL"
            )
        return reason


@final
class Pool:
    """At most ``size`` connections for calls that come one after the other or at once."""

    def __init__(self, connector: Connector, size: int, counters: BackendCounters, *, statement_cache: bool) -> None:
        self._connector = connector
        self._counters = counters
        self._statement_cache = statement_cache
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._free: list[Connection] = []
        self._closed = False

    def add(self, connection: Connection) -> None:
        """Take over a connection that is open already."""
        self._put(connection)

    async def close(self, timeout: float) -> None:
        """Wait for the calls that are in flight, and end all connections, within ``timeout`` seconds."""
        if self._closed:
            return
        self._closed = True
        deadline = monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                for _ in range(self._size):
                    await self._slots.acquire()
        except TimeoutError:
            pass
        while self._free:
            await close(self._take(), max(0.05, deadline - monotonic()))

    async def fetch(self, sql: str, *arguments: Any, deadline: float) -> Sequence[Any]:
        """The rows of a statement that does no harm when it is run twice: a lost connection is replaced by another."""
        while True:
            try:
                async with self.connection(deadline) as connection, asyncio.timeout(one_try(deadline)):
                    return await self.rows(connection, sql, *arguments)
            except AnswerLost:
                if monotonic() >= deadline:
                    raise

    async def rows(self, connection: Connection, sql: str, *arguments: Any) -> Sequence[Any]:
        """The rows of a statement, run once on a connection of this pool."""
        if self._statement_cache:
            return await connection.fetch(sql, *arguments)
        # Behind pgbouncer only a transaction keeps a statement and its arguments on one connection to the server.
        async with transaction(connection):
            return await connection.fetch(sql, *arguments)

    @asynccontextmanager
    async def connection(self, deadline: float) -> AsyncGenerator[Connection]:
        """A connection for one call or transaction. What asyncpg raises within comes out explained."""
        await self._slot(deadline)
        self._counters.connections_used = (self._counters.connections_used or 0) + 1
        try:
            connection = await self._open(deadline)
            try:
                yield connection
            except FAILURES as error:
                if leaves_connection_usable(error):
                    self._give_back(connection)
                else:
                    connection.terminate()
                raise explained(error, self._connector.address) from error
            except BaseException:
                # Whoever was cancelled in the middle leaves a connection that may be busy.
                connection.terminate()
                raise
            self._give_back(connection)
        finally:
            self._counters.connections_used = (self._counters.connections_used or 0) - 1
            self._slots.release()

    async def _slot(self, deadline: float) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")
        begun = monotonic()
        try:
            if self._slots.locked():
                async with asyncio.timeout(max(0.0, deadline - begun)):
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError as error:
            raise StoreUnavailable(
                f"all {self._size} connections to PostgreSQL at {self._connector.address} were in use until time was up; raise "
                "pool in the store URL"
            ) from error
        if (waited := self._counters.on_wait) is not None:
            waited("pool", "", monotonic() - begun)

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
            self._put(connection)

    def _take(self) -> Connection:
        self._counters.connections_idle = (self._counters.connections_idle or 0) - 1
        return self._free.pop()

    def _put(self, connection: Connection) -> None:
        self._counters.connections_idle = (self._counters.connections_idle or 0) + 1
        self._free.append(connection)


def one_try(deadline: float) -> float:
    """Seconds that one attempt of a call may take, so that there is time for another one on a new connection."""
    return max(0.05, (deadline - monotonic()) / 2)


async def close(connection: Connection, timeout: float) -> None:
    """End a connection, in order if the server answers."""
    try:
        await connection.close(timeout=timeout)
    except FAILURES:
        connection.terminate()
