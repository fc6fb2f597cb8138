"""A memory backend whose appends can be delayed, made to fail, or overtaken by another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from eventcore import EventStore, StreamId, Telemetry, open_store
from eventcore.events import EventMetadata, RecordedEvent
from eventcore.events.codec import Codec, StoredEvent
from eventcore.stores import (
    AppendRequest,
    BackendPage,
    Checkpoint,
    EventFilter,
    EventLog,
    KeyRecord,
    LogPage,
    MemoryBackend,
    NewEvent,
    ProjectionLedger,
    Purpose,
    Redaction,
    Snapshot,
    StateKey,
    Verdict,
)
from tests.store.bank import Deposited


class SteeredBackend:
    """Implements ``Backend``: its own event log, and the ledger of a memory backend.

    The methods of ``EventLog`` stand here, so that a subclass can override them; ``log`` is the backend itself.

    Attributes:
        real: the backend that does the work.
        before_append: called before each append; may raise.
        appends: the number of requests of each append.
    """

    system = "memory"

    def __init__(self) -> None:
        self.real = MemoryBackend()
        self.appends: list[int] = []
        self._permits: asyncio.Semaphore | None = None
        self.before_append: Callable[[Sequence[AppendRequest]], None] = lambda requests: None

    def hold(self) -> None:
        """From now on appends wait for ``let_one`` or ``let_all``."""
        self._permits = asyncio.Semaphore(0)

    def let_one(self) -> None:
        assert self._permits is not None
        self._permits.release()

    def let_all(self) -> None:
        if self._permits is not None:
            for _ in range(1000):
                self._permits.release()
            self._permits = None

    @property
    def log(self) -> EventLog:
        return self

    @property
    def ledger(self) -> ProjectionLedger:
        return self.real.ledger

    async def open(self) -> None:
        pass

    async def close(self, timeout: float) -> None:
        pass

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        self.appends.append(len(requests))
        if self._permits is not None:
            await self._permits.acquire()
        self.before_append(requests)
        return await self.real.log.append(requests)

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        return await self.real.log.find_keys(keys)

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = MappingProxyType({}),
    ) -> BackendPage:
        return await self.real.log.read_streams(after, up_to=up_to, snapshots=snapshots)

    async def save_snapshots(self, snapshots: Mapping[StreamId, Snapshot]) -> None:
        await self.real.log.save_snapshots(snapshots)

    async def find_event(self, event_id: str) -> StoredEvent | None:
        return await self.real.log.find_event(event_id)

    async def redact(self, event_id: str, data: bytes, reason: str, *, position: int | None = None) -> Redaction | None:
        return await self.real.log.redact(event_id, data, reason, position=position)

    async def check_redactions(self) -> None:
        await self.real.log.check_redactions()

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        return await self.real.log.scan(after, up_to, limit, wanted)

    async def head_position(self) -> int:
        return await self.real.log.head_position()

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        return await self.real.log.follow(after, limit, wanted)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        return await self.real.log.wait_beyond(position, timeout)

    def store(self, telemetry: Telemetry) -> EventStore:
        return open_store(self, telemetry=telemetry)

    def overtake(self, stream: StreamId, version: int, amount: int) -> None:
        """Append an event as another process would, without the store's knowledge."""
        data, event = Codec().encode(Deposited(amount=amount))
        recorded = RecordedEvent(stream, version, 0, event, EventMetadata(), f"{version:032x}", "bank.Deposited", 1)
        request = AppendRequest({stream: version - 1}, {stream: version - 1}, [NewEvent(recorded, data, b"{}")])
        [verdict] = _drive(self.real.log.append([request]))
        assert verdict > 0


def _drive(coroutine: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
