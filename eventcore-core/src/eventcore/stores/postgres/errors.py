"""PostgreSQL's errors as errors of eventcore: what is wrong with the server or the database, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from eventcore.errors import AccessDenied, HistoryDiverged, IncompatibleStore, StoreError, StoreUnavailable
from eventcore.ground import describe_error
from eventcore.stores.postgres.driver import InvalidArgument, PostgresError
from eventcore.stores.values import EventsRedacted

# SQLSTATE codes and their classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_READ_ONLY: Final = "25006"
# Raised by the store's own functions.
_DIVERGED: Final = "EC001"
_REDACTED: Final = "EC002"
SILENT_SERVER: Final = "it is stopped or overloaded, or a machine in between drops what is sent"
"""Why a server gives no answer."""

_SWITCH: Final = "add statement_cache=off to the store URL"
_KNOWN: Final[dict[str, tuple[type[StoreError], str]]] = {
    "28P01": (AccessDenied, "refuses the password: correct it in the URL, in PGPASSWORD or in the password file"),
    "28000": (AccessDenied, "refuses the user: correct the user in the URL, or the server's pg_hba.conf"),
    "42501": (
        AccessDenied,
        "does not give the user the rights that the store needs: grant them (docs/postgresql.md lists them); only the owner of "
        "the schema, or of the database, may run 'eventcore migrate'",
    ),
    "3D000": (IncompatibleStore, "has no such database: create it, or correct the URL"),
    "3F000": (IncompatibleStore, "lacks the schema of the store: restore it, or run 'eventcore migrate'"),
    "42P01": (IncompatibleStore, "lacks a table of the store: restore it"),
    "42883": (IncompatibleStore, "lacks a function of the store: restore it"),
    _READ_ONLY: (StoreUnavailable, "is a standby or read only: give the address of the primary"),
    "40001": (StoreUnavailable, "could not serialize the call: send it again"),
    "40P01": (StoreUnavailable, "found a deadlock: send it again"),
    "53100": (StoreUnavailable, "has no space left on its disk: free some"),
    "53200": (StoreUnavailable, "is out of memory"),
    "53300": (StoreUnavailable, "has no more connections: raise max_connections, or lower pool in the URL"),
    "55P03": (
        StoreUnavailable,
        "does not grant the append lock or the lock of a table: another session has held it too long (pg_locks shows which)",
    ),
    "57014": (
        StoreUnavailable,
        "cancelled the statement: it took longer than statement_timeout (the timeout in the store URL, or that of the "
        "user's role), or an administrator ended it; if it waited for a lock, pg_locks shows who held it",
    ),
    "25P03": (
        StoreUnavailable,
        "ended the session: its transaction was idle for longer than idle_in_transaction_session_timeout",
    ),
    "25P04": (StoreUnavailable, "ended the session: its transaction took longer than transaction_timeout"),
    # pgbouncer in transaction mode gives each transaction another session; a prepared statement belongs to one of them.
    "26000": (StoreError, f"does not know a statement that was prepared; behind pgbouncer, {_SWITCH}"),
    "42P05": (StoreError, f"knows a prepared statement of somebody else by this name; behind pgbouncer, {_SWITCH}"),
    "57P03": (StoreUnavailable, "is starting or stopping"),
}
# The connection or the server has ended: the statement may have been carried out or not.
_LOST: Final = ("08", "25P03", "25P04", "57P01", "57P02", "57P04", "57P05", "58", "XX")
# The session has ended, or is not the one that the connection takes it for.
_UNUSABLE: Final = (*_LOST, _READ_ONLY, "26000", "42P05")


@final
class KeysKnown(StoreError):
    """The store knows idempotency keys of a batch, of which nothing was stored. ``PostgresLog.append`` catches it."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__("idempotency keys are known")
        self.keys = keys


def leaves_connection_usable(error: BaseException) -> bool:
    """Whether the connection can be used after an error: the server has refused a statement, and nothing else.

    A server that is read only may no longer be the primary, so its connection is closed and the address is looked up again.
    """
    if isinstance(error, InvalidArgument):
        return True
    return isinstance(error, PostgresError) and not _code(error).startswith(_UNUSABLE)


def is_away(error: BaseException | None) -> bool:
    """Whether an attempt to connect has failed since no server is there, or one that is starting or stopping."""
    return not isinstance(error, PostgresError) or _code(error).startswith((*_LOST, "57P03"))


def refuses_start(error: BaseException) -> str | None:
    """What to do when pgbouncer refuses the parameters that the store sends to a server; ``None`` for any other error."""
    if _code(error) == "08P01" and "startup parameter" in str(error):
        return f"is pgbouncer, which refuses the parameters of a direct connection: {_SWITCH}"
    return None


def _code(error: BaseException | None) -> str:
    return getattr(error, "sqlstate", None) or ""


def explained(error: BaseException, address: str) -> StoreError:
    """The ``StoreError`` to raise for an error of asyncpg in a call to the server at ``address``.

    It is a ``StoreUnavailable`` with ``may_have_committed`` when the connection ended, or the timeout was over, after a call
    was sent: the server may have carried it out.
    """
    if isinstance(error, StoreError):
        return error
    code = _code(error)
    detail = f"({describe_error(error)})"
    if code == _DIVERGED:
        return HistoryDiverged(
            f"PostgreSQL at {address} has lost events (failover, restore): one that was read or appended is not there {detail}"
        )
    if code == _REDACTED:
        return EventsRedacted(f"PostgreSQL at {address} has redacted events that were read before {detail}")
    if known := _KNOWN.get(code):
        kind, advice = known
        return kind(f"PostgreSQL at {address} {advice} {detail}")
    if isinstance(error, InvalidArgument):
        return StoreError(f"an argument of a call to PostgreSQL at {address} cannot be written {detail}")
    if isinstance(error, TimeoutError):
        return StoreUnavailable(
            f"PostgreSQL at {address} gave no answer in time: it is away or overloaded, or another session holds a lock that "
            "the statement needs (pg_locks shows which)",
            may_have_committed=True,
        )
    if not isinstance(error, PostgresError) or code.startswith(_LOST):
        return StoreUnavailable(f"the connection to PostgreSQL at {address} was lost {detail}", may_have_committed=True)
    return StoreError(f"PostgreSQL at {address}: {detail}")
