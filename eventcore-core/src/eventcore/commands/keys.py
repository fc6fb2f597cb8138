"""Idempotency keys: a command with a key is executed once, and later calls with the key get the result of the first.

The store is the only memory of keys. Each call looks its key up first, together with other calls that wait at the same time.
The append checks the key once more and stores it with the events, so of two processes that execute one command at the same time
only one does. In this process, a second call with a key waits until the first has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias, final

import msgspec

from eventcore.commands.command import CommandResult
from eventcore.commands.streams.gathering import answer, answer_all, until_settled
from eventcore.errors import CommandTimeout, IdempotencyKeyReused, StoreClosed, StoreError
from eventcore.events import RecordedEvent, StreamId
from eventcore.events.codec import Codec
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.stores.base import EventLog
from eventcore.stores.failures import as_store_error, own_copy
from eventcore.stores.paging import MAX_PAGE
from eventcore.stores.values import CommandKey, EventFilter, KeyRecord

_MAX_KEYS: Final = 512
# Calls of one command that another process keeps overtaking, each time with a key that expires before it is looked up.
_MAX_TURNS: Final = 100
_EVERY_EVENT: Final = EventFilter()
_CLOSED: Final = StoreClosed("the store was closed while an idempotency key was looked up")

_Answer: TypeAlias = Mapping[str, KeyRecord] | StoreError


class KeyKnown(Exception):
    """The append of a command was refused, because the store knows its idempotency key. ``CommandKeys`` catches it."""


class _Request(msgspec.Struct, eq=False):
    key: str
    future: asyncio.Future[_Answer]


@final
class CommandKeys:
    """Executes commands that have an idempotency key. Belongs to the event loop of the store."""

    def __init__(self, log: EventLog, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._queue: deque[_Request] = deque()
        self._serving: list[_Request] = []
        self._wake = asyncio.Event()
        self._task: OwnedTask[None] | None = None
        self._closed = False
        # The keys of commands that are being executed; each event is set when its command has ended.
        self._running: dict[str, asyncio.Event] = {}

    def start(self) -> None:
        """Start the task that looks keys up, on the running loop."""
        self._task = spawn(self._run(), "eventcore-keys")

    async def close(self) -> None:
        """Stop; calls that wait for an answer fail with ``StoreClosed``."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None

    async def execute(self, key: CommandKey, attempts: Callable[[], Awaitable[CommandResult]]) -> tuple[CommandResult, bool]:
        """The result of the first command with ``key``, and whether that was another call.

        Args:
            key: the key, and the fingerprint of the command.
            attempts: executes the command; raises ``KeyKnown`` if another process was first.

        Raises:
            IdempotencyKeyReused: the first command with the key was another one.
            StoreError: the store failed, or was closed.
        """
        for _ in range(_MAX_TURNS):
            while (running := self._running.get(key.key)) is not None:
                await running.wait()
            if (first := await self._first_result(key)) is not None:
                return first, True
            if key.key in self._running:
                # Another call has begun while this one looked the key up.
                continue
            done = self._running[key.key] = asyncio.Event()
            try:
                result = await attempts()
            except KeyKnown:
                continue
            except (StoreError, CommandTimeout):
                raise
            except Exception:
                # The command may be refused because another process has just executed it.
                if (first := await self._first_result(key)) is not None:
                    return first, True
                raise
            finally:
                del self._running[key.key]
                done.set()
            # The store decides what position a command without events has seen.
            return (result if result.events else await self._first_result(key) or result), False
        raise StoreError(
            f"the idempotency key {key.key!r:.200} expires before its first result can be read: keep keys for longer"
        )

    async def _first_result(self, key: CommandKey) -> CommandResult | None:
        """The result of the first command with a key, read from the store; ``None`` if the key is new."""
        if (record := await self._find(key.key)) is None:
            return None
        if record.fingerprint != key.fingerprint:
            raise IdempotencyKeyReused(
                f"the idempotency key {key.key!r:.200} belongs to another command (a field or the class differs): use a new "
                "key for each command, and the same key only to send it again",
                key=key.key,
            )
        events: list[RecordedEvent] = []
        last = record.first + record.events - 1
        while len(events) < record.events:
            after = record.first - 1 + len(events)
            rows = await self._log.scan(after, last, min(MAX_PAGE, last - after), _EVERY_EVENT)
            if not rows:
                raise StoreError(f"the events of the first command with the idempotency key {key.key!r:.200} are not there")
            events += [self._codec.decode(row, StreamId(row.stream_id)) for row in rows]
        return CommandResult(record.attempts, tuple(events), record.position)

    async def _find(self, key: str) -> KeyRecord | None:
        if self._closed:
            raise own_copy(_CLOSED)
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(key, future))
        self._wake.set()
        # Cancellation point: it cancels this request only, not the call that it shares with others.
        found = await future
        if isinstance(found, StoreError):
            raise own_copy(found)
        return found.get(key)

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await until_settled(self._queue, _MAX_KEYS)
                    self._serving = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_KEYS))]
                    result: _Answer
                    try:
                        result = await self._log.find_keys(list({request.key for request in self._serving}))
                    except Exception as error:  # noqa: BLE001  # becomes the answer of each request
                        result = as_store_error(error)
                    await answer_all(deque([(request.future, result) for request in self._serving]))
        finally:
            # However this task ends, answer every waiting call.
            self._closed = True
            for request in (*self._serving, *self._queue):
                answer(request.future, _CLOSED)
