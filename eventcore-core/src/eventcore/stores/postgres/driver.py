"""The part of asyncpg that the store uses, with the types that asyncpg lacks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
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

    def get_server_pid(self) -> int: ...

    def is_closed(self) -> bool: ...

    async def close(self, *, timeout: float | None = None) -> None: ...

    def terminate(self) -> None: ...


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncGenerator[None]:
    """A transaction in which each statement sees what other transactions have committed before it (READ COMMITTED).

    When it is cancelled, or cannot be rolled back, the connection is left inside of it: rolling back would mean to wait for the
    server. The pool ends such a connection.
    """
    opened = connection.transaction(isolation="read_committed")
    try:
        await opened.start()
        yield
        await opened.commit()
    except Exception:
        with suppress(*FAILURES):
            async with asyncio.timeout(_ROLLBACK_TIMEOUT):
                await opened.rollback()
        raise


async def connect(
    dsn: str, timeout: float, *, statement_cache: bool, server_settings: Mapping[str, str], keep_alive: float
) -> Connection:
    """Connect within ``timeout`` seconds.

    Args:
        dsn: the URL for asyncpg.
        timeout: seconds.
        statement_cache: whether the connection prepares each statement once.
        server_settings: sent to the server as start-up parameters.
        keep_alive: seconds after which the operating system asks a silent server whether it is still there.
    """
    connected: Connection = await _asyncpg.connect(
        dsn,
        timeout=timeout,
        statement_cache_size=100 if statement_cache else 0,
        max_cached_statement_lifetime=0,
        server_settings=dict(server_settings),
    )
    _keep_alive(connected, max(1, round(keep_alive)))
    return connected


def shut_down(connection: Connection) -> None:
    """End the session of a connection that its event loop, which is closed, cannot close. Its file is closed once collected."""
    # Shut down or closed already. The sockets of uvloop are closed together with it.
    with suppress(OSError, TypeError):
        if (found := _socket_of(connection)) is not None and found.fileno() != -1:
            found.shutdown(socket.SHUT_RDWR)


def _socket_of(connection: Connection) -> Any:
    # asyncpg offers no way to its socket; where a release hides it, only what is done with it is lost.
    transport: Any = getattr(connection, "_transport", None)
    return transport.get_extra_info("socket") if transport is not None else None


def _keep_alive(connection: Connection, seconds: int) -> None:
    """Find out that the server's machine has vanished, which the operating system does by default after two hours."""
    found = _socket_of(connection)
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Not every system has all of these options. The last one is in milliseconds: how long sent bytes may stay unconfirmed.
    for option, value in (
        ("TCP_KEEPIDLE", seconds),
        ("TCP_KEEPINTVL", max(1, seconds // 3)),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 2000 * seconds),
    ):
        if (number := getattr(socket, option, None)) is not None:
            found.setsockopt(socket.IPPROTO_TCP, number, value)
