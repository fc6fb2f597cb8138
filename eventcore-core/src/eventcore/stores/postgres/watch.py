"""Watching the head position of a PostgreSQL store: by notifications, and by polling, since a notification can be lost."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import StoreClosed, StoreError
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.stores.failures import as_store_error, own_copy
from eventcore.stores.postgres.connections import Connector, close
from eventcore.stores.postgres.driver import FAILURES, Connection, PostgresError, transaction
from eventcore.stores.postgres.errors import explained
from eventcore.stores.postgres.schema import channel, for_schema

HEAD: Final = "SELECT coalesce(max(position), 0) FROM {schema}.events"
"""The statement that returns the head position."""

# Seconds between polls: with notifications, and without.
_POLL_LISTENING: Final = 1.0
_POLL_ALONE: Final = 0.1
# Seconds after a failure.
_RETRY: Final = 0.5
_CLOSE_TIMEOUT: Final = 1.0


@final
class PostgresHeadWatch:
    """Watches over one connection, in a task that the first call of ``wait_beyond`` starts. Belongs to one event loop.

    Args:
        connector: opens the connection.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._head = 0
        # Whether the server was polled since the task started. Before that, `_head` is only what this process has appended.
        self._polled = False
        self._changed = asyncio.Event()
        self._failure: StoreError | None = None
        self._task: OwnedTask[None] | None = None

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``.

        The first wait may take longer than ``timeout``: it ends when the server has answered once, or could not be reached
        within the timeout of the settings.

        Raises:
            StoreError: the timeout is over, and the head position is not known since the server cannot be reached.
        """
        if self._task is None:
            self._polled, self._failure = False, None
            self._task = spawn(self._run(), "eventcore-postgres-watch")
        try:
            async with asyncio.timeout(timeout):
                while self._head <= position:
                    await self._changed.wait()
        except TimeoutError:
            while not self._polled and self._failure is None:
                await self._changed.wait()
            if self._failure is not None:
                raise own_copy(self._failure) from None
        return self._head

    def advance(self, head: int) -> None:
        """Wake the waiting callers: the head position is at least ``head``."""
        if head > self._head:
            self._head = head
            self._wake()

    async def close(self) -> None:
        """End the task, which closes its connection."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
            self._fail(StoreClosed("the store was closed"))

    def _fail(self, failure: StoreError) -> None:
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        # A set event wakes all callers that wait now; later callers wait for a new one.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self) -> None:
        settings = self._connector.settings
        while True:
            try:
                connection = await self._connector.patiently(monotonic() + settings.timeout)
                try:
                    await self._poll(connection)
                except FAILURES as error:
                    connection.terminate()
                    raise explained(error, settings.address) from error
                finally:
                    await close(connection, _CLOSE_TIMEOUT)
            except Exception as error:  # noqa: BLE001  # raised to the callers that wait
                self._fail(as_store_error(error))
            await asyncio.sleep(_RETRY)

    async def _poll(self, connection: Connection) -> None:
        settings = self._connector.settings
        pause = _POLL_LISTENING if settings.listen and await self._listen(connection) else _POLL_ALONE
        query = for_schema(HEAD, settings.schema)
        while True:
            before = self._head
            async with asyncio.timeout(settings.timeout), transaction(connection):
                head = await connection.fetchval(query)
            # A lower position counts, too: a failover to a server that lagged has lost events. But an append during the query
            # is newer than its answer.
            if head > self._head or self._head == before:
                self._head = head
            self._polled, self._failure = True, None
            self._wake()
            await asyncio.sleep(pause)

    async def _listen(self, connection: Connection) -> bool:
        settings = self._connector.settings
        try:
            async with asyncio.timeout(settings.timeout):
                await connection.add_listener(channel(settings.schema), self._notified)
        except PostgresError:
            # A standby refuses LISTEN.
            return False
        return True

    def _notified(self, connection: Any, process: int, channel: str, payload: str) -> None:
        self.advance(int(payload))
