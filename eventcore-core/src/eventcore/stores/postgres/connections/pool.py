"""Pools: each serves a number of calls at the same time, with connections that are kept from call to call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from types import TracebackType
from typing import Any, Final, final

from eventcore.errors import StoreClosed, StoreUnavailable
from eventcore.ground import Breaker, Slots
from eventcore.stores.postgres.connections.connecting import Connecting
from eventcore.stores.postgres.connections.ending import Ending
from eventcore.stores.postgres.connections.places import Places
from eventcore.stores.postgres.driver import FAILURES, Connection
from eventcore.stores.postgres.errors import explained, leaves_connection_usable
from eventcore.stores.postgres.schema import for_schema
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.sampling import BackendCounters


@final
class Pool:
    """Serves at most ``size`` calls at the same time, each by one connection. Belongs to one event loop.

    A connection is in ``_free``, or used by the one call that holds one of the ``_slots`` for it. Connections that break are
    ended; the next call opens a new one. What all pools of a store share is given by ``Connections``, which makes them.
    """

    def __init__(
        self,
        size: int,
        settings: PostgresSettings,
        counters: BackendCounters,
        breaker: Breaker,
        places: Places,
        connecting: Connecting,
        ending: Ending,
    ) -> None:
        self.settings: Final = settings
        self.counters: Final = counters
        self._size = size
        self._breaker = breaker
        self._places = places
        self._connecting = connecting
        self._ending = ending
        self._slots = Slots(size)
        self._free: list[Connection] = []
        self._is_open = False

    def open(self) -> None:
        """Accept calls on the running event loop."""
        self._slots = Slots(self._size)
        self._free = []
        self._is_open = True

    def refuse_calls(self) -> None:
        """Accept no further calls; keep no connection that is given back."""
        self._is_open = False

    def check_open(self) -> None:
        """Raise ``StoreClosed`` before the store's connections are opened and after they are closed."""
        if not self._is_open:
            raise StoreClosed("the store is not open")

    def deadline(self) -> float:
        """The time of ``time.monotonic`` by which a call that starts now must end."""
        return monotonic() + self.settings.timeout

    async def drain(self, deadline: float) -> None:
        """Wait until the running calls have ended, at most until ``deadline``; end the free connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.05, deadline - monotonic())):
                for _ in range(self._size):
                    if not self._slots.take():
                        await self._slots.wait()
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
        return await connection.fetch(for_schema(sql, self.settings.schema), *arguments)

    def connection(self, deadline: float, *, probing: bool = False) -> AbstractAsyncContextManager[Connection]:
        """A connection for one call or transaction, ready by ``deadline``. Errors of asyncpg are raised as ``StoreError``.

        Raises:
            StoreUnavailable: ``may_have_committed`` is true when a statement was sent and its answer was lost.
        """
        return _Use(self, deadline, probing)

    async def begin_use(self, deadline: float, *, probing: bool) -> Connection:
        """Take a slot and a connection; ``end_use`` gives both back."""
        await self._slot(deadline, probing=probing)
        try:
            return await self._open(deadline)
        except BaseException:
            self._slots.give_back()
            raise

    def end_use(self, connection: Connection, began: float, error: BaseException | None) -> None:
        """Keep a connection for the next call, or end it if ``error`` leaves its state unknown."""
        if error is None or (isinstance(error, FAILURES) and leaves_connection_usable(error)):
            self._give_back(connection, began)
        else:
            # A cancelled call may leave a statement running on the connection.
            self._ending.end(connection, began)
        self._slots.give_back()

    async def _slot(self, deadline: float, *, probing: bool) -> None:
        self.check_open()
        begun = monotonic()
        if not probing:
            self._check_breaker()
        waited = not self._slots.take()
        try:
            if waited:
                await self.wait(self._slots, deadline, self._too_busy)
        finally:
            if (on_wait := self.counters.on_wait) is not None:
                on_wait("pool", "", monotonic() - begun)
        if waited and not probing and self._breaker.is_open:
            self._slots.give_back()
            self._check_breaker()

    async def wait(self, slots: Slots, deadline: float, too_busy: Callable[[], str]) -> None:
        """Wait for a slot until ``deadline``. Health sees the wait, and it counts if it ends without a slot.

        Raises:
            StoreUnavailable: no slot came free until then: as ``too_busy`` says, or since the server does not answer.
        """
        begun = monotonic()
        try:
            with self._places.noted_wait(begun):
                async with asyncio.timeout(max(0.0, deadline - begun)):
                    await slots.wait()
        except TimeoutError as error:
            self._places.count_timeout()
            if silence := self._ending.silence():
                self._breaker.trip(silence, begun)
            raise StoreUnavailable(silence or too_busy()) from error
        except asyncio.CancelledError:
            self._places.count_cancelled(begun)
            raise

    def _too_busy(self) -> str:
        if self._size == 1:
            which, advice = "the connection", "the server is slow, or another session holds a lock (pg_locks shows which)"
        else:
            which, advice = f"all {self._size} connections", "raise pool in the store URL, or look for held locks"
        return f"{which} to PostgreSQL at {self.settings.address} for such calls stayed in use until the timeout; {advice}"

    def _check_breaker(self) -> None:
        if (reason := self._breaker.open_reason()) is not None:
            raise StoreUnavailable(reason)

    async def _open(self, deadline: float) -> Connection:
        while self._free:
            connection = self._take()
            if not connection.is_closed():
                return connection
            self._ending.end(connection, monotonic())
        return await self._connecting.patiently(deadline)

    def _give_back(self, connection: Connection, began: float) -> None:
        self._breaker.answered()
        if connection.is_closed() or connection.is_in_transaction() or self._places.is_short or not self._is_open:
            self._ending.end(connection, began)
        else:
            self.add(connection)

    def idle(self) -> int:
        """How many free connections the pool has."""
        return len(self._free)

    def end_one(self) -> bool:
        """End a free connection. Returns false when there is none."""
        if not self._free:
            return False
        self._ending.end(self._take(), monotonic())
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


@final
class _Use:
    """The use of a connection by one call. A generator as context manager would cost as much as all else that a pool does."""

    __slots__ = ("_began", "_connection", "_deadline", "_io", "_pool", "_probing")

    def __init__(self, pool: Pool, deadline: float, probing: bool) -> None:
        self._pool = pool
        self._deadline = deadline
        self._probing = probing

    async def __aenter__(self) -> Connection:
        pool = self._pool
        self._connection = connection = await pool.begin_use(self._deadline, probing=self._probing)
        self._began = monotonic()
        # A handler's own statements inside of it are traced: its span is entered without `own_io`.
        self._io = pool.counters.own_io()
        self._io.__enter__()
        return connection

    async def __aexit__(self, cls: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._io.__exit__(cls, error, at)
        pool = self._pool
        pool.end_use(self._connection, self._began, error)
        if isinstance(error, FAILURES):
            raise explained(error, pool.settings.address) from error


def one_try(deadline: float) -> float:
    """Seconds for the next attempt of a call: half of the time until the deadline, which leaves time for another attempt."""
    return max(0.05, (deadline - monotonic()) / 2)
