"""asyncpg, as far as the store uses it, with the types that it does not have itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has none: hence this module

__all__ = ["FAILURES", "Connection", "InvalidArgument", "InvalidConfiguration", "PostgresError", "connect"]

_asyncpg: Final = cast(Any, asyncpg)

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

    def transaction(self, *, isolation: str | None = None) -> AbstractAsyncContextManager[None]:
        """A transaction."""
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


async def connect(dsn: str, timeout: float, *, statement_cache: bool) -> Connection:
    """Connect within ``timeout`` seconds; with ``statement_cache`` a statement that is used for days is prepared once."""
    connected: Connection = await _asyncpg.connect(
        dsn, timeout=timeout, statement_cache_size=100 if statement_cache else 0, max_cached_statement_lifetime=0
    )
    return connected
