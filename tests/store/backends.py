"""A memory backend that can be held up, made to fail, or overtaken by a writer of elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eventcore import EventStore, StreamId, Telemetry, open_store
from eventcore.events import EventMetadata, RecordedEvent
from eventcore.events.codec import Codec, StoredEvent
from eventcore.stores import (
    AppendRequest,
    BackendPage,
    Checkpoint,
    DeadLetter,
    EventFilter,
    Lease,
    LogPage,
    MemoryBackend,
    NewEvent,
    ProjectionRecord,
    Purpose,
    Verdict,
)
from tests.store.bank import Deposited


class SteeredBackend:
    """Implements ``Backend``; ``before_append`` is awaited before each append, and may raise."""

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

    async def open(self) -> None:
        pass

    async def close(self, timeout: float) -> None:
        pass

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        self.appends.append(len(requests))
        if self._permits is not None:
            await self._permits.acquire()
        self.before_append(requests)
        return await self.real.append(requests)

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
    ) -> BackendPage:
        return await self.real.read_streams(after, up_to=up_to)

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        return await self.real.scan(after, up_to, limit, wanted)

    async def head_position(self) -> int:
        return await self.real.head_position()

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        return await self.real.follow(after, limit, wanted)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        return await self.real.wait_beyond(position, timeout)

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        return await self.real.acquire_lease(projection, owner, seconds)

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        return await self.real.renew_lease(lease, seconds)

    async def release_lease(self, lease: Lease) -> None:
        await self.real.release_lease(lease)

    async def commit_checkpoint(
        self,
        lease: Lease,
        before: Checkpoint,
        after: Checkpoint,
        dead_letters: Sequence[DeadLetter] = (),
        apply: Callable[[Any], Any] | None = None,
    ) -> None:
        await self.real.commit_checkpoint(lease, before, after, dead_letters, apply)

    async def projections(self) -> Sequence[ProjectionRecord]:
        return await self.real.projections()

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        return await self.real.dead_letters(projection, limit)

    async def remove_dead_letter(self, letter: DeadLetter, apply: Callable[[Any], Any] | None = None) -> bool:
        return await self.real.remove_dead_letter(letter, apply)

    async def reset_projection(self, projection: str) -> None:
        await self.real.reset_projection(projection)

    def store(self, telemetry: Telemetry) -> EventStore:
        return open_store(self, telemetry=telemetry)

    def overtake(self, stream: StreamId, version: int, amount: int) -> None:
        """Append an event as another process would, behind everyone's back."""
        data, event = Codec().encode(Deposited(amount=amount))
        recorded = RecordedEvent(stream, version, 0, event, EventMetadata(), f"{version:032x}", "bank.Deposited", 1)
        request = AppendRequest({stream: version - 1}, {stream: version - 1}, [NewEvent(recorded, data, b"{}")])
        [verdict] = _drive(self.real.append([request]))
        assert verdict > 0


def _drive(coroutine: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
