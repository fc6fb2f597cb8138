"""The store on a PostgreSQL server: its connections, opened and closed together."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, final

from eventcore.ground import Breaker, BreakerState
from eventcore.stores.postgres.connections import Connections
from eventcore.stores.postgres.connections.reading import ReadingPool
from eventcore.stores.postgres.ledger import PostgresLedger
from eventcore.stores.postgres.log import PostgresLog
from eventcore.stores.postgres.migrating import prepare
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.postgres.watch import HEAD, PostgresHeadWatch
from eventcore.stores.sampling import BackendCounters, DatabaseSample

_CLOSE_AFTER_FAILURE: Final = 1.0
_PROBE_TIMEOUT: Final = 2.0
_SAMPLE: Final = """
    SELECT coalesce(last.position, 0), last.recorded_at_ns, (
        SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_catalog.pg_class
        WHERE relnamespace = quote_ident($1)::regnamespace AND relkind = 'r'
    )
    FROM (SELECT) AS one LEFT JOIN (
        SELECT position, recorded_at_ns FROM {schema}.events ORDER BY position DESC LIMIT 1
    ) AS last ON true
"""


@final
class PostgresBackend:
    """A backend on one schema of a PostgreSQL database, which other processes may use at the same time.

    Args:
        settings: the settings of the URL.
        migrate: whether opening may create the schema or bring it up to date.
    """

    system = "postgresql"

    def __init__(self, settings: PostgresSettings, *, migrate: bool = True) -> None:
        self.counters = BackendCounters(breaker="closed")
        self._migrate = migrate
        self._loop: asyncio.AbstractEventLoop | None = None
        self._breaker = Breaker(self._probe, self._breaker_changed)
        self._connections = Connections(settings, self.counters, self._breaker)
        # Several pools, so that appends never wait for reads, reads of commands never for projections, and leases never for
        # the handlers of projections. Their sizes add up to `settings.limit`.
        self._appending = self._connections.pool(1)
        self._loading = self._connections.pool(1)
        reading = self._connections.pool(settings.pool)
        self._reading = ReadingPool(reading, settings.pool, self._loading)
        # Listens for new events, and serves short calls that must not wait for long ones, such as those for leases.
        self._listening = self._connections.pool(1)
        self._watch = PostgresHeadWatch(self._listening, reading)
        self.log = PostgresLog(self._appending, self._loading, self._reading, self._watch)
        self.ledger = PostgresLedger(self._reading, self._listening, settings)

    @property
    def call_timeout(self) -> float:
        """Seconds that one call may take."""
        return self._connections.settings.timeout

    async def open(self) -> None:
        """Connect, check the server, and create or check the schema.

        Raises:
            StoreUnavailable: no server answers at this address.
            AccessDenied: the server refuses the user, or the user has too few rights.
            IncompatibleStore: the database does not exist, or it or its schema cannot be used.
            InvalidStoreUrl: a setting in the URL is wrong; behind pgbouncer, ``statement_cache=off`` is missing.
        """
        settings = self._connections.settings
        deadline = monotonic() + settings.timeout
        self._loop = asyncio.get_running_loop()
        self._connections.open()
        try:
            # One attempt to connect: an application that starts with a wrong address must hear of it at once.
            self._appending.add(await self._connections.once(settings.timeout))
            async with (
                self._appending.connection(deadline) as connection,
                asyncio.timeout(max(0.05, deadline - monotonic())),
            ):
                await prepare(connection, settings, migrate=self._migrate)
            await self.log.warm_up(deadline)
        except BaseException:
            await self.close(_CLOSE_AFTER_FAILURE)
            raise

    async def close(self, timeout: float) -> None:
        """Finish the calls that are running, then close all connections.

        Once the event loop of the connections is closed, they cannot be closed: their sessions are ended.
        """
        if self._loop is not None and self._loop.is_closed():
            self._connections.shut_down()
            return
        deadline = monotonic() + timeout
        await self._watch.close()
        await self._connections.close(max(0.05, deadline - monotonic()))

    async def _probe(self) -> None:
        timeout = min(_PROBE_TIMEOUT, self._connections.settings.timeout)
        await self._listening.fetch("SELECT 1", timeout=timeout, probing=True)

    def _breaker_changed(self, state: BreakerState) -> None:
        self.counters.breaker = state

    async def probe(self) -> int:
        """Ask over the connection for short calls, so that full pools do not look like a server that is away."""
        head: int = (await self._listening.fetch(HEAD))[0][0]
        return head

    async def sample(self) -> DatabaseSample:
        """The last event, and the size of all tables with their indexes."""
        [(head, last_append_ns, size)] = await self._reading.fetch(_SAMPLE, self._connections.settings.schema)
        return DatabaseSample(head, last_append_ns, size)
