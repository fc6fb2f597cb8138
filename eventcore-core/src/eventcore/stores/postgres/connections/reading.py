"""Shares the connections for reading between short calls and the transactions of handlers, which may read the store, too."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, final

from eventcore.ground import Slots
from eventcore.stores.postgres.connections.pool import Pool
from eventcore.stores.postgres.driver import Connection
from eventcore.stores.sampling import BackendCounters


@final
class ReadingPool:
    """The pool for reading. Transactions of handlers leave one of its connections to short calls.

    A handler may wait for a read of the store while its transaction holds a connection. If such transactions held all of them,
    each would wait for the others until the timeout. A pool of one connection cannot leave one: while a transaction holds it,
    short calls use the connection that reads for commands.

    Args:
        pool: the connections.
        size: how many calls ``pool`` serves at the same time.
        loading: the pool that reads for commands, which serves short calls only.
    """

    def __init__(self, pool: Pool, size: int, loading: Pool) -> None:
        self._pool = pool
        self._size = size
        self._loading = loading
        self._limit: Final = max(1, size - 1)
        self._slots = Slots(self._limit)
        # How many connections are held by transactions of handlers.
        self._held = 0

    @property
    def counters(self) -> BackendCounters:
        """The counters of the backend."""
        return self._pool.counters

    def check_open(self) -> None:
        """See ``Pool.check_open``."""
        self._pool.check_open()

    async def fetch(self, sql: str, *arguments: Any) -> Sequence[Any]:
        """See ``Pool.fetch``."""
        return await self._free().fetch(sql, *arguments)

    def connection(self, deadline: float) -> AbstractAsyncContextManager[Connection]:
        """See ``Pool.connection``. Only for short calls."""
        return self._free().connection(deadline)

    @asynccontextmanager
    async def for_handler(self) -> AsyncGenerator[Connection]:
        """A connection for a transaction in which a handler runs. Errors of asyncpg are raised as ``StoreError``.

        Raises:
            StoreUnavailable: no connection came free until the timeout.
        """
        deadline = self._pool.deadline()
        if not self._slots.take():
            await self._pool.wait(self._slots, deadline, self._too_busy)
        try:
            async with self._pool.connection(deadline) as connection:
                self._held += 1
                try:
                    yield connection
                finally:
                    self._held -= 1
        finally:
            self._slots.give_back()

    def _free(self) -> Pool:
        return self._loading if self._held == self._size else self._pool

    def _too_busy(self) -> str:
        return (
            f"the transactions of {self._limit} handlers of projections, as many as run at the same time with pool="
            f"{self._size}, did not end until the timeout; raise pool in the store URL, or look for slow handlers"
        )
