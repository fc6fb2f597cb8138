"""The store on a PostgreSQL server: its connections, opened and closed together."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, final

from eventcore.stores.postgres.connections import Connector, Pool
from eventcore.stores.postgres.ledger import PostgresLedger
from eventcore.stores.postgres.log import PostgresLog
from eventcore.stores.postgres.migrating import prepare
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.postgres.watch import PostgresHeadWatch
from eventcore.stores.sampling import BackendCounters, DatabaseSample

_CLOSE_AFTER_FAILURE: Final = 1.0
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
        self.counters = BackendCounters()
        self._migrate = migrate
        self._connector = Connector(settings)
        # Pools of their own, so that appends never wait for reads, and reads of commands never wait for projections.
        self._appending = Pool(self._connector, 1, self.counters)
        self._loading = Pool(self._connector, 1, self.counters)
        self._reading = Pool(self._connector, settings.pool, self.counters)
        # Opened when a projection first asks for its lease.
        self._leasing = Pool(self._connector, 1, self.counters)
        self._watch = PostgresHeadWatch(self._connector)
        self.log = PostgresLog(self._appending, self._loading, self._reading, self._watch)
        self.ledger = PostgresLedger(self._reading, self._leasing, settings)

    async def open(self) -> None:
        """Connect, check the server, and create or check the schema.

        Raises:
            StoreUnavailable: no server answers at this address.
            AccessDenied: the server refuses the user, or the user has too few rights.
            IncompatibleStore: the database does not exist, or it or its schema cannot be used.
        """
        settings = self._connector.settings
        for pool in (self._appending, self._loading, self._reading, self._leasing):
            pool.open()
        try:
            # One attempt to connect: an application that starts with a wrong address must hear of it at once.
            self._appending.add(await self._connector.once(settings.timeout))
            async with self._appending.connection(self._appending.deadline()) as connection, asyncio.timeout(settings.timeout):
                await prepare(connection, settings, migrate=self._migrate)
            await self.log.warm_up()
        except BaseException:
            await self.close(_CLOSE_AFTER_FAILURE)
            raise

    async def close(self, timeout: float) -> None:
        """Finish the calls that are running, then close all connections."""
        deadline = monotonic() + timeout
        await self._watch.close()
        for pool in (self._leasing, self._loading, self._reading, self._appending):
            await pool.close(max(0.05, deadline - monotonic()))

    async def sample(self) -> DatabaseSample:
        """The last event, and the size of all tables with their indexes."""
        [(head, last_append_ns, size)] = await self._reading.fetch(_SAMPLE, self._connector.settings.schema)
        return DatabaseSample(head, last_append_ns, size)
