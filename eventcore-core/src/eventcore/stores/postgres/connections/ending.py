"""Ends connections of which the state is unknown, and knows when the server has ended its side of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import StoreError
from eventcore.ground import OwnedTask, backoff, cancel_and_wait, spawn
from eventcore.stores.postgres.connections.places import Places
from eventcore.stores.postgres.driver import FAILURES, Connection
from eventcore.stores.postgres.errors import SILENT_SERVER
from eventcore.stores.postgres.settings import PostgresSettings

_FIRST_DELAY: Final = 0.05
_MAX_DELAY: Final = 1.0
# Seconds, and part of the timeout, in which a server that is there confirms the end of a connection.
_END_TIMEOUT: Final = 2.0
_END_PART: Final = 0.25


@final
class Ending:
    """The connections that are being ended. Belongs to one event loop.

    Args:
        settings: the settings of the store.
        places: where the place of a connection is given back when the server has ended its side.
        terminate: terminates a session by the number of its process, if it began more than so many seconds ago, over another
            connection; returns whether there was one, and raises ``StoreError`` when the server cannot be asked.
    """

    def __init__(self, settings: PostgresSettings, places: Places, terminate: Callable[[int, float], Awaitable[bool]]) -> None:
        self._settings = settings
        self._places = places
        self._terminate = terminate
        # One after the other: if every connection hangs, the first check gets none and gives its session up, and with that one
        # the others can check.
        self._terminating = asyncio.Lock()
        self._ending: set[OwnedTask[Any]] = set()
        self._remaining: set[OwnedTask[None]] = set()
        self._is_open = False
        self._is_closed = False

    def open(self) -> None:
        """Wait for the server's side of each connection that is ended from now on."""
        self._is_open, self._is_closed = True, False

    def begin_to_close(self) -> None:
        """No longer wait for ends that the server does not confirm: the store is closing and needs no more places."""
        self._is_open = False

    async def wait(self, deadline: float) -> None:
        """Wait for the connections that are being ended, until ``deadline`` (of ``time.monotonic``)."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=max(0.05, deadline - monotonic()))

    async def close(self) -> None:
        """Drop the connections that are still being ended."""
        self._is_closed = True
        await asyncio.gather(*(cancel_and_wait(task) for task in (*self._ending, *self._remaining)))

    @property
    def timeout(self) -> float:
        """Seconds in which a server that is there confirms the end of a connection."""
        return max(0.05, min(_END_TIMEOUT, _END_PART * self._settings.timeout))

    def silence(self) -> str:
        """What shows that the server does not answer: ends of connections that it has not confirmed; empty for none."""
        if not self._remaining:
            return ""
        return (
            f"PostgreSQL at {self._settings.address} does not answer: {SILENT_SERVER}. Calls fail until it answers again (for "
            f"{self.timeout:g} s or more it has not confirmed the end of {len(self._remaining)} of this store's connections)"
        )

    def end(self, connection: Connection, began: float) -> None:
        """End a connection. If a statement is running on it, it was sent after ``began`` (of ``time.monotonic``)."""
        if self._is_closed:
            # The call has ended after the store was closed, so a task would have no owner.
            connection.terminate()
            return
        task = spawn(self._end(connection, began), "eventcore-postgres-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def end_when_made(self, attempt: OwnedTask[Connection]) -> None:
        """End the connection that an attempt to connect will perhaps make."""
        self._ending.add(attempt)
        attempt.add_done_callback(self._made)

    def _made(self, attempt: OwnedTask[Connection]) -> None:
        self._ending.discard(attempt)
        if attempt.cancelled() or attempt.exception() is not None:
            self._places.give_back()
        else:
            self.end(attempt.result(), monotonic())

    async def _end(self, connection: Connection, began: float) -> None:
        pid = None if connection.is_closed() else connection.get_server_pid()
        confirmed = False
        try:
            confirmed = await _close(connection, self.timeout)
        finally:
            # Behind pgbouncer there is nothing to wait for: it limits the connections to the server itself.
            if confirmed or pid is None or not self._settings.statement_cache or not self._is_open:
                self._places.give_back()
            else:
                task = spawn(self._until_gone(pid, began), "eventcore-postgres-gone")
                self._remaining.add(task)
                task.add_done_callback(self._remaining.discard)

    async def _until_gone(self, pid: int, began: float) -> None:
        """Wait until the server no longer has a session whose end it has not confirmed."""
        ended, checks = monotonic(), 1
        try:
            while await self._found_and_terminated(pid, ended):
                await asyncio.sleep(backoff(checks, _FIRST_DELAY, _MAX_DELAY))
                checks += 1
        except StoreError:
            # The server is away. At the latest its statement_timeout ends the statement; it then finds the connection closed.
            await asyncio.sleep(max(0.0, began + self._settings.timeout - monotonic()))
        finally:
            self._places.give_back()

    async def _found_and_terminated(self, pid: int, ended: float) -> bool:
        async with self._terminating:
            return await self._terminate(pid, monotonic() - ended)


async def _close(connection: Connection, timeout: float) -> bool:
    """Close a connection. A statement that is still running is cancelled first, and the server's answer to that is awaited.

    Returns whether the server has ended its side within ``timeout`` seconds; if not, the connection is dropped.
    """
    try:
        # Both limits: older releases of asyncpg wait outside of their own for the answer to the cancellation.
        async with asyncio.timeout(timeout):
            await connection.close(timeout=timeout)
    except FAILURES:
        connection.terminate()
        return False
    except BaseException:
        connection.terminate()
        raise
    return True
