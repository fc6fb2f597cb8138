"""Opens connections to the server: by one attempt, or by attempts until a deadline."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final, final
from weakref import WeakSet

from eventcore.errors import InvalidStoreUrl, StoreUnavailable
from eventcore.ground import Breaker, backoff, describe_error, spawn
from eventcore.stores.postgres.connections.ending import Ending
from eventcore.stores.postgres.connections.places import Places
from eventcore.stores.postgres.driver import FAILURES, Connection, InvalidConfiguration, connect, shut_down
from eventcore.stores.postgres.errors import SILENT_SERVER, explained, is_away, refuses_start
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.sampling import BackendCounters

_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 1.0
# Seconds for one attempt to connect.
_CONNECT_TIMEOUT: Final = 5.0
# Seconds, and part of the timeout, after which an attempt to connect without answer shows that the server is away.
_AWAY_AFTER: Final = 1.0
_AWAY_PART: Final = 0.2


@final
class Connecting:
    """Opens connections, each in a place that it has taken. Belongs to one event loop.

    Args:
        settings: the settings of the store.
        counters: the counters of the backend; why the last attempt has failed is noted here.
        breaker: opened when no connection can be made.
        places: where each connection takes its place before it is opened.
        ending: where a connection is ended that is made after its call has given up.
    """

    def __init__(
        self, settings: PostgresSettings, counters: BackendCounters, breaker: Breaker, places: Places, ending: Ending
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._breaker = breaker
        self._places = places
        self._ending = ending
        self._made: WeakSet[Connection] = WeakSet()

    def shut_down(self) -> None:
        """End the sessions of all connections, also of those in use. Their event loop is closed.

        One that was being made at that moment is not reached: it ends when the store is collected.
        """
        for connection in list(self._made):
            shut_down(connection)

    async def once(self, timeout: float) -> Connection:
        """A new connection, by one attempt of at most ``timeout`` seconds.

        Raises:
            StoreUnavailable, AccessDenied, IncompatibleStore: the server does not answer, or refuses the connection.
            InvalidStoreUrl: asyncpg or the server cannot use the URL.
        """
        await self._places.take(monotonic() + timeout)
        return await self._connect(timeout)

    async def patiently(self, deadline: float) -> Connection:
        """A new connection, by repeated attempts until ``deadline`` (of ``time.monotonic``). Raises as ``once`` does."""
        begun = monotonic()
        attempt = 1
        while True:
            try:
                await self._places.take(deadline)
            except StoreUnavailable as error:
                # The places are taken by connections whose end the server does not confirm, so none can be attempted.
                if silence := self._ending.silence():
                    self._breaker.trip(silence, begun)
                    raise StoreUnavailable(silence) from error.__cause__
                raise
            seconds = max(0.05, min(_CONNECT_TIMEOUT, deadline - monotonic()))
            try:
                return await self._connect(seconds)
            except StoreUnavailable as error:
                pause = backoff(attempt, _FIRST_DELAY, _MAX_DELAY)
                if monotonic() + pause >= deadline:
                    # A short attempt without answer proves nothing; a refused one does.
                    long_enough = seconds >= min(_AWAY_AFTER, _AWAY_PART * self._settings.timeout)
                    if is_away(error.__cause__) and (long_enough or not isinstance(error.__cause__, TimeoutError)):
                        self._breaker.trip(str(error), begun)
                    raise
            await asyncio.sleep(pause)
            attempt += 1

    async def _connect(self, timeout: float) -> Connection:
        """Connect within ``timeout`` seconds. The place that was taken for the connection is given back if that fails."""
        settings = self._settings
        try:
            connection = await self._attempt(timeout)
        except (InvalidConfiguration, ValueError):
            # The message of asyncpg may contain a part of the password.
            raise InvalidStoreUrl(
                f"the store URL cannot be used ({settings.address}): a host, a port or a setting of asyncpg is wrong"
            ) from None
        except FAILURES as error:
            if advice := refuses_start(error):
                raise InvalidStoreUrl(f"PostgreSQL at {settings.address} {advice} ({error})") from error
            reason = explained(error, settings.address)
            if isinstance(reason, StoreUnavailable) and reason.may_have_committed:
                reason = StoreUnavailable(_not_connected(error, settings.address))
            self._counters.connection_problem = str(reason)
            raise reason from error
        self._counters.connection_problem = None
        return connection

    async def _attempt(self, timeout: float) -> Connection:
        """Attempt to connect. If it is given up, it goes on for as long as a server that is there takes to end a connection.

        The number of the server's process is known only after success, and a process can be ended only by its number.
        """
        settings = self._settings
        opening = self._opened(
            settings.dsn,
            timeout + self._ending.timeout,
            statement_cache=settings.statement_cache,
            server_settings=settings.server_settings,
            keep_alive=settings.timeout,
        )
        attempt = spawn(opening, "eventcore-postgres-connect")
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(attempt)
        except BaseException:
            self._ending.end_when_made(attempt)
            raise

    async def _opened(self, dsn: str, timeout: float, **options: Any) -> Connection:
        connection = await connect(dsn, timeout, **options)
        self._made.add(connection)
        return connection


def _not_connected(error: Exception, address: str) -> str:
    """Why no connection was made. Where nothing listens, the system says so at once; silence has other causes."""
    if isinstance(error, TimeoutError):
        return (
            f"PostgreSQL at {address} does not answer a new connection: {SILENT_SERVER}, or the store URL has a wrong address"
        )
    return (
        f"no PostgreSQL server can be reached at {address} ({describe_error(error)}); start it, or correct the address in the "
        "store URL"
    )
