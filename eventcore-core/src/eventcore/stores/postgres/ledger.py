"""Projections in a PostgreSQL store: leases by the server's clock, checkpoints that only the newest lease can move."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Final

from eventcore.errors import LeadershipLost
from eventcore.stores.base import Checkpoint, DeadLetter, Lease, ProjectionRecord
from eventcore.stores.postgres.connections import Pool
from eventcore.stores.postgres.driver import Connection, transaction
from eventcore.stores.postgres.schema import for_schema
from eventcore.stores.postgres.url import PostgresSettings

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
_STANDS: Final = """
    SELECT FROM {schema}.projections
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
    DELETE FROM {schema}.dead_letters WHERE projection = $1 AND position = $2 AND event_id = $3 RETURNING position
"""
_RESET: Final = """
    UPDATE {schema}.projections SET position = 0, event_id = '', owner = '', token = token + 1, leased_until = 'epoch'
    WHERE name = $1 AND (owner = '' OR leased_until <= clock_timestamp()) RETURNING token
"""
_EXISTS: Final = "SELECT EXISTS (SELECT FROM {schema}.projections WHERE name = $1)"
_FORGET: Final = "DELETE FROM {schema}.dead_letters WHERE projection = $1"


class _Undone(Exception):
    """Ends a transaction that must not stand; ``reason`` is then raised in its address."""

    def __init__(self, reason: Exception | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


class ProjectionStore:
    """The part of the backend that serves projections.

    Args:
        pool: where its connections come from.
        settings: what the URL says.
    """

    def __init__(self, pool: Pool, settings: PostgresSettings) -> None:
        self._pool = pool
        self._schema = settings.schema
        self._call_timeout = settings.timeout

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """One statement, so that of two who ask one gets it."""
        found = await self._rows_of(_ACQUIRE, projection, owner, seconds)
        if not found:
            return None
        [(token, position, event_id)] = found
        return Lease(projection, token, Checkpoint(position, event_id))

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """Move the end of the lease."""
        return bool(await self._rows_of(_RENEW, lease.projection, lease.token, seconds))

    async def release_lease(self, lease: Lease) -> None:
        """End the lease now."""
        await self._rows_of(_RELEASE, lease.projection, lease.token)

    async def commit_checkpoint(
        self,
        lease: Lease,
        before: Checkpoint,
        after: Checkpoint,
        dead_letters: Sequence[DeadLetter] = (),
        apply: Callable[[Any], Any] | None = None,
    ) -> None:
        """The read model before the checkpoint: from its change to the commit that row is locked, and the lease with it."""
        taken_over = LeadershipLost(
            f"projection {lease.projection!r} was taken over: its checkpoint is no longer this runner's at position "
            f"{before.position}"
        )

        async def work(connection: Connection) -> None:
            held = (lease.projection, lease.token, before.position, before.event_id)
            if apply is not None:
                async with asyncio.timeout(self._call_timeout):
                    if not await connection.fetch(self._sql(_STANDS), *held):
                        raise _Undone(taken_over)
                await _apply(apply, connection)
            async with asyncio.timeout(self._call_timeout):
                if not await connection.fetch(self._sql(_MOVE), *held, after.position, after.event_id):
                    raise _Undone(taken_over)
                if dead_letters:
                    await connection.executemany(
                        self._sql(_KEEP),
                        [
                            (
                                letter.projection,
                                letter.position,
                                letter.event_id,
                                letter.error_type,
                                letter.error,
                                letter.attempts,
                                letter.failed_at_ns,
                            )
                            for letter in dead_letters
                        ],
                    )

        await self._in_transaction(work)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """Every row, with the number of its dead letters."""
        return [
            ProjectionRecord(name, Checkpoint(position, event_id), owner if lease_left else "", token, lease_left, letters)
            for name, position, event_id, owner, token, lease_left, letters in await self._rows_of(_PROJECTIONS)
        ]

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """Rows in order of position."""
        return [DeadLetter(*row) for row in await self._rows_of(_LETTERS, projection, limit)]

    async def remove_dead_letter(self, letter: DeadLetter, apply: Callable[[Any], Any] | None = None) -> bool:
        """The letter first: what is gone already must not be applied again."""

        async def work(connection: Connection) -> None:
            async with asyncio.timeout(self._call_timeout):
                removed = await connection.fetch(self._sql(_REMOVE), letter.projection, letter.position, letter.event_id)
            if not removed:
                raise _Undone
            if apply is not None:
                await _apply(apply, connection)

        return await self._in_transaction(work)

    async def reset_projection(self, projection: str) -> None:
        """Back to the start, under a new token, so that nobody who ran it before can move it."""

        async def work(connection: Connection) -> None:
            async with asyncio.timeout(self._call_timeout):
                if await connection.fetch(self._sql(_RESET), projection):
                    await connection.execute(self._sql(_FORGET), projection)
                elif await connection.fetchval(self._sql(_EXISTS), projection):
                    raise _Undone(LeadershipLost(f"projection {projection!r} is being run: stop it first, then reset it"))

        await self._in_transaction(work)

    async def _in_transaction(self, work: Callable[[Connection], Awaitable[None]]) -> bool:
        """Run ``work`` in a transaction and whether it stands; the time of what it applies is not limited."""
        undone: _Undone | None = None
        async with self._pool.connection(monotonic() + self._call_timeout) as connection:
            try:
                async with asyncio.timeout(self._call_timeout) as limit, transaction(connection):
                    limit.reschedule(None)
                    await work(connection)
                    limit.reschedule(asyncio.get_running_loop().time() + self._call_timeout)
            except _Undone as error:
                undone = error
        if undone is not None and undone.reason is not None:
            raise undone.reason
        return undone is None

    async def _rows_of(self, sql: str, *arguments: Any) -> Sequence[Any]:
        return await self._pool.fetch(self._sql(sql), *arguments, deadline=monotonic() + self._call_timeout)

    def _sql(self, text: str) -> str:
        return for_schema(text, self._schema)


async def _apply(apply: Callable[[Any], Any], connection: Connection) -> None:
    try:
        result = apply(connection)
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        raise _Undone(error) from error
