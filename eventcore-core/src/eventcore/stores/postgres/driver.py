"""The part of asyncpg that the store uses, with the types that asyncpg lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has none: hence this module

_asyncpg: Final = cast(Any, asyncpg)
_ROLLBACK_TIMEOUT: Final = 1.0

PostgresError: Final[type[Exception]] = _asyncpg.PostgresError
"""The server has refused a statement. The connection can be used afterwards, unless it was closed."""

InvalidArgument: Final[type[Exception]] = _asyncpg.exceptions.DataError
"""An argument cannot be encoded as the type of its parameter. Nothing was sent."""

InvalidConfiguration: Final[type[Exception]] = _asyncpg.ClientConfigurationError
"""The URL, or a file that it names, cannot be used. No server was called."""

FAILURES: Final[tuple[type[Exception], ...]] = (
    PostgresError,
    _asyncpg.InterfaceError,
    _asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""The errors of a call: of the server, the network or the statement."""


class Transaction(Protocol):
    """The methods of ``asyncpg.transaction.Transaction`` that are used."""

    async def start(self) -> None: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


class Connection(Protocol):
    """The methods of ``asyncpg.Connection`` that are used; its documentation describes them."""

    async def fetch(self, query: str, *args: Any) -> Sequence[Any]: ...

    async def fetchrow(self, query: str, *args: Any) -> Any: ...

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    async def execute(self, query: str, *args: Any) -> str: ...

    async def executemany(self, query: str, args: Sequence[Any]) -> None: ...

    def transaction(self, *, isolation: str) -> Transaction: ...

    def is_in_transaction(self) -> bool: ...

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, str], None]) -> None: ...

    def is_closed(self) -> bool: ...

    async def close(self, *, timeout: float | None = None) -> None: ...

    def terminate(self) -> None: ...


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncGenerator[None]:
    """A transaction in which each statement sees what other transactions have committed before it (READ COMMITTED).

    When it is cancelled, its connection is closed: rolling back would mean to wait for the server.
    """
    opened = connection.transaction(isolation="read_committed")
    try:
        await opened.start()
        yield
        await opened.commit()
    except Exception:
        try:
            async with asyncio.timeout(_ROLLBACK_TIMEOUT):
                await opened.rollback()
        except FAILURES:
            connection.terminate()
        raise
    except BaseException:
        connection.terminate()
        raise


async def connect(dsn: str, timeout: float, *, statement_cache: bool) -> Connection:
    """Connect within ``timeout`` seconds. With ``statement_cache``, a connection prepares each statement once."""
    connected: Connection = await _asyncpg.connect(
        dsn, timeout=timeout, statement_cache_size=100 if statement_cache else 0, max_cached_statement_lifetime=0
    )
    return connected
