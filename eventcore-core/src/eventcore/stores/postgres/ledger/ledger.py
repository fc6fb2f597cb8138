"""The projection ledger of a PostgreSQL store. Leases are measured by the server's clock."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, final

import msgspec

from eventcore.errors import StoreUnavailable
from eventcore.stores.failures import lost_event, refusal, still_running, taken_over
from eventcore.stores.postgres.connections import Pool
from eventcore.stores.postgres.connections.reading import ReadingPool
from eventcore.stores.postgres.driver import Connection, PostgresError, transaction
from eventcore.stores.postgres.ledger.transaction import PostgresTransaction
from eventcore.stores.postgres.schema import for_schema
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.values import Apply, Checkpoint, DeadLetter, Lease, ProjectionRecord, RunState

# Seconds after which the server ends the transaction of a silent client at the latest.
_SILENCE: Final = 5.0
_ENDED: Final = "ended"
_END: Final = "end its transaction"

_ACQUIRE: Final = "SELECT * FROM {schema}.acquire_lease($1, $2, $3)"
_RENEW: Final = """
    UPDATE {schema}.projections
    SET leased_until = clock_timestamp() + make_interval(secs => $3), leased_for = $3, leased_token = $2
    WHERE name = $1 AND token = $2 AND owner <> '' RETURNING token
"""
_RELEASE: Final = """
    UPDATE {schema}.projections SET owner = '', leased_until = 'epoch' WHERE name = $1 AND token = $2 RETURNING token
"""
_SAVE: Final = """
    UPDATE {schema}.projections SET filter = $3, attempt_position = $4, attempts = $5
    WHERE name = $1 AND token = $2 AND owner <> '' RETURNING token
"""
# Behind this statement the handler runs its own statements, which may take longer than a call of the store.
_BEGIN: Final = """
    SELECT {schema}.begin_handler($1, $2, $3, $4, $5, $6, $7, $8),
        set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)
"""
_MOVE: Final = "SELECT {schema}.move_checkpoint($1, $2, $3, $4, $5, $6, $7, $8)"
_GUARD: Final = """
    SELECT {schema}.guard_transaction($1, $2),
        set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)
"""
_IS_MARKED: Final = "SELECT current_setting('eventcore.transaction', true) = $1"
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
    UPDATE {schema}.projections SET position = 0, event_id = '', owner = '', token = token + 1, leased_until = 'epoch',
        filter = '', attempt_position = 0, attempts = 0
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


@contextmanager
def _raised() -> Generator[None]:
    """Raise the reason of ``_RolledBack``, where there is no transaction to roll back."""
    try:
        yield
    except _RolledBack as error:
        raise error.reason or error from None


@final
class PostgresLedger:
    """Implements ``ProjectionLedger``.

    Args:
        pool: the connections that it uses.
        leasing: the pool for leases, so that a renewal never waits for a handler that uses a connection of the other one.
        settings: the settings of the store.
    """

    def __init__(self, pool: ReadingPool, leasing: Pool, settings: PostgresSettings) -> None:
        self._pool = pool
        self._leasing = leasing
        self._schema = settings.schema
        self._timeout = settings.timeout
        self._address = settings.address

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """See ``ProjectionLedger.acquire_lease``. One statement, so only one of several concurrent calls gets the lease."""
        found = await self._leasing.fetch(_ACQUIRE, projection, owner, seconds)
        if not found:
            return None
        [(token, position, event_id, abandoned, *state)] = found
        return Lease(projection, token, Checkpoint(position, event_id), seconds, abandoned, RunState(*state))

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """See ``ProjectionLedger.renew_lease``."""
        return bool(await self._leasing.fetch(_RENEW, lease.projection, lease.token, seconds))

    async def release_lease(self, lease: Lease) -> None:
        """See ``ProjectionLedger.release_lease``."""
        await self._leasing.fetch(_RELEASE, lease.projection, lease.token)

    async def save_run_state(self, lease: Lease, state: RunState) -> None:
        """See ``ProjectionLedger.save_run_state``."""
        if not await self._leasing.fetch(_SAVE, lease.projection, lease.token, *msgspec.structs.astuple(state)):
            raise taken_over(lease, lease.checkpoint)

    async def commit_checkpoint(
        self, lease: Lease, before: Checkpoint, after: Checkpoint, dead_letters: Sequence[DeadLetter] = (), apply: Apply = None
    ) -> None:
        """See ``ProjectionLedger.commit_checkpoint``. Without ``apply`` it is one statement."""
        move = (lease.projection, lease.token, before.position, before.event_id, after.position, after.event_id)
        letters = msgspec.json.encode(dead_letters).decode()
        if apply is None:
            [(outcome,)] = await self._pool.fetch(_MOVE, *move, letters, None)
            with _raised():
                self._check(outcome, lease, before, after)
            return

        async def work(connection: Connection) -> None:
            # The checkpoint is moved last: the update locks the row of the lease until the commit, and `apply` may run for
            # longer than the lease lasts. A runner that has lost the lease must not call it at all.
            mark = secrets.token_hex(8)
            silence = _silence(lease.seconds)
            async with asyncio.timeout(self._timeout):
                outcome = await connection.fetchval(self._sql(_BEGIN), *move, mark, int(silence * 1000))
            self._check(outcome, lease, before, after)
            async with self._handling(connection, apply, silence), asyncio.timeout(self._timeout):
                outcome = await connection.fetchval(self._sql(_MOVE), *move, letters, mark)
            if outcome == _ENDED:
                connection.terminate()
            self._check(outcome, lease, before, after)

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
                mark = secrets.token_hex(8)
                async with asyncio.timeout(self._timeout):
                    await connection.fetch(self._sql(_GUARD), mark, int(_SILENCE * 1000))
                async with self._handling(connection, apply, _SILENCE), asyncio.timeout(self._timeout):
                    is_marked = await connection.fetchval(self._sql(_IS_MARKED), mark)
                if not is_marked:
                    connection.terminate()
                    raise _RolledBack(refusal(_END))

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
        async with self._pool.for_handler() as connection:
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

    @asynccontextmanager
    async def _handling(self, connection: Connection, apply: Callable[[Any], Any], silence: float) -> AsyncGenerator[None]:
        """Call ``apply`` with a guarded transaction, and run the block after it. Raises ``_RolledBack`` if one of them fails.

        A failure of the server or the network is raised as it is, also when ``apply`` has made another error of it.
        """
        transaction = PostgresTransaction(connection, self._address, self._pool.counters.own_io)
        transaction.keep_alive(silence / 3)
        try:
            try:
                if inspect.isawaitable(result := apply(transaction)):
                    await result
            except BaseException as error:
                await transaction.end(cancelled=not isinstance(error, Exception))
                raise
            await transaction.end()
        except Exception as error:
            raise _RolledBack(transaction.unavailable(error) or error) from error
        try:
            yield
        except PostgresError as error:
            # The handler has gone on after an error, so that its transaction has failed.
            if (reason := transaction.unavailable(None)) is not None:
                raise _RolledBack(reason) from error
            raise

    def _check(self, outcome: str, lease: Lease, before: Checkpoint, after: Checkpoint) -> None:
        """Raise what the outcome of ``begin_handler`` or ``move_checkpoint`` means, in a form that rolls a transaction back."""
        if outcome in ("held", "moved"):
            return
        reasons: dict[str, Exception] = {
            "diverged": lost_event(after),
            _ENDED: refusal(_END),
            "busy": StoreUnavailable(
                f"another transaction of projection {lease.projection!r} has not ended yet in PostgreSQL at {self._address}"
            ),
        }
        raise _RolledBack(reasons.get(outcome) or taken_over(lease, before))

    def _sql(self, text: str) -> str:
        return for_schema(text, self._schema)


def _silence(lease_seconds: float) -> float:
    """Seconds after which the server ends a transaction whose client is silent: about when its lease ends."""
    return min(max(lease_seconds, 1.0), _SILENCE)
