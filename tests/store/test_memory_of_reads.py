"""Streams that are too large for a page are read page by page: few pages are held at once, and none afterwards."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated, Any

import pytest

from eventcore import Command, Event, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.events import StreamState
from eventcore.stores import BackendPage, Purpose, StateKey
from eventcore.stores.paging import PAGE_BYTES
from tests.store.backends import SteeredBackend
from tests.store.bank import account

_LARGE = PAGE_BYTES // 8
_EVENTS = 12


class Attached(Event):
    event_type = "memory.Attached"
    text: str


class Attachments(StreamState):
    count: int = 0

    def apply(self, event: RecordedEvent) -> None:
        self.count += 1


class Attach(Command[None]):
    account: StreamId

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        yield self.account, Attached(text="x" * _LARGE)


class CountByFolding(Command[int]):
    account: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + 1

    def handle(self, state: int) -> Iterator[tuple[StreamId, Event]]:
        assert state >= _EVENTS
        yield self.account, Attached(text="")


class CountTogether(CountByFolding):
    other: StreamId


class CountInState(Command[Mapping[StreamId, Attachments]]):
    account: Annotated[StreamId, Attachments]

    def handle(self, state: Mapping[StreamId, Attachments]) -> Iterator[tuple[StreamId, Event]]:
        assert state[self.account].count >= _EVENTS
        yield self.account, Attached(text="")


async def fill(backend: SteeredBackend, telemetry: Telemetry, *streams: StreamId) -> None:
    async with backend.store(telemetry) as store:
        for stream in streams:
            for _ in range(_EVENTS):
                await store.execute(Attach(account=stream))


@contextmanager
def without_collector() -> Generator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def held() -> int:
    """Bytes of the decoded events."""
    codec = [tracemalloc.Filter(True, "*/eventcore/events/codec.py")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(codec).traces)


A, B = account("a"), account("b")


@pytest.mark.parametrize(
    "command",
    [CountByFolding(account=A), CountInState(account=A), CountTogether(account=A, other=B)],
    ids=lambda one: type(one).__name__,
)
async def test_no_event_of_a_read_is_left_to_the_garbage_collector(command: Command[Any], telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    await fill(backend, telemetry, A, B)
    tracemalloc.start()
    try:
        # The cache can hold none of the events.
        async with open_store(backend, telemetry=telemetry, cache_bytes=_LARGE) as store:
            await store.execute(command)
            with without_collector():
                before = held()
                for _ in range(5):
                    await store.execute(command)
                assert held() - before < PAGE_BYTES
    finally:
        tracemalloc.stop()


class CountedPages(SteeredBackend):
    """Counts the reads of further pages that run at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most = self.pages = 0

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = MappingProxyType({}),
    ) -> BackendPage:
        self.pages += up_to is not None
        self.running += up_to is not None
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        page = await super().read_streams(after, up_to=up_to, origins=origins, purpose=purpose, snapshots=snapshots)
        self.running -= up_to is not None
        return page


async def test_many_long_streams_are_read_with_few_pages_at_once(telemetry: Telemetry) -> None:
    backend = CountedPages()
    streams = [account(number) for number in range(12)]
    await fill(backend, telemetry, *streams)
    async with asyncio.timeout(30), open_store(backend, telemetry=telemetry, cache_bytes=_LARGE) as store:
        await asyncio.gather(*(store.execute(CountByFolding(account=stream)) for stream in streams))
    assert backend.pages >= 12
    assert backend.most == 4
