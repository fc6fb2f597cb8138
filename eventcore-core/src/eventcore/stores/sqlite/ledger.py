"""The projection ledger of an SQLite store: leases, checkpoints and dead letters.

Commits of the ledger do not wait for the disk. A power cut may lose the last ones: a read model and its checkpoint together, so
that the projection applies those events again. Only events must be durable.

Leases are measured by the machine's wall clock, which all processes on the file share. When the clock is set back, a lease
would last longer than it was granted for. The first runner that sees this shortens the lease to what it was granted for: its
holder has time to renew it, and if the holder is dead, the lease ends all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar, final

import msgspec

from eventcore.stores.failures import lost_event, refusal, still_running, taken_over
from eventcore.stores.sqlite.connection import ConnectionThread, StoreConnection, write_transaction
from eventcore.stores.sqlite.transaction import SqliteTransaction
from eventcore.stores.values import START, Apply, Checkpoint, DeadLetter, Lease, ProjectionRecord, RunState

T = TypeVar("T")

_IS_LEASED: Final = (
    "SELECT leased_until - :now > leased_for FROM projections WHERE name = :name AND owner NOT IN ('', :owner) "
    "AND leased_until > :now"
)
# A millisecond for the rounding of the sum.
_SHORTEN: Final = """
    UPDATE projections SET leased_until = :now + leased_for WHERE name = :name AND leased_until - :now > leased_for + 0.001
"""
_ACQUIRE: Final = """
    INSERT INTO projections VALUES (:name, 0, '', :owner, 1, :now + :seconds, :seconds)
    ON CONFLICT (name) DO UPDATE SET owner = :owner, token = token + 1, leased_until = :now + :seconds, leased_for = :seconds
"""
_RENEW: Final = """
    UPDATE projections SET leased_until = :now + :seconds, leased_for = :seconds
    WHERE name = :name AND token = :token AND owner <> ''
"""
_SAVE: Final = """
    INSERT OR REPLACE INTO projection_runs
    SELECT name, ?, ?, ? FROM projections WHERE name = ? AND token = ? AND owner <> ''
"""
_STATE: Final = "SELECT filter, attempt_position, attempts FROM projection_runs WHERE name = ?"
_RELEASE: Final = "UPDATE projections SET owner = '', leased_until = 0, leased_for = 0 WHERE name = :name AND token = :token"
_MOVE: Final = """
    UPDATE projections SET position = ?, event_id = ?
    WHERE name = ? AND token = ? AND position = ? AND event_id = ? AND owner <> ''
        AND (? = 0 OR EXISTS (SELECT 1 FROM events WHERE position = ? AND event_id = ?))
"""
_IS_HELD: Final = "SELECT 1 FROM projections WHERE name = ? AND token = ? AND owner <> ''"
_STANDS: Final = "SELECT 1 FROM events WHERE position = ? AND event_id = ?"
_KEEP_LETTER: Final = "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?)"
_REMOVE_LETTER: Final = "DELETE FROM dead_letters WHERE projection = ? AND position = ? AND event_id = ?"
_RESET: Final = """
    UPDATE projections SET position = ?, event_id = ?, owner = '', token = token + 1, leased_until = 0, leased_for = 0
    WHERE name = ?
"""
_LIST: Final = """
    SELECT name, position, event_id, owner, token,
        CASE WHEN owner <> '' THEN max(0.0, min(leased_until - :now, leased_for)) ELSE 0.0 END,
        (SELECT count(*) FROM dead_letters WHERE projection = name)
    FROM projections ORDER BY name
"""
_LETTERS: Final = """
    SELECT projection, position, event_id, error_type, error, attempts, failed_at_ns FROM dead_letters
    WHERE projection = ? ORDER BY position LIMIT ?
"""


@final
class SqliteLedger:
    """Implements ``ProjectionLedger``. Functions that take a connection run in the thread of that connection.

    Args:
        reader: a connection for short reads.
        writer: the connection that writes for projections.
    """

    def __init__(self, reader: ConnectionThread, writer: ConnectionThread) -> None:
        self._reader = reader
        self._writer = writer

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """See ``ProjectionLedger.acquire_lease``."""
        # Look first: runners that wait for a lease ask often, and must not take the write lock each time.
        if await self._reader.run(partial(_is_leased, projection, owner)):
            return None
        return await self._writer.run(partial(_acquire_lease, projection, owner, seconds))

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """See ``ProjectionLedger.renew_lease``."""

        def work(connection: StoreConnection) -> bool:
            asked = {"name": lease.projection, "token": lease.token, "now": time.time(), "seconds": seconds}
            return connection.execute(_RENEW, asked).rowcount == 1

        return await self._writer.run(work)

    async def release_lease(self, lease: Lease) -> None:
        """See ``ProjectionLedger.release_lease``."""

        def work(connection: StoreConnection) -> None:
            connection.execute(_RELEASE, {"name": lease.projection, "token": lease.token})

        await self._writer.run(work)

    async def save_run_state(self, lease: Lease, state: RunState) -> None:
        """See ``ProjectionLedger.save_run_state``."""

        def work(connection: StoreConnection) -> bool:
            asked = (*msgspec.structs.astuple(state), lease.projection, lease.token)
            return connection.execute(_SAVE, asked).rowcount == 1

        if not await self._writer.run(work):
            raise taken_over(lease, lease.checkpoint)

    async def commit_checkpoint(
        self, lease: Lease, before: Checkpoint, after: Checkpoint, dead_letters: Sequence[DeadLetter] = (), apply: Apply = None
    ) -> None:
        """See ``ProjectionLedger.commit_checkpoint``."""

        def work(connection: StoreConnection) -> None:
            # The checkpoint first: a runner that has lost its lease must not even call `apply`.
            to, held = (after.position, after.event_id), (lease.projection, lease.token, before.position, before.event_id)
            if connection.execute(_MOVE, (*to, *held, after.position, *to)).rowcount != 1:
                is_held = connection.execute(_IS_HELD, (lease.projection, lease.token)).fetchone() is not None
                stands = after.position == 0 or connection.execute(_STANDS, to).fetchone() is not None
                raise lost_event(after) if is_held and not stands else taken_over(lease, before)
            if dead_letters:
                connection.executemany(_KEEP_LETTER, [msgspec.structs.astuple(letter) for letter in dead_letters])
            if apply is not None:
                _apply(apply, connection)

        if apply is None and not dead_letters:
            # The usual case is one statement without a transaction: each further statement may wait for the GIL.
            await self._writer.run(work)
        else:
            await self._writer.run(partial(_in_transaction, work))

    async def projections(self) -> Sequence[ProjectionRecord]:
        """See ``ProjectionLedger.projections``."""
        return await self._reader.run(_projections)

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """See ``ProjectionLedger.dead_letters``."""
        return await self._reader.run(partial(_dead_letters, projection, limit))

    async def remove_dead_letter(self, letter: DeadLetter, apply: Apply = None) -> bool:
        """See ``ProjectionLedger.remove_dead_letter``."""

        def work(connection: StoreConnection) -> bool:
            found = connection.execute(_REMOVE_LETTER, (letter.projection, letter.position, letter.event_id)).rowcount == 1
            if found and apply is not None:
                _apply(apply, connection)
            return found

        return await self._writer.run(partial(_in_transaction, work))

    async def reset_projection(self, projection: str) -> None:
        """See ``ProjectionLedger.reset_projection``."""
        await self._writer.run(partial(_reset_projection, projection))


def _is_leased(projection: str, owner: str, connection: StoreConnection) -> bool:
    """Whether another owner has the lease, and for no longer than it was granted for."""
    asked = {"name": projection, "owner": owner, "now": time.time()}
    return bool(connection.execute(_IS_LEASED, asked).fetchone() == (0,))


def _acquire_lease(projection: str, owner: str, seconds: float, connection: StoreConnection) -> Lease | None:
    with write_transaction(connection):
        asked = {"name": projection, "owner": owner, "now": time.time(), "seconds": seconds}
        if connection.execute(_IS_LEASED, asked).fetchone() is not None:
            connection.execute(_SHORTEN, {"name": projection, "now": asked["now"]})
            return None
        former = connection.execute("SELECT owner FROM projections WHERE name = ?", (projection,)).fetchone()
        connection.execute(_ACQUIRE, asked)
        token, position, event_id = connection.execute(
            "SELECT token, position, event_id FROM projections WHERE name = ?", (projection,)
        ).fetchone()
        saved = connection.execute(_STATE, (projection,)).fetchone()
    abandoned = former is not None and former[0].decode() not in ("", owner)
    state = RunState() if saved is None else RunState(saved[0].decode(), *saved[1:])
    return Lease(projection, token, Checkpoint(position, event_id.decode()), seconds, abandoned, state)


def _in_transaction(work: Callable[[StoreConnection], T], connection: StoreConnection) -> T:
    with write_transaction(connection):
        return work(connection)


def _apply(apply: Callable[[Any], Any], connection: StoreConnection) -> None:
    """Call ``apply`` with a transaction that it cannot end, and that ends with it."""
    transaction = SqliteTransaction(connection, connection.path)
    failure: Exception | None = None
    try:
        apply(transaction)
    except Exception as error:
        failure = error
        raise
    finally:
        transaction.end()
        transaction.check(failure)
    if not connection.in_transaction:
        raise refusal("end its transaction, as INSERT OR ROLLBACK and ON CONFLICT ROLLBACK do")


def _projections(connection: StoreConnection) -> Sequence[ProjectionRecord]:
    return [
        ProjectionRecord(
            name.decode(),
            Checkpoint(position, event_id.decode()),
            owner.decode() if left else "",
            token,
            left,
            letters,
        )
        for name, position, event_id, owner, token, left, letters in connection.execute(_LIST, {"now": time.time()}).fetchall()
    ]


def _dead_letters(projection: str, limit: int, connection: StoreConnection) -> Sequence[DeadLetter]:
    return [
        DeadLetter(name.decode(), position, event_id.decode(), error_type.decode(), error.decode(), attempts, failed_at_ns)
        for name, position, event_id, error_type, error, attempts, failed_at_ns in connection.execute(
            _LETTERS, (projection, limit)
        ).fetchall()
    ]


def _reset_projection(projection: str, connection: StoreConnection) -> None:
    with write_transaction(connection):
        if connection.execute(_IS_LEASED, {"name": projection, "owner": "", "now": time.time()}).fetchone() is not None:
            raise still_running(projection)
        # Tokens go on growing, so that a runner from before the reset cannot move the checkpoint.
        connection.execute(_RESET, (START.position, START.event_id, projection))
        connection.execute("DELETE FROM dead_letters WHERE projection = ?", (projection,))
        connection.execute("DELETE FROM projection_runs WHERE name = ?", (projection,))
