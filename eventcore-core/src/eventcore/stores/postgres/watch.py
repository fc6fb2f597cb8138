"""Watching the head position: by notifications, and by asking now and then, since a notification can be lost."""

from __future__ import annotations

import asyncio
import contextvars
from time import monotonic
from typing import Any, Final, final

from eventcore.errors import StoreError
from eventcore.stores.failures import own_copy
from eventcore.stores.postgres.connections import Connector, close
from eventcore.stores.postgres.driver import FAILURES, Connection, PostgresError, transaction
from eventcore.stores.postgres.errors import explained

_POLL_LISTENING: Final = 1.0
_POLL_ALONE: Final = 0.1
_RETRY: Final = 0.5
_CLOSE_TIMEOUT: Final = 1.0


@final
class PostgresHeadWatch:
    """Keeps a connection of its own, from the first time that somebody waits.

    Args:
        connector: makes the connection.
        channel: where notifications come; ``None`` where they do not come through, so that only asking is left.
        question: the statement that returns the head position.
        timeout: seconds to wait for a connection or an answer.
    """

    def __init__(self, connector: Connector, channel: str | None, question: str, timeout: float) -> None:
        self._connector = connector
        self._channel = channel
        self._question = question
        self._timeout = timeout
        self._head = 0
        self._changed = asyncio.Event()
        self._failure: StoreError | None = None
        self._task: asyncio.Task[None] | None = None

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """The head position once it is above ``position``, or after ``timeout`` seconds.

        Raises:
            StoreError: it cannot be known, since the server cannot be reached.
        """
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="eventcore-postgres-watch", context=contextvars.Context()
            )
        try:
            async with asyncio.timeout(timeout):
                while self._head <= position:
                    await self._changed.wait()
        except TimeoutError:
            if self._failure is not None:
                raise own_copy(self._failure) from None
        return self._head

    def notified(self, head: int) -> None:
        """Somebody has seen that the head position is as high as that."""
        if head > self._head:
            self._set(head)

    async def close(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def _set(self, head: int) -> None:
        self._head = head
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._connector.patiently(monotonic() + self._timeout)
            except StoreError as error:
                self._failure = error
                await asyncio.sleep(_RETRY)
                continue
            try:
                await self._ask_again_and_again(connection)
            except FAILURES as error:
                self._failure = explained(error, self._connector.address)
                connection.terminate()
            finally:
                await close(connection, _CLOSE_TIMEOUT)

    async def _ask_again_and_again(self, connection: Connection) -> None:
        pause = _POLL_ALONE
        if self._channel is not None and await self._listen(connection, self._channel):
            pause = _POLL_LISTENING
        while True:
            async with asyncio.timeout(self._timeout), transaction(connection):
                head = await connection.fetchval(self._question)
            self._failure = None
            # Also when it is lower: after a failover to a server that lags, what was heard before is no longer true.
            if head != self._head:
                self._set(head)
            await asyncio.sleep(pause)

    async def _listen(self, connection: Connection, channel: str) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                await connection.add_listener(channel, self._heard)
        except PostgresError:
            # A standby sends no notifications.
            return False
        return True

    def _heard(self, connection: Any, process: int, channel: str, payload: str) -> None:
        self.notified(int(payload))
