"""SQLite's errors as errors of eventcore: what is wrong with the file, and what to do."""

from __future__ import annotations

import sqlite3
from typing import Final

from eventcore.errors import IncompatibleStore, StoreError, StoreUnavailable
from eventcore.ground import describe_error

# Primary result codes: https://www.sqlite.org/rescode.html
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process; end its long transaction, or raise busy_timeout in the URL",
    sqlite3.SQLITE_LOCKED: "is locked by another connection; end its long transaction",
    sqlite3.SQLITE_FULL: "cannot grow, since the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "cannot be written: check the permissions of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that its directory exists and may be written",
    sqlite3.SQLITE_PERM: "cannot be used: check the permissions of the file",
    sqlite3.SQLITE_IOERR: "cannot be read or written: check the disk and the file system",
    sqlite3.SQLITE_NOMEM: "needs more memory than there is",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup",
}


def is_unavailable(error: sqlite3.Error) -> bool:
    """Whether the file cannot be used now, whatever the request."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNAVAILABLE


def explained(error: sqlite3.Error, path: str) -> StoreError:
    """The ``StoreError`` to raise for an error of SQLite on the file at ``path``."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return IncompatibleStore(f"{path} is not an SQLite database; give the path of an eventcore store or of a new file")
    if advice := _UNAVAILABLE.get(code):
        return StoreUnavailable(f"{path} {advice} ({error})")
    return StoreError(f"{path}: {describe_error(error)}")
