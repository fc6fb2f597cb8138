"""Faults that users reported to the public trackers of other event stores: ours must not have them."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import pytest

from eventcore import (
    BusinessRuleViolation,
    Command,
    Event,
    EventStore,
    RecordedEvent,
    StreamId,
    StreamState,
    Telemetry,
    open_store,
)
from eventcore.stores import Snapshot, StateKey
from eventcore.stores.urls import backend_from_url
from tests.projections.models import Seen
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Deposited, Transfer, account

A, B, C = account("a"), account("b"), account("c")
MB = 1_000_000


class Filed(Event):
    event_type = "reports.Filed"
    text: str


class File(Command[None]):
    """Writes a large event into a stream; its own state is what it has read."""

    account: StreamId
    size: int
    count: int = 1

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        return ((self.account, Filed(text="x" * self.size)) for _ in range(self.count))


class FileAfterReading(Command[int]):
    account: StreamId
    size: int

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + 1

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Filed(text=f"{state % 10}" * self.size)


class DepositMany(Command[None]):
    account: StreamId
    count: int

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        return ((self.account, Deposited(amount=1)) for _ in range(self.count))


class Summed(StreamState, version=1, snapshot_every=10):
    total: int = 0

    def apply(self, event: RecordedEvent) -> None:
        self.total += event.data.amount if isinstance(event.data, Deposited) else 0


class AddTotal(Command[Mapping[StreamId, Summed]]):
    account: Annotated[StreamId, Summed]

    def handle(self, state: Mapping[StreamId, Summed]) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=state[self.account].total)


@pytest.fixture
def durable_url(url: str) -> str:
    if url == "memory:":
        pytest.skip("what a store in memory holds counts as memory, and two of them share nothing")
    return url


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """The block must not need more memory than ``limit`` bytes at any time."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MB:.0f} MB"


async def amounts(store: EventStore, stream: StreamId) -> list[int]:
    return [event.data.amount async for event in store.read(stream)]  # type: ignore[attr-defined]  # they all have it


async def test_a_cache_of_streams_does_not_grow_with_all_that_passes_through(durable_url: str, telemetry: Telemetry) -> None:
    """NEventStore/NEventStore#36: the list of streams and their events grows for ever; 100,000 appends take all memory."""
    async with open_store(durable_url, telemetry=telemetry) as store:
        with at_most(110 * MB):
            for number in range(500):
                await store.execute(FileAfterReading(account=account(number), size=250_000))


async def test_a_stream_of_large_events_is_read_a_few_at_a_time(durable_url: str, telemetry: Telemetry) -> None:
    """kurrent-io/KurrentDB#403: a read takes all memory, perhaps a large batch or huge events; the store stops answering."""
    async with open_store(durable_url, telemetry=telemetry) as store:
        for _ in range(12):
            await store.execute(File(account=A, size=900_000, count=10))
    async with open_store(durable_url, telemetry=telemetry) as store:
        with at_most(60 * MB):
            assert [event.version async for event in store.read(A)] == list(range(1, 121))


async def test_many_commands_at_once_on_a_long_stream_read_it_once(telemetry: Telemetry) -> None:
    """rommsen/EventSourcing-DIY#7: a thousand commands at once on a stream of 10,000 events become very slow."""
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        for _ in range(10):
            await store.execute(DepositMany(account=A, count=1000))
    rows, log = 0, backend.real.log
    read = log.read_streams

    async def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal rows
        page = await read(*arguments, **options)
        rows += sum(map(len, page.rows.values()))
        return page

    log.read_streams = counting  # type: ignore[method-assign]  # counted here only
    again = SteeredBackend()
    again.real = backend.real
    async with again.store(telemetry) as store:
        await asyncio.gather(*(store.execute(Deposit(account=A)) for _ in range(20)))
        assert await store.head_position() == 10_020
    assert rows < 2 * 10_000


async def test_racing_appends_are_stored_or_refused_and_never_lost(durable_url: str, telemetry: Telemetry) -> None:
    """Eventuous/eventuous#582: appends that race on one stream report success, but some are not stored (PostgreSQL)."""
    async with (
        open_store(durable_url, telemetry=telemetry) as one,
        open_store(durable_url, telemetry=telemetry, name="2") as two,
    ):
        results = await asyncio.gather(*(store.execute(Deposit(account=A)) for _ in range(40) for store in (one, two)))
        versions = [event.version for result in results for event in result.events]
        assert sorted(versions) == list(range(1, 81))
        assert [event.event_id async for event in two.read(A)] == [
            event.event_id
            for event in sorted((event for result in results for event in result.events), key=lambda event: event.version)
        ]


async def test_a_refused_decision_leaves_nothing_behind(store: EventStore) -> None:
    """disintegrate-es/disintegrate#205: events are stored outside the transaction that checks the decision."""
    await store.execute(Deposit(account=A, amount=5))
    results = await asyncio.gather(
        *(store.execute(Transfer(source=A, target=B, amount=1)) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, BusinessRuleViolation) for result in results) == 15
    assert len(await amounts(store, A)) == 6
    assert len(await amounts(store, B)) == 5


async def test_refused_appends_leave_no_gap_that_readers_wait_for(durable_url: str, telemetry: Telemetry) -> None:
    """JasperFx/marten#4749, #2245: an append that violates a constraint leaves a gap in the positions; readers wait there."""
    async with (
        open_store(durable_url, telemetry=telemetry) as one,
        open_store(durable_url, telemetry=telemetry, name="2") as two,
    ):
        seen = Seen()
        running = asyncio.create_task(one.run(seen))
        try:
            # Each store decides on its cache, so appends are refused all the time.
            for _ in range(15):
                await asyncio.gather(one.execute(Deposit(account=A)), two.execute(Deposit(account=A)))
            assert await one.head_position() == 30
            await one.wait_for(seen, 30, timeout=10)
            assert seen.positions == list(range(1, 31))
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_a_projection_that_is_stopped_while_it_catches_up_skips_nothing(store: EventStore) -> None:
    """commanded/eventstore#327: a checkpoint that is written while a subscription catches up skips millions of events."""
    for _ in range(3):
        await store.execute(DepositMany(account=A, count=1000))
    seen = Seen()
    for stop_at in (500, 1500, 3000):
        running = asyncio.create_task(store.run(seen))
        await store.wait_for(seen, stop_at, timeout=10)
        running.cancel()
        await asyncio.wait([running])
    assert sorted(set(seen.positions)) == list(range(1, 3001))


async def test_a_projection_of_an_empty_store_has_caught_up(store: EventStore) -> None:
    """JasperFx/marten#2597: a projection cannot be rebuilt while there are no events."""
    seen = Seen()
    running = asyncio.create_task(store.run(seen))
    try:
        await store.wait_for(seen, 0, timeout=10)
        await store.execute(Deposit(account=A))
        await store.wait_for(seen, 1, timeout=10)
        assert seen.positions == [1]
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_snapshot_that_is_ahead_of_the_events_is_never_used(url: str, telemetry: Telemetry) -> None:
    """hnaderi/edomata#389: a snapshot of a version without an event hides the next event, and every command fails."""
    backend = backend_from_url(url)
    async with open_store(backend, telemetry=telemetry) as store:
        [first] = (await store.execute(Deposit(account=A, amount=3))).events
        ahead = Snapshot(StateKey("Summed", 1), 2, first.event_id, 0, b'{"total":1000}')
        await backend.log.save_snapshots({A: ahead})
        await store.execute(Deposit(account=A, amount=4))
        await store.execute(AddTotal(account=A))
        assert await amounts(store, A) == [3, 4, 7]


async def test_a_snapshot_of_another_version_of_its_class_is_not_used(url: str, telemetry: Telemetry) -> None:
    """commanded/commanded#196, pyeventsourcing/eventsourcing#39: a snapshot made by older code is used by the newer code."""
    backend = backend_from_url(url)
    async with open_store(backend, telemetry=telemetry) as store:
        [first] = (await store.execute(Deposit(account=A, amount=3))).events
        old = Snapshot(StateKey("Summed", 2), 1, first.event_id, 0, b'{"total":1000}')
        await backend.log.save_snapshots({A: old})
        await store.execute(AddTotal(account=A))
        assert await amounts(store, A) == [3, 3]
