"""Watching the head position of a PostgreSQL store: by notifications, and by polling, since a notification can be lost."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import StoreClosed, StoreError, StoreUnavailable
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.stores.failures import as_store_error, own_copy
from eventcore.stores.postgres.connections import Pool, one_try
from eventcore.stores.postgres.driver import Connection, PostgresError
from eventcore.stores.postgres.schema import channel

HEAD: Final = "SELECT coalesce(max(position), 0) FROM {schema}.events"
"""The statement that returns the head position."""

# Seconds between polls: with notifications, and without.
_POLL_LISTENING: Final = 1.0
_POLL_ALONE: Final = 0.1
# Seconds after a failure.
_RETRY: Final = 0.5
# The part of the timeout in which the listening connection must answer, and seconds without another attempt when it does not.
_LISTENING_PART: Final = 0.25
_WITHOUT: Final = 5.0


@final
class PostgresHeadWatch:
    """Watches in a task that the first call of ``wait_beyond`` starts. Belongs to one event loop.

    Args:
        listening: the pool of the one connection that listens. It also serves other short calls: between two polls it is free,
            and notifications arrive all the same.
        reading: polls while there is no such connection: the server grants no further one, or a call has it for long.
    """

    def __init__(self, listening: Pool, reading: Pool) -> None:
        self._listening = listening
        self._reading = reading
        self._without_until = 0.0
        # The connection on which a standby has refused LISTEN.
        self._refused: Connection | None = None
        self._head = 0
        # Whether the server was polled since the task started. Before that, `_head` is only what this process has appended.
        self._polled = False
        # The first caller that waits makes it. Most appends find none, and have nobody to wake.
        self._changed: asyncio.Event | None = None
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
                    await self._change()
        except TimeoutError:
            while not self._polled and self._failure is None:
                await self._change()
            if self._failure is not None:
                raise own_copy(self._failure) from None
        return self._head

    def advance(self, head: int) -> None:
        """Wake the waiting callers: the head position is at least ``head``."""
        if head > self._head:
            self._head = head
            self._wake()

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
            self._fail(StoreClosed("the store was closed"))

    def _fail(self, failure: StoreError) -> None:
        self._failure = failure
        self._wake()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        # A set event wakes all callers that wait now; later callers wait for a new one.
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._poll()
            except Exception as error:  # noqa: BLE001  # raised to the callers that wait
                self._fail(as_store_error(error))
                pause = _RETRY
            await asyncio.sleep(pause)

    async def _poll(self) -> float:
        """Ask the server once. Returns the seconds until the next poll."""
        before = self._head
        head, listens = await self._ask()
        # A lower position counts, too: a failover to a server that lagged has lost events. But an append during the query is
        # newer than its answer.
        if head > self._head or self._head == before:
            self._head = head
        self._polled, self._failure = True, None
        self._wake()
        return _POLL_LISTENING if listens else _POLL_ALONE

    async def _ask(self) -> tuple[int, bool]:
        """The head position, and whether notifications will arrive."""
        pool = self._listening
        timeout = pool.settings.timeout
        if monotonic() >= self._without_until:
            try:
                deadline = monotonic() + _LISTENING_PART * timeout
                async with pool.connection(deadline) as connection, asyncio.timeout(one_try(deadline)):
                    listens = pool.settings.listen and await self._listen(connection)
                    [(head,)] = await pool.rows(connection, HEAD)
                    return head, listens
            except StoreUnavailable:
                self._without_until = monotonic() + _WITHOUT
        [(head,)] = await self._reading.fetch(HEAD, timeout=(1 - _LISTENING_PART) * timeout)
        return head, False

    async def _listen(self, connection: Connection) -> bool:
        if connection is self._refused:
            return False
        try:
            # On a connection that listens already, this does nothing.
            await connection.add_listener(channel(self._listening.settings.schema), self._notified)
        except PostgresError:
            # A standby refuses LISTEN.
            self._refused = connection
            return False
        return True

    def _notified(self, connection: Any, process: int, channel: str, payload: str) -> None:
        self.advance(int(payload))
