"""The transaction that a handler of a projection gets on PostgreSQL: it can read and write, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, NoReturn, final

from eventcore.errors import InvalidProjection, StoreUnavailable
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.stores.failures import is_caused_by, refusal
from eventcore.stores.postgres.driver import FAILURES, Connection, PostgresError
from eventcore.stores.postgres.errors import explained
from eventcore.stores.postgres.ledger.scripts import forbidden

# Coroutine methods of asyncpg's connection. The first argument of these is a statement:
_STATEMENTS: Final = ("execute", "executemany", "fetch", "fetchmany", "fetchrow", "fetchval", "prepare", "copy_from_query")
# These take names and values.
_COPIES: Final = ("copy_from_table", "copy_records_to_table", "copy_to_table")
_PLAIN: Final = ("get_server_pid", "get_server_version", "get_settings", "is_closed", "is_in_transaction")
_REFUSED: Final = ("close", "terminate", "reset", "add_listener", "remove_listener", "add_termination_listener")
_MAX_FAILURES: Final = 100
# Errors of asyncpg after another session has changed a table: the same call works when it is sent again.
_OUTDATED: Final = ("InvalidCachedStatementError", "OutdatedSchemaCacheError")


@final
class PostgresTransaction:
    """The transaction of a handler, with the methods of ``asyncpg.Connection`` that read and write.

    ``transaction()`` opens a savepoint. What ends the transaction, changes the session or would outlive the handler raises
    ``InvalidProjection`` and is not sent: ``close``, ``terminate``, ``reset``, and statements such as ``COMMIT``, ``ROLLBACK``,
    ``BEGIN``, ``SET`` (without ``LOCAL``), ``LISTEN`` and ``DISCARD``, also inside a script. When the handler has ended, every
    use of the transaction and of what it has returned raises ``InvalidProjection``.

    Its calls wait for each other, as one connection runs one statement at a time.
    """

    def __init__(
        self, connection: Connection, address: str, own_io: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._connection: Any = connection
        self._address = address
        self._own_io = own_io
        self._running = asyncio.Lock()
        self._ended = False
        self._beating = False
        self._heart: OwnedTask[None] | None = None
        # The errors of calls that say nothing about the event.
        self._failures: list[Exception] = []

    def __getattr__(self, name: str) -> Any:
        if name in _REFUSED:
            raise refusal(f"call {name} of its connection")
        if name in _STATEMENTS:
            return self._statement(name)
        if name in _COPIES:
            return _Guarded(self, getattr(self._connection, name))
        if name in _PLAIN:
            return getattr(self.opened(), name)
        raise AttributeError(
            f"a handler's transaction has no {name!r}; it has cursor, transaction, "
            f"{', '.join((*_STATEMENTS, *_COPIES, *_PLAIN))}"
        )

    def transaction(self, **options: Any) -> Any:
        """A savepoint, as ``asyncpg.Connection.transaction`` inside a transaction."""
        return _Kept(self, self.opened().transaction(**options))

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        """As ``asyncpg.Connection.cursor``."""
        _check(query)
        return _Kept(self, self.opened().cursor(query, *args, **options))

    def opened(self) -> Any:
        """The connection. Raises ``InvalidProjection`` after the handler has ended."""
        if self._ended:
            raise refusal("use its transaction after it has ended; await everything before")
        return self._connection

    async def call(self, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Await a coroutine function of the connection, or of an object that the connection has returned."""
        async with self._running:
            self.opened()
            try:
                return await function(*args, **kwargs)
            except FAILURES as error:
                if len(self._failures) < _MAX_FAILURES and self._is_unavailable(error):
                    self._failures.append(error)
                raise

    def keep_alive(self, seconds: float) -> None:
        """Send an empty statement after each pause of ``seconds``, until ``end``.

        The server ends a transaction whose client is silent for too long, so that a stopped process cannot keep its locks. A
        handler that works on something else meanwhile is not stopped.
        """
        self._heart = spawn(self._beat(seconds), "eventcore-projection-keep-alive")

    async def end(self, *, cancelled: bool = False) -> None:
        """End the use of the connection by the handler.

        Raises:
            InvalidProjection: a task of the handler still runs a call. The connection cannot be used any more.
        """
        self._ended = True
        left_running = self._running.locked() and not self._beating
        if not cancelled and not left_running:
            # The heart is in its pause afterwards, where cancelling it breaks no statement off.
            async with self._running:
                pass
        if self._heart is not None:
            await cancel_and_wait(self._heart)
        if left_running:
            self._connection.terminate()
            if not cancelled:
                raise refusal("leave a call of its transaction running; await it")

    def unavailable(self, error: Exception | None) -> StoreUnavailable | None:
        """The failure of the server or the network that has ended the handler, whatever the handler made of it.

        Args:
            error: what the handler, or the end of the transaction, has raised.
        """
        if isinstance(error, InvalidProjection):
            return None
        for failure in self._failures:
            if error is None or is_caused_by(error, failure):
                reason = explained(failure, self._address)
                return reason if isinstance(reason, StoreUnavailable) else StoreUnavailable(str(reason))
        if self._connection.is_closed():
            return StoreUnavailable(f"the connection to PostgreSQL at {self._address} was lost inside a transaction")
        return None

    def _statement(self, name: str) -> Callable[..., Awaitable[Any]]:
        function = getattr(self.opened(), name)

        async def call(query: str, *args: Any, **kwargs: Any) -> Any:
            _check(query)
            result = await self.call(function, query, *args, **kwargs)
            return _Kept(self, result) if name == "prepare" else result

        return call

    def _is_unavailable(self, error: Exception) -> bool:
        if isinstance(error, PostgresError):
            return type(error).__name__ in _OUTDATED or isinstance(explained(error, self._address), StoreUnavailable)
        # asyncpg raises an InterfaceError also for a wrong call of the handler.
        return isinstance(error, (OSError, TimeoutError)) or self._connection.is_closed()

    async def _beat(self, seconds: float) -> None:
        while not self._ended:
            await asyncio.sleep(seconds)
            if self._ended or self._running.locked():
                continue
            async with self._running:
                self._beating = True
                try:
                    # Refused when an earlier statement has failed, which shows the server as well that the client is there.
                    with suppress(*FAILURES), self._own_io():
                        await self._connection.execute("SELECT")
                finally:
                    self._beating = False


class _Guarded:
    """A coroutine method that runs only while its transaction is open."""

    def __init__(self, transaction: PostgresTransaction, function: Callable[..., Any]) -> None:
        self._transaction = transaction
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._transaction.opened()
        if inspect.iscoroutinefunction(inspect.unwrap(self._function)):
            return self._transaction.call(self._function, *args, **kwargs)
        result = self._function(*args, **kwargs)
        return _Kept(self._transaction, result) if hasattr(result, "__aiter__") else result


class _Kept:
    """A savepoint, cursor or prepared statement of a handler: usable as it is, while its transaction is open."""

    def __init__(self, transaction: PostgresTransaction, target: Any) -> None:
        self._transaction = transaction
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self._target).__name__} has no public attribute {name!r}")
        value = getattr(self._target, name)
        return _Guarded(self._transaction, value) if callable(value) else value

    async def __aenter__(self) -> Any:
        await self._transaction.call(self._target.__aenter__)
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._transaction.call(self._target.__aexit__, *error)

    def __await__(self) -> Generator[Any, Any, _Kept]:
        return self._open().__await__()

    async def _open(self) -> _Kept:
        return _Kept(self._transaction, await self._transaction.call(_awaited, self._target))

    def __aiter__(self) -> _Kept:
        self._transaction.opened()
        return _Kept(self._transaction, self._target.__aiter__())

    async def __anext__(self) -> Any:
        return await self._transaction.call(self._target.__anext__)


async def _awaited(target: Any) -> Any:
    return await target


def _check(query: str) -> None:
    if found := forbidden(query):
        _refuse(found)


def _refuse(found: str) -> NoReturn:
    raise refusal(found)
