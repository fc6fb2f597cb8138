"""The projection ledger of a PostgreSQL store. Leases are measured by the server's clock."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, final

import msgspec

from eventcore.stores.base import Apply, Checkpoint, DeadLetter, Lease, ProjectionRecord
from eventcore.stores.failures import still_running, taken_over
from eventcore.stores.postgres.connections import Pool
from eventcore.stores.postgres.driver import Connection, transaction
from eventcore.stores.postgres.schema import for_schema
from eventcore.stores.postgres.settings import PostgresSettings

_ACQUIRE: Final = """
    INSERT INTO {schema}.projections AS held (name, owner, token, leased_until)
    VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (name) DO UPDATE
        SET owner = excluded.owner, token = held.token + 1, leased_until = excluded.leased_until
        WHERE held.owner IN ('', excluded.owner) OR held.leased_until <= clock_timestamp()
    RETURNING token, position, event_id
"""
_RENEW: Final = """
    UPDATE {schema}.projections SET leased_until = clock_timestamp() + make_interval(secs => $3)
    WHERE name = $1 AND token = $2 AND owner <> '' RETURNING token
"""
_RELEASE: Final = """
    UPDATE {schema}.projections SET owner = '', leased_until = 'epoch' WHERE name = $1 AND token = $2 RETURNING token
"""
_MOVE: Final = """
    UPDATE {schema}.projections SET position = $5, event_id = $6
    WHERE name = $1 AND token = $2 AND position = $3 AND event_id = $4 AND owner <> '' RETURNING token
"""
# Between this statement and the checkpoint, the handler of a projection runs its own statements. They may take longer than a
# call of the store may.
_IS_HELD: Final = """
    SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true) FROM {schema}.projections
    WHERE name = $1 AND token = $2 AND position = $3 AND event_id = $4 AND owner <> ''
"""
_KEEP: Final = """
    INSERT INTO {schema}.dead_letters AS letter (projection, position, event_id, error_type, error, attempts, failed_at_ns)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (projection, position) DO UPDATE
        SET event_id = excluded.event_id, error_type = excluded.error_type, error = excluded.error,
            attempts = excluded.attempts, failed_at_ns = excluded.failed_at_ns
"""
_PROJECTIONS: Final = """
    SELECT name, position, event_id, owner, token,
        greatest(0, extract(epoch FROM leased_until - clock_timestamp()))::float8 AS lease_left,
        (SELECT count(*) FROM {schema}.dead_letters AS letter WHERE letter.projection = held.name) AS dead_letters
    FROM {schema}.projections AS held ORDER BY name
"""
_LETTERS: Final = """
    SELECT projection, position, event_id, error_type, error, attempts, failed_at_ns
    FROM {schema}.dead_letters WHERE projection = $1 ORDER BY position LIMIT $2
"""
_REMOVE: Final = """
    DELETE FROM {schema}.dead_letters WHERE projection = $1 AND position = $2 AND event_id = $3
    RETURNING position, set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)
"""
_RESET: Final = """
    UPDATE {schema}.projections SET position = 0, event_id = '', owner = '', token = token + 1, leased_until = 'epoch'
    WHERE name = $1 AND (owner = '' OR leased_until <= clock_timestamp()) RETURNING token
"""
_EXISTS: Final = "SELECT EXISTS (SELECT FROM {schema}.projections WHERE name = $1)"
_FORGET: Final = "DELETE FROM {schema}.dead_letters WHERE projection = $1"


class _RolledBack(Exception):
    """Raised inside a transaction to roll it back, and raised no further: ``reason`` is raised after the transaction.

    So an error of the application never reaches the code that decides whether the connection is still usable.
    """

    def __init__(self, reason: Exception | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


@final
class PostgresLedger:
    """Implements ``ProjectionLedger``.

    Args:
        pool: the pool whose connections it uses.
        settings: the settings of the store.
    """

    def __init__(self, pool: Pool, settings: PostgresSettings) -> None:
        self._pool = pool
        self._schema = settings.schema
        self._timeout = settings.timeout

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """See ``ProjectionLedger.acquire_lease``. One statement, so only one of several concurrent calls gets the lease."""
        found = await self._pool.fetch(_ACQUIRE, projection, owner, seconds)
        if not found:
            return None
        [(token, position, event_id)] = found
        return Lease(projection, token, Checkpoint(position, event_id))

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """See ``ProjectionLedger.renew_lease``."""
        return bool(await self._pool.fetch(_RENEW, lease.projection, lease.token, seconds))

    async def release_lease(self, lease: Lease) -> None:
        """See ``ProjectionLedger.release_lease``."""
        await self._pool.fetch(_RELEASE, lease.projection, lease.token)

    async def commit_checkpoint(
        self, lease: Lease, before: Checkpoint, after: Checkpoint, dead_letters: Sequence[DeadLetter] = (), apply: Apply = None
    ) -> None:
        """See ``ProjectionLedger.commit_checkpoint``."""

        async def work(connection: Connection) -> None:
            held = (lease.projection, lease.token, before.position, before.event_id)
            if apply is not None:
                # `apply` before the checkpoint is moved: the update locks the row of the lease until the commit, and `apply`
                # may run for longer than the lease lasts. A runner that has lost the lease must not call it at all.
                async with asyncio.timeout(self._timeout):
                    if not await connection.fetch(self._sql(_IS_HELD), *held):
                        raise _RolledBack(taken_over(lease, before))
                await _apply(apply, connection)
            async with asyncio.timeout(self._timeout):
                if not await connection.fetch(self._sql(_MOVE), *held, after.position, after.event_id):
                    raise _RolledBack(taken_over(lease, before))
                if dead_letters:
                    await connection.executemany(self._sql(_KEEP), [msgspec.structs.astuple(letter) for letter in dead_letters])

        await self._in_transaction(work)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """See ``ProjectionLedger.projections``."""
        return [
            ProjectionRecord(name, Checkpoint(position, event_id), owner if lease_left else "", token, lease_left, letters)
            for name, position, event_id, owner, token, lease_left, letters in await self._pool.fetch(_PROJECTIONS)
        ]

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """See ``ProjectionLedger.dead_letters``."""
        return [DeadLetter(*row) for row in await self._pool.fetch(_LETTERS, projection, limit)]

    async def remove_dead_letter(self, letter: DeadLetter, apply: Apply = None) -> bool:
        """See ``ProjectionLedger.remove_dead_letter``."""

        async def work(connection: Connection) -> None:
            # Removed first: when another call has removed the letter, its event must not be applied again.
            async with asyncio.timeout(self._timeout):
                removed = await connection.fetch(self._sql(_REMOVE), letter.projection, letter.position, letter.event_id)
            if not removed:
                raise _RolledBack
            if apply is not None:
                await _apply(apply, connection)

        return await self._in_transaction(work)

    async def reset_projection(self, projection: str) -> None:
        """See ``ProjectionLedger.reset_projection``. The token grows, so that an earlier runner cannot move the checkpoint."""

        async def work(connection: Connection) -> None:
            async with asyncio.timeout(self._timeout):
                if await connection.fetch(self._sql(_RESET), projection):
                    await connection.execute(self._sql(_FORGET), projection)
                elif await connection.fetchval(self._sql(_EXISTS), projection):
                    raise _RolledBack(still_running(projection))

        await self._in_transaction(work)

    async def _in_transaction(self, work: Callable[[Connection], Awaitable[None]]) -> bool:
        """Run ``work`` in a transaction; whether it was committed. Only beginning and committing have a timeout here."""
        rolled_back: _RolledBack | None = None
        async with self._pool.connection(self._pool.deadline()) as connection:
            try:
                async with asyncio.timeout(self._timeout) as limit, transaction(connection):
                    limit.reschedule(None)
                    await work(connection)
                    limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
            except _RolledBack as error:
                rolled_back = error
        if rolled_back is not None and rolled_back.reason is not None:
            raise rolled_back.reason
        return rolled_back is None

    def _sql(self, text: str) -> str:
        return for_schema(text, self._schema)


async def _apply(apply: Callable[[Any], Any], connection: Connection) -> None:
    try:
        result = apply(connection)
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        raise _RolledBack(error) from error
