"""What projections say to SQLite: leases, checkpoints and dead letters, each call one transaction.

None of them waits for the disk. After a power cut the last ones may be gone, a read model and its checkpoint together, and are
made again; what is durable are events.

Times are the machine's wall clock, which every process on the file shares. A lease that would last longer than it was given for
comes from before that clock was set back, and counts as ended.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from eventcore.errors import LeadershipLost
from eventcore.stores.base import START, Checkpoint, DeadLetter, Lease, ProjectionRecord
from eventcore.stores.sqlite.connection import StoreConnection, write_transaction
from eventcore.stores.sqlite.errors import explained, is_unavailable

PROJECTION_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS projections (
        name TEXT PRIMARY KEY,
        position INTEGER NOT NULL,
        event_id TEXT NOT NULL,
        owner TEXT NOT NULL,
        token INTEGER NOT NULL,
        leased_until REAL NOT NULL,
        leased_for REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS dead_letters (
        projection TEXT NOT NULL,
        position INTEGER NOT NULL,
        event_id TEXT NOT NULL,
        error_type TEXT NOT NULL,
        error TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        failed_at_ns INTEGER NOT NULL,
        PRIMARY KEY (projection, position)
    ) WITHOUT ROWID;
"""
_IS_LEASED: Final = (
    "SELECT 1 FROM projections WHERE name = :name AND owner NOT IN ('', :owner) "
    "AND leased_until > :now AND leased_until - :now <= leased_for"
)
_ACQUIRE: Final = """
    INSERT INTO projections VALUES (:name, 0, '', :owner, 1, :now + :seconds, :seconds)
    ON CONFLICT (name) DO UPDATE SET owner = :owner, token = token + 1, leased_until = :now + :seconds, leased_for = :seconds
"""
_RENEW: Final = """
    UPDATE projections SET leased_until = :now + :seconds, leased_for = :seconds
    WHERE name = :name AND token = :token AND owner <> ''
"""
_RELEASE: Final = "UPDATE projections SET owner = '', leased_until = 0, leased_for = 0 WHERE name = :name AND token = :token"
_MOVE: Final = """
    UPDATE projections SET position = :position, event_id = :event_id
    WHERE name = :name AND token = :token AND position = :from_position AND event_id = :from_event_id AND owner <> ''
"""
_KEEP_LETTER: Final = "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?)"
_RESET: Final = """
    UPDATE projections SET position = ?, event_id = ?, owner = '', token = token + 1, leased_until = 0, leased_for = 0
    WHERE name = ?
"""
_LIST: Final = """
    SELECT name, position, event_id, owner, token,
        CASE WHEN leased_until > :now AND leased_until - :now <= leased_for THEN leased_until - :now ELSE 0.0 END,
        (SELECT count(*) FROM dead_letters WHERE projection = name)
    FROM projections ORDER BY name
"""
_LETTERS: Final = """
    SELECT projection, position, event_id, error_type, error, attempts, failed_at_ns FROM dead_letters
    WHERE projection = ? ORDER BY position LIMIT ?
"""


def is_leased(projection: str, owner: str, connection: StoreConnection) -> bool:
    """Whether another owner holds the lease: a look that disturbs no writer."""
    asked = {"name": projection, "owner": owner, "now": time.time()}
    return connection.execute(_IS_LEASED, asked).fetchone() is not None


def acquire_lease(projection: str, owner: str, seconds: float, connection: StoreConnection) -> Lease | None:
    with write_transaction(connection):
        asked = {"name": projection, "owner": owner, "now": time.time(), "seconds": seconds}
        if connection.execute(_IS_LEASED, asked).fetchone() is not None:
            return None
        connection.execute(_ACQUIRE, asked)
        token, position, event_id = connection.execute(
            "SELECT token, position, event_id FROM projections WHERE name = ?", (projection,)
        ).fetchone()
    return Lease(projection, token, Checkpoint(position, event_id.decode()))


def renew_lease(lease: Lease, seconds: float, connection: StoreConnection) -> bool:
    asked = {"name": lease.projection, "token": lease.token, "now": time.time(), "seconds": seconds}
    return connection.execute(_RENEW, asked).rowcount == 1


def release_lease(lease: Lease, connection: StoreConnection) -> None:
    connection.execute(_RELEASE, {"name": lease.projection, "token": lease.token})


def commit_checkpoint(
    lease: Lease,
    before: Checkpoint,
    after: Checkpoint,
    letters: Sequence[DeadLetter],
    apply: Callable[[Any], Any] | None,
    connection: StoreConnection,
) -> None:
    """See ``Backend.commit_checkpoint``; the fence comes first, so that a loser's ``apply`` is not even called."""
    move: dict[str, str | int] = {
        "name": lease.projection,
        "token": lease.token,
        "from_position": before.position,
        "from_event_id": before.event_id,
        "position": after.position,
        "event_id": after.event_id,
    }
    if apply is None and not letters:
        # The usual case is one statement: each more may wait for the interpreter's lock.
        _move(move, connection)
        return
    with write_transaction(connection):
        _move(move, connection)
        connection.executemany(_KEEP_LETTER, [msgspec.structs.astuple(letter) for letter in letters])
        if apply is not None:
            _apply(apply, connection)


def _move(move: dict[str, str | int], connection: StoreConnection) -> None:
    if connection.execute(_MOVE, move).rowcount != 1:
        raise LeadershipLost(
            f"projection {move['name']!r} was taken over: its checkpoint is no longer this runner's at position "
            f"{move['from_position']}"
        )


def _apply(apply: Callable[[Any], Any], connection: StoreConnection) -> None:
    """Lend the connection to the application: its texts are ``str``, and the transaction is not its to end."""
    connection.text_factory = str
    connection.set_authorizer(_refuse_to_end)
    try:
        apply(connection)
    except Exception as error:
        # What the application raises is its own affair, but for what says that the store cannot write now.
        cause = error if isinstance(error, sqlite3.Error) else error.__cause__
        if isinstance(cause, sqlite3.Error) and is_unavailable(cause):
            raise explained(cause, _path(connection)) from error
        raise
    finally:
        connection.set_authorizer(None)
        connection.text_factory = bytes
        connection.row_factory = None


def _refuse_to_end(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK


def _path(connection: StoreConnection) -> str:
    connection.set_authorizer(None)
    return str(connection.execute("PRAGMA database_list").fetchone()[2])


def projections(connection: StoreConnection) -> Sequence[ProjectionRecord]:
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


def dead_letters(projection: str, limit: int, connection: StoreConnection) -> Sequence[DeadLetter]:
    return [
        DeadLetter(name.decode(), position, event_id.decode(), error_type.decode(), error.decode(), attempts, failed_at_ns)
        for name, position, event_id, error_type, error, attempts, failed_at_ns in connection.execute(
            _LETTERS, (projection, limit)
        ).fetchall()
    ]


def remove_dead_letter(letter: DeadLetter, apply: Callable[[Any], Any] | None, connection: StoreConnection) -> bool:
    with write_transaction(connection):
        gone = connection.execute(
            "DELETE FROM dead_letters WHERE projection = ? AND position = ? AND event_id = ?",
            (letter.projection, letter.position, letter.event_id),
        )
        if gone.rowcount != 1:
            return False
        if apply is not None:
            _apply(apply, connection)
    return True


def reset_projection(projection: str, connection: StoreConnection) -> None:
    with write_transaction(connection):
        if connection.execute(_IS_LEASED, {"name": projection, "owner": "", "now": time.time()}).fetchone() is not None:
            raise LeadershipLost(f"projection {projection!r} is being run: stop it first, then reset it")
        # The token stays, so that a runner from before cannot commit any more.
        connection.execute(_RESET, (START.position, START.event_id, projection))
        connection.execute("DELETE FROM dead_letters WHERE projection = ?", (projection,))
