"""The transaction that a handler of a projection gets on SQLite: it can read and write, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, final
from weakref import WeakSet

from eventcore.stores.failures import is_caused_by, refusal
from eventcore.stores.sqlite.connection import explained, is_unavailable

# PRAGMAs that only describe the database or that end with the transaction. All others would change the connection, which
# serves every projection of the process.
_PRAGMAS: Final = frozenset(
    (
        *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"),
        *("foreign_key_check", "database_list", "defer_foreign_keys"),
    )
)
_DENIED: Final = {
    sqlite3.SQLITE_TRANSACTION: "begin or end a transaction",
    sqlite3.SQLITE_ATTACH: "attach a database",
    sqlite3.SQLITE_DETACH: "detach a database",
    sqlite3.SQLITE_PRAGMA: "use this PRAGMA",
}
# Methods of `sqlite3.Connection` that end the transaction or outlive it.
_REFUSED: Final = {
    "commit": "commit",
    "rollback": "roll back",
    "close": "close the connection",
    "executescript": "call executescript, which commits first; call execute for each statement",
    "__enter__": "use the transaction as a context manager, which commits",
}


class _Cursor(sqlite3.Cursor):
    """A cursor that its transaction closes."""

    transaction: SqliteTransaction

    @property
    def connection(self) -> Any:
        """The handler's transaction: the connection itself stays out of the handler's reach."""
        return self.transaction

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        return self.transaction.run(super().execute, sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> _Cursor:
        return self.transaction.run(super().executemany, sql, parameters)

    def executescript(self, sql_script: str, /) -> NoReturn:
        raise refusal(_REFUSED["executescript"])


@final
class SqliteTransaction:
    """The transaction of a handler. It has these members of ``sqlite3.Connection``: ``execute``, ``executemany``, ``cursor``,
    ``row_factory``, ``text_factory``, ``total_changes`` and ``in_transaction``.

    Savepoints are allowed. What ends the transaction, changes the connection or would outlive the handler raises
    ``InvalidProjection`` and changes nothing: ``commit``, ``rollback``, ``close``, ``executescript``, ``BEGIN``, ``COMMIT``,
    ``ROLLBACK``, ``ATTACH``, ``DETACH``, and each ``PRAGMA`` that sets something. When the handler has ended, its cursors are
    closed, and every use of the transaction raises ``InvalidProjection``.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._path = path
        self._cursors: WeakSet[_Cursor] = WeakSet()
        self._denied = ""
        # Errors that say that the file cannot be used now, whatever the handler made of them.
        self._unavailable: sqlite3.Error | None = None
        connection.text_factory = str
        connection.set_authorizer(self._authorize)

    def __getattr__(self, name: str) -> NoReturn:
        if name in _REFUSED:
            raise refusal(_REFUSED[name])
        raise AttributeError(
            f"a handler's transaction has no {name!r}; it has execute, executemany, cursor, row_factory, text_factory, "
            "total_changes and in_transaction"
        )

    def __enter__(self) -> NoReturn:
        raise refusal(_REFUSED["__enter__"])

    def __exit__(self, *_: object) -> None:
        """Never called: ``__enter__`` raises."""

    @property
    def row_factory(self) -> Any:
        """As ``sqlite3.Connection.row_factory``, for the cursors of this transaction."""
        return self._opened().row_factory

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        self._opened().row_factory = factory

    @property
    def text_factory(self) -> Any:
        """As ``sqlite3.Connection.text_factory``, for this transaction."""
        return self._opened().text_factory

    @text_factory.setter
    def text_factory(self, factory: Any) -> None:
        self._opened().text_factory = factory

    @property
    def total_changes(self) -> int:
        """As ``sqlite3.Connection.total_changes``."""
        return self._opened().total_changes

    @property
    def in_transaction(self) -> bool:
        """True until the handler ends."""
        return self._opened().in_transaction

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As ``sqlite3.Connection.execute``."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """As ``sqlite3.Connection.executemany``."""
        return self.cursor().executemany(sql, parameters)

    def cursor(self) -> sqlite3.Cursor:
        """As ``sqlite3.Connection.cursor``."""
        cursor = self._opened().cursor(_Cursor)
        cursor.transaction = self
        self._cursors.add(cursor)
        return cursor

    def end(self) -> None:
        """Close what the handler keeps, and give the connection back as it was. Called in any case when the handler ends."""
        connection = self._opened()
        self._connection = None
        # A cursor with unread rows would keep the connection in an old snapshot, in which it cannot write again.
        for cursor in list(self._cursors):
            cursor.close()
        connection.set_authorizer(None)
        connection.text_factory = bytes
        connection.row_factory = None

    def check(self, error: Exception | None) -> None:
        """Raise what has really ended the handler, after ``end``; nothing when ``error`` itself has, or when all is well.

        Args:
            error: what the handler has raised.

        Raises:
            StoreUnavailable: the file could not be used, which is no failure of the handler.
            InvalidProjection: the transaction has ended, although the handler raised nothing.
        """
        unavailable = self._unavailable
        # Reading a row can fail, too.
        cause = error if error is None or isinstance(error, sqlite3.Error) else error.__cause__
        if isinstance(cause, sqlite3.Error) and is_unavailable(cause):
            unavailable = cause
        if unavailable is not None and (error is None or is_caused_by(error, unavailable)):
            raise explained(unavailable, self._path) from unavailable

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise refusal("use its transaction after it has ended; read everything before")
        return self._connection

    def run(self, execute: Callable[..., _Cursor], sql: str, parameters: Any) -> _Cursor:
        """Run a statement of one of the cursors."""
        connection = self._opened()
        if not connection.in_transaction:
            # For example INSERT OR ROLLBACK: what came now would be committed at once.
            raise refusal("go on when its transaction was rolled back")
        self._denied = ""
        try:
            return execute(sql, parameters)
        except sqlite3.Error as error:
            if is_unavailable(error):
                self._unavailable = error
            if self._denied:
                raise refusal(f"{self._denied}: {sql.strip()[:80]!r}") from error
            raise

    def _authorize(self, action: int, first: str | None, *_: object) -> int:
        if action not in _DENIED or (action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in _PRAGMAS):
            return sqlite3.SQLITE_OK
        self._denied = _DENIED[action]
        return sqlite3.SQLITE_DENY
