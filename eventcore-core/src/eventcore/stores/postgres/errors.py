"""PostgreSQL's errors as errors of eventcore: what is wrong with the server or the database, and what to do."""

from __future__ import annotations

from typing import Final, final

from eventcore.errors import AccessDenied, HistoryDiverged, IncompatibleStore, StoreError, StoreUnavailable
from eventcore.stores.postgres.driver import InvalidArgument, PostgresError

# SQLSTATE codes and their classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_READ_ONLY: Final = "25006"
# Raised by the store's own functions.
_DIVERGED: Final = "EC001"
_KNOWN: Final[dict[str, tuple[type[StoreError], str]]] = {
    "28P01": (AccessDenied, "refuses the password: correct it in the URL, in PGPASSWORD or in the password file"),
    "28000": (AccessDenied, "refuses the user: correct the user in the URL, or the server's pg_hba.conf"),
    "42501": (
        AccessDenied,
        "does not give the user the rights that the store needs: grant them, or let the owner run 'eventcore migrate'",
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
    "55P03": (StoreUnavailable, "does not grant the append lock: another process has held it too long"),
    "57014": (StoreUnavailable, "cancelled the statement: it took longer than statement_timeout, or an administrator ended it"),
    "57P03": (StoreUnavailable, "is starting or stopping"),
}
# The connection or the server has ended: the statement may have been carried out or not.
_LOST: Final = ("08", "25P03", "25P04", "57P01", "57P02", "57P04", "57P05", "58", "XX")


@final
class AnswerLost(StoreUnavailable):
    """The connection ended, or the timeout was over, after a call was sent: the server may have carried it out."""


def leaves_connection_usable(error: BaseException) -> bool:
    """Whether the connection can be used after an error: the server has refused a statement, and nothing else.

    A server that is read only may no longer be the primary, so its connection is closed and the address is looked up again.
    """
    if isinstance(error, InvalidArgument):
        return True
    code: str = getattr(error, "sqlstate", None) or ""
    return isinstance(error, PostgresError) and not code.startswith((*_LOST, _READ_ONLY))


def explained(error: BaseException, address: str) -> StoreError:
    """The ``StoreError`` to raise for an error of asyncpg in a call to the server at ``address``."""
    if isinstance(error, StoreError):
        return error
    code: str = getattr(error, "sqlstate", None) or ""
    detail = f"({type(error).__name__}: {error})"
    if code == _DIVERGED:
        return HistoryDiverged(
            f"PostgreSQL at {address} has lost events (failover, restore): one that was read or appended is not there {detail}"
        )
    if known := _KNOWN.get(code):
        kind, advice = known
        return kind(f"PostgreSQL at {address} {advice} {detail}")
    if isinstance(error, InvalidArgument):
        return StoreError(f"an argument of a call to PostgreSQL at {address} cannot be written {detail}")
    if isinstance(error, TimeoutError):
        return AnswerLost(f"PostgreSQL at {address} gave no answer in time")
    if not isinstance(error, PostgresError) or code.startswith(_LOST):
        return AnswerLost(f"the connection to PostgreSQL at {address} was lost {detail}")
    return StoreError(f"PostgreSQL at {address}: {detail}")
