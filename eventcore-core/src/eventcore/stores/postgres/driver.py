"""asyncpg, as far as the store uses it, with the types that it does not have itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has none: hence this module

_asyncpg: Final = cast(Any, asyncpg)
_ROLLBACK: Final = 1.0

PostgresError: Final[type[Exception]] = _asyncpg.PostgresError
"""What the server has refused; the connection goes on, unless it is closed since."""

InvalidArgument: Final[type[Exception]] = _asyncpg.exceptions.DataError
"""An argument that cannot be written as its type: nothing has been sent."""

InvalidConfiguration: Final[type[Exception]] = _asyncpg.ClientConfigurationError
"""What is in a URL, or in the files that it names, cannot be used: nobody has been called."""

FAILURES: Final[tuple[type[Exception], ...]] = (
    PostgresError,
    _asyncpg.InterfaceError,
    _asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What a call raises when the server, the way to it or the statement is at fault."""


class Transaction(Protocol):
    """What is used of ``asyncpg.transaction.Transaction``."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def commit(self) -> None:
        """Make it stand."""
        ...

    async def rollback(self) -> None:
        """Undo it."""
        ...


class Connection(Protocol):
    """What is used of ``asyncpg.Connection``, which has no types of its own."""

    async def fetch(self, query: str, *args: Any) -> Sequence[Any]:
        """The rows."""
        ...

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """The first row."""
        ...

    async def fetchval(self, query: str, *args: Any) -> Any:
        """The first value of the first row."""
        ...

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement, or without arguments several."""
        ...

    async def executemany(self, query: str, args: Sequence[Any]) -> None:
        """Run a statement for each of some arguments."""
        ...

    def transaction(self, *, isolation: str) -> Transaction:
        """A transaction, not yet begun."""
        ...

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, str], None]) -> None:
        """Listen on a channel."""
        ...

    def is_closed(self) -> bool:
        """Whether it has ended, as far as is known."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """End it in order."""
        ...

    def terminate(self) -> None:
        """End it at once."""
        ...


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncGenerator[None]:
    """A transaction in which each statement sees what others have committed.

    One that is cancelled takes its connection with it: to undo it in order would be to wait for the server.
    """
    begun = connection.transaction(isolation="read_committed")
    try:
        await begun.start()
        yield
        await begun.commit()
    except Exception:
        try:
            async with asyncio.timeout(_ROLLBACK):
                await begun.rollback()
        except FAILURES:
            connection.terminate()
        raise
    except BaseException:
        connection.terminate()
        raise


async def connect(dsn: str, timeout: float, *, statement_cache: bool) -> Connection:
    """Connect within ``timeout`` seconds; with ``statement_cache`` a statement that is used for days is prepared once."""
    connected: Connection = await _asyncpg.connect(
        dsn, timeout=timeout, statement_cache_size=100 if statement_cache else 0, max_cached_statement_lifetime=0
    )
    return connected
