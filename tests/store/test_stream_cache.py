"""The stream cache: bounded in bytes of memory, whole streams where they fit, and eviction at a constant cost."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import msgspec
import pytest

from eventcore import Command, Event, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.cached_stream import KeptState
from eventcore.commands.streams.folding import StateCodec
from eventcore.events import EventMetadata, StreamState
from eventcore.events.codec import Codec, StoredEvent
from eventcore.stores import MemoryBackend
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Deposited, account
from tests.store.conftest import Measured


class Noted(Event):
    event_type = "cache.Noted"
    text: str
    numbers: list[int] = []


class Counted(Event):
    event_type = "cache.Counted"
    number: int
    text: str


class Summed(StreamState):
    total: int = 0


def events(stream: StreamId, count: int, data: Event, after: int = 0) -> tuple[list[RecordedEvent], list[int]]:
    """Events as the loader decodes them, each with the length of its JSON."""
    codec = Codec()
    encoded, _ = codec.encode(data)
    metadata = codec.encode_metadata(EventMetadata("Note", f"00-{7:032x}-{8:016x}-01", "", "c" * 32))
    rows = [
        StoredEvent(version, stream, version, f"{version:032x}", "cache.Noted", encoded.decode(), metadata.decode(), version)
        for version in range(after + 1, after + count + 1)
    ]
    return [codec.decode(row, stream) for row in rows], [len(encoded)] * count


def allocated_here() -> int:
    """Bytes that were allocated for events and the cache, and not by threads that other tests have left."""
    here = [tracemalloc.Filter(True, pattern) for pattern in ("*/eventcore/commands/*", "*/eventcore/events/*", __file__)]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(here).traces)


def add(cache: StreamCache, stream: StreamId, count: int, data: Event) -> None:
    found, lengths = events(stream, count, data)
    cache.extend(stream, found, [cache.sizes.of(event, length) for event, length in zip(found, lengths, strict=True)], 0)


def test_all_events_of_a_stream_share_one_id_whoever_has_made_it() -> None:
    """The garbage collector visits each id, and counts it when it decides about a full collection."""
    cache = StreamCache()
    for first, count in ((1, 2), (3, 100)):
        # An equal id that is another object.
        found, lengths = events(StreamId("one"), count, Noted(text="x"), first - 1)
        cache.extend(StreamId("one"), found, lengths, first - 1)
    cache.append(events(StreamId("one"), 1, Noted(text="x"), 102)[0][0], 10)
    held = cache.events(StreamId("one"))
    assert held is not None
    assert len(held) == 103
    assert {id(event.stream_id) for event in held} == {id(held[0].stream_id)}


@pytest.mark.parametrize(
    ("data", "per_stream", "streams"),
    [
        pytest.param(Noted(text="x" * 30), 1, 4000, id="50 bytes, one a stream"),
        pytest.param(Noted(text="x" * 30), 200, 40, id="50 bytes, many a stream"),
        pytest.param(Noted(text="x" * 200_000), 3, 30, id="200 kB"),
        pytest.param(Noted(text="ü" * 100_000), 3, 30, id="200 kB beyond ASCII"),
        pytest.param(Noted(text="", numbers=list(range(0, 4_000_000, 133))), 3, 4, id="200 kB of numbers"),
    ],
)
def test_the_budget_counts_memory_honestly(data: Event, per_stream: int, streams: int) -> None:
    cache = StreamCache(1 << 40)
    add(cache, StreamId("warm"), 1, data)
    gc.collect()
    tracemalloc.start()
    try:
        counted, before = cache.held, allocated_here()
        for number in range(streams):
            add(cache, StreamId(f"stream-{number}"), per_stream, data)
        gc.collect()
        used = allocated_here() - before
    finally:
        tracemalloc.stop()
    counted = cache.held - counted
    print(f"counted {counted / used:.2f} of what tracemalloc finds")
    assert used / 1.5 <= counted <= used * 1.5


@pytest.mark.parametrize("lengths", [(30,), (30, 40), (30, 5_000)], ids=["equal", "alike", "of different lengths"])
def test_the_events_that_a_command_has_written_are_counted_honestly(lengths: tuple[int, ...]) -> None:
    cache = StreamCache(1 << 40)
    add(cache, StreamId("warm"), 1, Noted(text=""))
    gc.collect()
    tracemalloc.start()
    try:
        counted, before = cache.held, allocated_here()
        for number in range(8):
            stream = StreamId(f"stream-{number}")
            written: list[RecordedEvent] = []
            sizes: list[int] = []
            for index in range(200):
                [event], [size] = events(stream, 1, Noted(text="x" * lengths[index % len(lengths)]), index)
                written.append(msgspec.structs.replace(event, metadata=written[0].metadata) if written else event)
                sizes.append(size)
            cache.extend(stream, written, cache.sizes.of_command(written, sizes), 0)
        gc.collect()
        used = allocated_here() - before
    finally:
        tracemalloc.stop()
    counted = cache.held - counted
    print(f"counted {counted / used:.2f} of what tracemalloc finds")
    assert used / 1.5 <= counted <= used * 1.5


def test_kept_states_are_counted() -> None:
    cache = StreamCache(1 << 40)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            stream = StreamId(f"stream-{number}")
            cache.keep(stream, KeptState(Summed, 1000 + number, f"{number:032x}", 1000 + number, b'{"total":%d}' % number))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    print(f"counted {cache.held / used:.2f} of what tracemalloc finds")
    assert used / 1.5 <= cache.held <= used * 1.5


class Listed(StreamState):
    """Its only field is a scalar, so it is kept as it is and not as JSON."""

    flights: str = ""

    def apply(self, event: RecordedEvent) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("text", ["", "x" * 3_000, "ü" * 3_000])
def test_kept_states_of_scalars_are_counted(text: str) -> None:
    cache, codec = StreamCache(1 << 40), StateCodec(Listed)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1000):
            stream = StreamId(f"stream-{number}")
            cache.keep(stream, codec.kept(Listed(f"{text}{number}"), 1000 + number, f"{number:032x}", 1000 + number))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    print(f"counted {cache.held / used:.2f} of what tracemalloc finds")
    assert used / 1.5 <= cache.held <= used * 1.5
    kept = cache.state(StreamId("stream-7"), Listed)
    assert kept is not None
    assert kept.whole == Listed(f"{text}7")


def test_it_never_holds_more_than_its_budget() -> None:
    cache = StreamCache(10 << 20)
    for number in range(300):
        add(cache, StreamId(f"stream-{number}"), 3, Noted(text="x" * 50_000))
        assert cache.held <= 10 << 20
    assert 50 < len(cache) < 70


def test_a_stream_is_held_whole_up_to_a_quarter_of_the_budget_whatever_its_length() -> None:
    cache = StreamCache(32 << 20)
    stream = StreamId("long")
    add(cache, stream, 8_000, Noted(text=""))
    assert 5 << 20 < cache.held < 8 << 20
    assert len(cache.events(stream) or ()) == 8_000
    add(cache, stream, 20_000, Noted(text=""))
    assert cache.events(stream) is None
    assert cache.held <= 8 << 20
    tail = cache.tail(stream, 19_000)
    assert tail is not None
    assert [event.version for event in tail] == list(range(19_001, 20_001))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 500, 501])
def test_the_events_behind_any_version_are_found_wherever_blocks_begin(count: int) -> None:
    cache = StreamCache(64 << 20)
    stream = StreamId("stream")
    add(cache, stream, count, Noted(text=""))
    for after in range(count + 1):
        tail = cache.tail(stream, after)
        assert tail is not None
        assert [event.version for event in tail] == list(range(after + 1, count + 1))


def test_events_before_a_state_are_let_go_unless_commands_fold_them() -> None:
    cache = StreamCache(64 << 20)
    for stream in (StreamId("states"), StreamId("both")):
        add(cache, stream, 5_000, Noted(text=""))
        if stream == "both":
            assert cache.events(stream)
        cache.keep(stream, KeptState(Summed, 5_000, "", 5_000, b"{}"))
    tail = cache.tail(StreamId("states"), 4_950)
    assert tail is not None
    assert len(tail) == 50
    assert cache.tail(StreamId("states"), 100) is None
    assert len(cache.events(StreamId("both")) or ()) == 5_000


@pytest.mark.timing
def test_evicting_costs_the_same_however_many_streams_were_seen() -> None:
    cache = StreamCache(50_000 * 1500)
    [event], [length] = events(StreamId("one"), 1, Noted(text=""))
    size = cache.sizes.of(event, length)
    streams = [StreamId(f"stream-{number}") for number in range(240_000)]

    def nanoseconds(part: list[StreamId]) -> float:
        best = float("inf")
        for start in range(0, len(part), 5_000):
            begun = perf_counter()
            for stream in part[start : start + 5_000]:
                cache.extend(stream, [event], [size], 0)
            best = min(best, (perf_counter() - begun) / 5_000 * 1e9)
        return best

    filling = nanoseconds(streams[:40_000])
    nanoseconds(streams[40_000:200_000])
    evicting = nanoseconds(streams[200_000:])
    print(f"adding a stream: {filling:.0f} ns while filling, {evicting:.0f} ns with an eviction after 200,000 streams")
    assert len(cache) < 100_000
    assert evicting < filling + 5_000


class _Fragile(Command[int]):
    """Reads two streams, of which the second never has more events than the first; raises if it had."""

    first: StreamId
    second: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        state += 1 if event.stream_id == self.first else -1
        if state < 0:
            raise ZeroDivisionError("this never happened")
        return state

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        return ()


class _Seeking(_Fragile):
    """The same, and the discovery fails on such a state."""

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + (1 if event.stream_id == self.first else -1)

    def discover_streams(self, state: int) -> Iterable[StreamId]:
        if state < 0:
            raise ZeroDivisionError("this never happened")
        return ()


@pytest.mark.parametrize("kind", [_Fragile, _Seeking])
async def test_what_a_command_raises_on_a_state_that_never_existed_is_not_reported(
    kind: type[_Fragile], telemetry: Telemetry
) -> None:
    backend = SteeredBackend()
    a, b = account("a"), account("b")
    async with backend.store(telemetry) as store:
        await store.execute(kind(first=a, second=b))
        # Another process has written to the first stream, and this one to the second: the cache knows only the latter.
        backend.overtake(a, 1, 1)
        await store.execute(Deposit(account=b))
        await store.execute(kind(first=a, second=b))


async def test_what_a_command_raises_on_a_state_that_was_read_reaches_the_caller(telemetry: Telemetry) -> None:
    async with SteeredBackend().store(telemetry) as store:
        await store.execute(Deposit(account=account("b")))
        with pytest.raises(ZeroDivisionError):
            await store.execute(_Fragile(first=account("a"), second=account("b")))


@pytest.mark.parametrize("cache_bytes", [0, 100_000, 64 << 20])
async def test_a_stream_of_any_length_is_right_under_any_budget(cache_bytes: int, telemetry: Telemetry) -> None:
    backend = MemoryBackend()
    a, b = account("a"), account("b")
    async with open_store(backend, telemetry=telemetry, cache_bytes=cache_bytes) as store:
        for _ in range(30):
            await asyncio.gather(*(store.execute(Deposit(account=stream)) for stream in (a, b) for _ in range(40)))
    async with open_store(backend.another(), telemetry=telemetry, cache_bytes=cache_bytes) as store:
        results = await asyncio.gather(*(store.execute(Both(first=a, second=b)) for _ in range(5)))
        assert [result.events[0].data.amount for result in results] == [2400 + n for n in range(5)]  # type: ignore[attr-defined]


async def test_a_stream_of_any_length_that_is_held_is_not_read_again(telemetry: Telemetry, measured: Measured) -> None:
    stream = account("a")
    async with open_store("memory:", telemetry=telemetry) as store:
        for _ in range(14):
            await asyncio.gather(*(store.execute(Both(first=stream, second=stream)) for _ in range(50)))
        before = measured("store.operation.duration", operation="read_streams")
        [event] = (await store.execute(Both(first=stream, second=stream))).events
    assert event.version == 701
    assert event.data == Deposited(amount=700)
    assert measured("store.operation.duration", operation="read_streams") == before


class Both(Command[int]):
    first: StreamId
    second: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + 1

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        yield self.first, Deposited(amount=state)


class _Typed(Command[list[type]]):
    """Looks at the types of ids that its events have."""

    stream: StreamId
    text: str = ""

    def initial_state(self) -> list[type]:
        return []

    def apply(self, state: list[type], event: RecordedEvent) -> list[type]:
        return [*state, type(event.stream_id)]

    def handle(self, state: list[type]) -> Iterable[tuple[StreamId, Event]]:
        assert set(state) <= {StreamId}
        yield self.stream, Counted(number=len(state), text=self.text)


class _TypedState(StreamState):
    ids: int = 0

    def apply(self, event: RecordedEvent) -> None:
        self.ids += type(event.stream_id) is StreamId


class _TypedStates(Command[_TypedState]):
    stream: Annotated[StreamId, _TypedState]
    text: str = ""

    def handle(self, state: Any) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Counted(number=state[self.stream].ids, text=self.text)


async def test_the_garbage_collector_has_nothing_to_visit_of_streams_that_were_only_written(tmp_path: Path) -> None:
    """It begins a full collection, which stops the loop, whenever the number of what it visits has grown by a quarter."""
    async with open_store(f"sqlite:///{tmp_path / 'store.db'}", exporters="none") as store:

        async def write(name: str, count: int) -> int:
            await asyncio.gather(*(store.execute(_Typed(stream=account(f"{name}-{number}"))) for number in range(count)))
            gc.collect()
            return len(gc.get_objects())

        # The tasks of the last round may still be there, as many as in the round before.
        await write("read", 1_000)
        before = await write("before", 1_000)
        assert await write("after", 1_000) - before < 200


class _Unread(Command[None]):
    """Writes without looking at any event."""

    stream: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Deposited(amount=1)


@pytest.mark.parametrize("count", [1, 64, 65, 200])
async def test_events_that_no_command_has_looked_at_have_the_id_of_their_stream_when_one_does(count: int) -> None:
    stream = account("a")
    async with open_store("memory:", exporters="none") as store:
        for _ in range(count):
            await store.execute(_Unread(stream=stream))
        # Its `handle` asserts what its `apply` has seen of each event.
        [event] = (await store.execute(_Typed(stream=stream))).events
        assert event.data == Counted(number=count, text="")


@pytest.mark.parametrize("size", [0, 70_000, 200_000])
async def test_events_have_the_id_of_their_stream_whichever_way_they_come(size: int) -> None:
    async with open_store("memory:", exporters="none") as store:
        for command in (_Typed, _TypedStates):
            for other in (_Typed, _TypedStates):
                stream = account(f"{command.__name__}-{other.__name__}")
                order = (command, other, command, other, command)
                results = [await store.execute(one(stream=stream, text="x" * size)) for one in order]
                events = [event for result in results for event in result.events]
                assert {type(event.stream_id) for event in events} == {StreamId}
                assert [event.data for event in events] == [Counted(number=number, text="x" * size) for number in range(5)]
                assert [event async for event in store.read(stream)] == events


@pytest.mark.parametrize("cache_bytes", [-1, 1.5, True, None])
def test_a_budget_that_is_none_is_refused(cache_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"cache_bytes=.*; expected a number of bytes, 0 or more"):
        open_store("memory:", cache_bytes=cache_bytes)


# Redaction


class Sum(StreamState):
    total: int = 0

    def apply(self, event: RecordedEvent) -> None:
        assert isinstance(event.data, Deposited)
        self.total += event.data.amount


class WriteState(Command[Mapping[StreamId, Sum]]):
    account: Annotated[StreamId, Sum]

    def handle(self, state: Mapping[StreamId, Sum]) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=state[self.account].total)


class WriteFold(Command[int]):
    account: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        assert isinstance(event.data, Deposited)
        return state + event.data.amount

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=state)


@pytest.mark.parametrize("kind", [WriteState, WriteFold])
async def test_commands_decide_on_the_new_text_after_a_redaction_by_another_process(
    kind: type[WriteState | WriteFold], telemetry: Telemetry, measured: Measured
) -> None:
    backend, a = MemoryBackend(), account("a")
    async with (
        open_store(backend, telemetry=telemetry) as store,
        open_store(backend.another(), telemetry=telemetry, name="other") as other,
    ):
        first = await store.execute(Deposit(account=a, amount=1))
        assert (await store.execute(kind(account=a))).events[0].data == Deposited(amount=1)
        await other.redact(first.events[0].event_id, data=Deposited(amount=100), reason="a test")
        results = await asyncio.gather(*(store.execute(kind(account=a)) for _ in range(3)))
    assert [result.events[0].data for result in results] == [Deposited(amount=amount) for amount in (101, 202, 404)]
    # A redaction is neither an attempt nor a conflict.
    assert {result.attempts for result in results} == {1}
    assert measured("commands.conflicts", resolution="absorbed") == 0


async def test_an_idle_process_forgets_redacted_events_within_a_second(telemetry: Telemetry) -> None:
    backend, a = MemoryBackend(), account("a")
    async with open_store(backend, telemetry=telemetry) as store:
        first = await store.execute(Deposit(account=a, amount=1))
        await store.execute(WriteState(account=a))
        cache = store._executor._runner._loader._cache
        assert len(cache) == 1
        await backend.another().log.redact(first.events[0].event_id, b'{"amount":100}', "a test")
        async with asyncio.timeout(1):
            while len(cache):
                await asyncio.sleep(0.01)
        assert (await store.execute(WriteState(account=a))).events[0].data == Deposited(amount=101)
