"""All connections of one store: its pools, and what opens, counts and ends their connections."""

from __future__ import annotations

from time import monotonic
from typing import Final, final

from eventcore.errors import StoreUnavailable
from eventcore.ground import Breaker
from eventcore.stores.postgres.connections.connecting import Connecting
from eventcore.stores.postgres.connections.ending import Ending
from eventcore.stores.postgres.connections.places import Places
from eventcore.stores.postgres.connections.pool import Pool
from eventcore.stores.postgres.driver import Connection
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.sampling import BackendCounters

# Ends a session that has not confirmed its end. A later session may have the same number: it has begun later. The row is there
# as long as the session is.
_TERMINATE: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE pid = $1 AND backend_start < clock_timestamp() - make_interval(secs => $2)
"""


@final
class Connections:
    """The connections of a store, never more than its limit at the same time. Belongs to one event loop.

    Args:
        settings: the settings of the store.
        counters: the counters of the backend.
        breaker: opened when no connection can be made.
    """

    def __init__(self, settings: PostgresSettings, counters: BackendCounters, breaker: Breaker) -> None:
        self.settings: Final = settings
        self._counters = counters
        self._breaker = breaker
        self._places = Places(settings, counters, self._make_room)
        self._ending = Ending(settings, self._places, self._terminate)
        self._connecting = Connecting(settings, counters, breaker, self._places, self._ending)
        self._pools: list[Pool] = []
        self._is_closed = False

    def pool(self, size: int) -> Pool:
        """A new pool for at most ``size`` calls at the same time. The one that was made last must serve short calls only."""
        made = Pool(size, self.settings, self._counters, self._breaker, self._places, self._connecting, self._ending)
        self._pools.append(made)
        return made

    def open(self) -> None:
        """Accept calls on all pools from now on."""
        self._is_closed = False
        self._places.open()
        self._ending.open()
        for pool in self._pools:
            pool.open()

    async def close(self, timeout: float) -> None:
        """Wait until the running calls have ended, and end all connections, within ``timeout`` seconds."""
        if self._is_closed:
            return
        deadline = monotonic() + timeout
        self._ending.begin_to_close()
        for pool in self._pools:
            pool.refuse_calls()
        for pool in self._pools:
            await pool.drain(deadline)
        await self._breaker.close()
        await self._ending.wait(deadline)
        self._is_closed = True
        self._places.close()
        await self._ending.close()

    def shut_down(self) -> None:
        """End the sessions of all connections: their event loop is closed, so they cannot be closed."""
        self._connecting.shut_down()

    async def once(self, timeout: float) -> Connection:
        """A new connection, by one attempt of at most ``timeout`` seconds. It raises as ``Connecting.once`` does."""
        return await self._connecting.once(timeout)

    def _make_room(self) -> None:
        """End a free connection of the pool that has most of them."""
        max(self._pools, key=Pool.idle).end_one()

    async def _terminate(self, pid: int, seconds: float) -> bool:
        """Terminate a session that began more than so many seconds ago. Returns whether there was one."""
        if (reason := self._breaker.open_reason()) is not None:
            raise StoreUnavailable(reason)
        timeout = self.settings.timeout / 2
        return bool(await self._pools[-1].fetch(_TERMINATE, pid, seconds, timeout=timeout, probing=True))
