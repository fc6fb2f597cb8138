"""Connections to a PostgreSQL server: opened when needed, used by one call at a time, ended when their state is unknown.

**How many.** The store never has more than ``PostgresSettings.limit`` connections on the server. A connection counts from the
attempt to open it until the server has ended its side of it: a call that timed out leaves a statement running there, which
waits perhaps for a lock. So such a connection is *ended* in a task of its own: the server is asked to cancel the statement,
and its answer is awaited. If none comes, the session is terminated by its number, over another connection. An attempt to
connect that its call has given up goes on for a while, since only a connection that exists can be ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import InvalidStoreUrl, StoreClosed, StoreError, StoreUnavailable
from eventcore.ground import Breaker, OwnedTask, backoff, cancel_and_wait, describe_error, spawn
from eventcore.stores.postgres.driver import FAILURES, Connection, InvalidConfiguration, connect
from eventcore.stores.postgres.errors import explained, is_away, leaves_connection_usable, refuses_start
from eventcore.stores.postgres.schema import for_schema
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.sampling import CANCELLED_WAIT, BackendCounters

_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 1.0
# Seconds for one attempt to connect.
_CONNECT_TIMEOUT: Final = 5.0
# Seconds, and part of the timeout, in which a server that is there confirms the end of a connection.
_END_TIMEOUT: Final = 2.0
_END_PART: Final = 0.25
# Seconds, and part of the timeout, after which an attempt to connect without answer shows that the server is away.
_AWAY_AFTER: Final = 1.0
_AWAY_PART: Final = 0.2
# Ends a session that has not confirmed its end. By its start, it is told from a later session with the same number. The row is
# there as long as the session is.
_TERMINATE: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE pid = $1 AND backend_start < clock_timestamp() - make_interval(secs => $2)
"""


@final
class Connector:
    """Opens and ends the connections of a store, never more than its limit at the same time. Belongs to one event loop.

    Args:
        settings: the settings of the store.
        counters: the counters of the backend.
        breaker: opened when no connection can be made.
    """

    def __init__(self, settings: PostgresSettings, counters: BackendCounters, breaker: Breaker) -> None:
        self.settings: Final = settings
        self.counters: Final = counters
        self.breaker: Final = breaker
        self.pools: Final[list[Pool]] = []
        self._allowed = asyncio.Semaphore(settings.limit)
        self._waiting = 0
        self._checking = asyncio.Lock()
        self._ending: set[OwnedTask[Any]] = set()
        self._remaining: set[OwnedTask[None]] = set()
        self._is_open = False
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether ``open`` was called last, and not ``close``."""
        return self._is_open

    def open(self) -> None:
        """Accept calls on all pools from now on."""
        self._allowed = asyncio.Semaphore(self.settings.limit)
        self._waiting = 0
        counters = self.counters
        counters.connections_used, counters.connections_idle = 0, 0
        counters.connections_limit, counters.connection_timeouts = self.settings.limit, 0
        for pool in self.pools:
            pool.reset()
        self._is_open, self._is_closed = True, False

    async def close(self, timeout: float) -> None:
        """Wait until the running calls have ended, and end all connections, within ``timeout`` seconds."""
        if self._is_closed:
            return
        self._is_open = False
        deadline = monotonic() + timeout
        for pool in self.pools:
            await pool.drain(deadline)
        await self.breaker.close()
        if self._ending:
            await asyncio.wait(self._ending, timeout=max(0.05, deadline - monotonic()))
        self._is_closed = True
        await asyncio.gather(*(cancel_and_wait(task) for task in (*self._ending, *self._remaining)))

    @property
    def _end_timeout(self) -> float:
        """Seconds in which a server that is there confirms the end of a connection."""
        return max(0.05, min(_END_TIMEOUT, _END_PART * self.settings.timeout))

    async def once(self, timeout: float) -> Connection:
        """A new connection, by one attempt of at most ``timeout`` seconds. It counts towards the limit.

        Raises:
            StoreUnavailable, AccessDenied, IncompatibleStore: the server does not answer, or refuses the connection.
            InvalidStoreUrl: asyncpg or the server cannot use the URL.
        """
        await self._allow(monotonic() + timeout)
        return await self._connect(timeout)

    async def patiently(self, deadline: float) -> Connection:
        """A new connection, by repeated attempts until ``deadline`` (of ``time.monotonic``). Raises as ``once`` does."""
        begun = monotonic()
        attempt = 1
        while True:
            await self._allow(deadline)
            seconds = max(0.05, min(_CONNECT_TIMEOUT, deadline - monotonic()))
            try:
                return await self._connect(seconds)
            except StoreUnavailable as error:
                pause = backoff(attempt, _FIRST_DELAY, _MAX_DELAY)
                if monotonic() + pause >= deadline:
                    # A short attempt without answer proves nothing; a refused one does.
                    long_enough = seconds >= min(_AWAY_AFTER, _AWAY_PART * self.settings.timeout)
                    if is_away(error.__cause__) and (long_enough or not isinstance(error.__cause__, TimeoutError)):
                        self.breaker.trip(str(error), begun)
                    raise
            await asyncio.sleep(pause)
            attempt += 1

    @property
    def is_short(self) -> bool:
        """Whether a call waits until it may open a connection."""
        return self._waiting > 0

    def end(self, connection: Connection, began: float) -> None:
        """End a connection. If a statement is running on it, it was sent after ``began`` (of ``time.monotonic``)."""
        if self._is_closed:
            # A call that has outlasted the closing of the store: nobody is there who could wait for a task.
            connection.terminate()
            return
        task = spawn(self._end(connection, began), "eventcore-postgres-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, connection: Connection, began: float) -> None:
        pid = None if connection.is_closed() else connection.get_server_pid()
        confirmed = False
        try:
            confirmed = await close(connection, self._end_timeout)
        finally:
            # Behind pgbouncer there is nothing to wait for: it limits the connections to the server itself.
            if confirmed or pid is None or not self.settings.statement_cache or not self._is_open:
                self._gone()
            else:
                task = spawn(self._until_gone(pid, began), "eventcore-postgres-gone")
                self._remaining.add(task)
                task.add_done_callback(self._remaining.discard)

    async def _until_gone(self, pid: int, began: float) -> None:
        """Wait until the server no longer has a session whose end it has not confirmed."""
        ended, checks = monotonic(), 1
        try:
            while await self._terminated(pid, ended):
                await asyncio.sleep(backoff(checks, _FIRST_DELAY, _MAX_DELAY))
                checks += 1
        except StoreError:
            # The server is away. At the latest its statement_timeout ends the statement; it then finds the connection closed.
            await asyncio.sleep(max(0.0, began + self.settings.timeout - monotonic()))
        finally:
            self._gone()

    async def _terminated(self, pid: int, ended: float) -> bool:
        """Terminate a session over another connection. Returns whether there was one to terminate."""
        # One after the other: if every connection hangs, the first check gets none and gives its session up, and with that one
        # the others can check.
        async with self._checking:
            if (reason := self.breaker.open_reason()) is not None:
                raise StoreUnavailable(reason)
            # The pool that was made last serves short calls only.
            pool, timeout = self.pools[-1], self.settings.timeout / 2
            return bool(await pool.fetch(_TERMINATE, pid, monotonic() - ended, timeout=timeout, probing=True))

    @contextmanager
    def noted_wait(self, begun: float) -> Generator[None]:
        """Note, for as long as the block runs, that a call waits for a connection."""
        waits, key = self.counters.connection_waits, object()
        waits[key] = begun
        try:
            yield
        finally:
            del waits[key]

    def count_timeout(self) -> None:
        """Count a wait for a connection that ended without one."""
        self.counters.connection_timeouts = (self.counters.connection_timeouts or 0) + 1

    def count_cancelled(self, begun: float) -> None:
        """Count a wait that was cancelled, unless it was short."""
        if monotonic() - begun >= CANCELLED_WAIT:
            self.count_timeout()

    def _gone(self) -> None:
        if self._is_closed:
            return
        self.counters.connections_used = (self.counters.connections_used or 0) - 1
        self._allowed.release()

    async def _allow(self, deadline: float) -> None:
        """Wait until one more connection may be opened. Free connections of other pools make room for it."""
        if self._allowed.locked():
            for pool in sorted(self.pools, key=Pool.idle, reverse=True)[:1]:
                pool.end_one()
            self._waiting += 1
            begun = monotonic()
            try:
                with self.noted_wait(begun):
                    async with asyncio.timeout(max(0.0, deadline - monotonic())):
                        await self._allowed.acquire()
            except TimeoutError as error:
                self.count_timeout()
                raise StoreUnavailable(
                    f"all {self.settings.limit} connections to PostgreSQL at {self.settings.address} were in use until the "
                    "timeout, or not yet ended by the server; raise pool in the store URL, or look for held locks"
                ) from error
            except asyncio.CancelledError:
                self.count_cancelled(begun)
                raise
            finally:
                self._waiting -= 1
        else:
            await self._allowed.acquire()
        self.counters.connections_used = (self.counters.connections_used or 0) + 1

    async def _connect(self, timeout: float) -> Connection:
        """Connect within ``timeout`` seconds. The place that was allowed for the connection is given back if that fails."""
        settings = self.settings
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
                reason = StoreUnavailable(
                    f"no PostgreSQL server can be reached at {settings.address} ({describe_error(error)}); start it, "
                    "or correct the address in the store URL"
                )
            self.counters.connection_problem = str(reason)
            raise reason from error
        self.counters.connection_problem = None
        return connection

    async def _attempt(self, timeout: float) -> Connection:
        """Attempt to connect. If it is given up, it goes on for as long as a server that is there takes to end a connection.

        Until it has succeeded, the number of the server's process is not known. So nobody can end that process before.
        """
        settings = self.settings
        opening = connect(
            settings.dsn,
            timeout + self._end_timeout,
            statement_cache=settings.statement_cache,
            server_settings=settings.server_settings,
            keep_alive=settings.timeout,
        )
        attempt = spawn(opening, "eventcore-postgres-connect")
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(attempt)
        except BaseException:
            self._ending.add(attempt)
            attempt.add_done_callback(self._given_up)
            raise

    def _given_up(self, attempt: OwnedTask[Connection]) -> None:
        self._ending.discard(attempt)
        if attempt.cancelled() or attempt.exception() is not None:
            self._gone()
        else:
            self.end(attempt.result(), monotonic())


@final
class Pool:
    """Serves at most ``size`` calls at the same time, each by one connection. Belongs to one event loop.

    A connection is in ``_free``, or used by the one call that holds one of the ``_slots`` for it. Connections that break are
    ended; the next call opens a new one.
    """

    def __init__(self, connector: Connector, size: int) -> None:
        self._connector = connector
        self.counters: Final = connector.counters
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._free: list[Connection] = []
        connector.pools.append(self)

    @property
    def settings(self) -> PostgresSettings:
        """The settings of the store."""
        return self._connector.settings

    def reset(self) -> None:
        """Prepare for calls on the running event loop."""
        self._slots = asyncio.Semaphore(self._size)
        self._free = []

    def check_open(self) -> None:
        """Raise ``StoreClosed`` before the connector is opened and after it is closed."""
        if not self._connector.is_open:
            raise StoreClosed("the store is not open")

    def deadline(self) -> float:
        """The time of ``time.monotonic`` by which a call that starts now must end."""
        return monotonic() + self._connector.settings.timeout

    async def drain(self, deadline: float) -> None:
        """Wait until the running calls have ended, at most until ``deadline``; end the free connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.05, deadline - monotonic())):
                for _ in range(self._size):
                    await self._slots.acquire()
        while self.end_one():
            pass

    async def fetch(self, sql: str, *arguments: Any, timeout: float | None = None, probing: bool = False) -> Sequence[Any]:
        """The rows of a statement. When its answer is lost, it runs again on another connection, so it must be idempotent.

        Args:
            sql: the statement, with the placeholders of ``for_schema``.
            arguments: the values of ``$1``, ``$2`` and so on.
            timeout: seconds for all attempts; ``None``: those of the settings.
            probing: whether it runs also while the circuit breaker is open.

        Raises:
            StoreUnavailable: no connection could be opened, or no answer came. ``may_have_committed`` is false: for an
                idempotent statement it makes no difference.
        """
        deadline = self.deadline() if timeout is None else monotonic() + timeout
        while True:
            try:
                async with (
                    self.connection(deadline, probing=probing) as connection,
                    asyncio.timeout(one_try(deadline)),
                ):
                    return await self.rows(connection, sql, *arguments)
            except StoreUnavailable as error:
                if not error.may_have_committed:
                    raise
                if monotonic() >= deadline:
                    raise StoreUnavailable(str(error)) from error.__cause__

    async def rows(self, connection: Connection, sql: str, *arguments: Any) -> Sequence[Any]:
        """The rows of a statement that runs once, on a connection of this pool, as a transaction of its own.

        It is committed by the server as soon as it has run, without another message from this process. So a process that is
        stopped in the middle of a call holds no lock. Without a statement cache, asyncpg sends the statement and its arguments
        in two messages, but ends only the second one by a ``Sync``: behind pgbouncer, both reach the same server connection.
        """
        return await connection.fetch(for_schema(sql, self._connector.settings.schema), *arguments)

    @asynccontextmanager
    async def connection(self, deadline: float, *, probing: bool = False) -> AsyncGenerator[Connection]:
        """A connection for one call or transaction, ready by ``deadline``. Errors of asyncpg are raised as ``StoreError``.

        Raises:
            StoreUnavailable: ``may_have_committed`` is true when a statement was sent and its answer was lost.
        """
        connector = self._connector
        await self._slot(deadline, probing=probing)
        try:
            connection = await self._open(deadline)
            began = monotonic()
            try:
                # A handler's own statements inside of it are traced: its span is entered without `own_io`.
                with self.counters.own_io():
                    yield connection
            except FAILURES as error:
                if leaves_connection_usable(error):
                    self._give_back(connection, began)
                else:
                    connector.end(connection, began)
                raise explained(error, connector.settings.address) from error
            except BaseException:
                # A cancelled call may leave a statement running on the connection.
                connector.end(connection, began)
                raise
            self._give_back(connection, began)
        finally:
            self._slots.release()

    async def _slot(self, deadline: float, *, probing: bool) -> None:
        self.check_open()
        begun = monotonic()
        if not probing:
            self._check_breaker()
        try:
            if self._slots.locked():
                with self._connector.noted_wait(begun):
                    async with asyncio.timeout(max(0.0, deadline - begun)):
                        await self._slots.acquire()
                waited = True
            else:
                await self._slots.acquire()
                waited = False
        except TimeoutError as error:
            self._connector.count_timeout()
            self._observe_wait(begun)
            raise StoreUnavailable(
                f"all {self._size} connections to PostgreSQL at {self._connector.settings.address} that serve such calls were "
                "in use until the timeout; raise pool in the store URL, or look for held locks"
            ) from error
        except asyncio.CancelledError:
            self._connector.count_cancelled(begun)
            self._observe_wait(begun)
            raise
        self._observe_wait(begun)
        if waited and not probing and self._connector.breaker.is_open:
            self._slots.release()
            self._check_breaker()

    def _check_breaker(self) -> None:
        if (reason := self._connector.breaker.open_reason()) is not None:
            raise StoreUnavailable(reason)

    def _observe_wait(self, begun: float) -> None:
        if (on_wait := self.counters.on_wait) is not None:
            on_wait("pool", "", monotonic() - begun)

    async def _open(self, deadline: float) -> Connection:
        while self._free:
            connection = self._take()
            if not connection.is_closed():
                return connection
            self._connector.end(connection, monotonic())
        return await self._connector.patiently(deadline)

    def _give_back(self, connection: Connection, began: float) -> None:
        connector = self._connector
        connector.breaker.answered()
        if connection.is_closed() or connection.is_in_transaction() or connector.is_short or not connector.is_open:
            connector.end(connection, began)
        else:
            self.add(connection)

    def idle(self) -> int:
        """How many free connections the pool has."""
        return len(self._free)

    def end_one(self) -> bool:
        """End a free connection. Returns false when there is none."""
        if not self._free:
            return False
        self._connector.end(self._take(), monotonic())
        return True

    def _take(self) -> Connection:
        self.counters.connections_idle = (self.counters.connections_idle or 0) - 1
        self.counters.connections_used = (self.counters.connections_used or 0) + 1
        return self._free.pop()

    def add(self, connection: Connection) -> None:
        """Take over an open connection, for the next call to use."""
        self.counters.connections_idle = (self.counters.connections_idle or 0) + 1
        self.counters.connections_used = (self.counters.connections_used or 0) - 1
        self._free.append(connection)


def one_try(deadline: float) -> float:
    """Seconds for the next attempt of a call: half of the time until the deadline, which leaves time for another attempt."""
    return max(0.05, (deadline - monotonic()) / 2)


async def close(connection: Connection, timeout: float) -> bool:
    """Close a connection. A statement that is still running is cancelled first, and the server's answer to that is awaited.

    Returns whether the server has ended its side within ``timeout`` seconds; if not, the connection is dropped.
    """
    try:
        # Both limits: older releases of asyncpg wait outside of their own for the answer to the cancellation.
        async with asyncio.timeout(timeout):
            await connection.close(timeout=timeout)
    except FAILURES:
        connection.terminate()
        return False
    except BaseException:
        connection.terminate()
        raise
    return True
