"""The state of a stream equals the fold of its events from the first one, whatever happened before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore import Command, Event, EventStore, RecordedEvent, RetryPolicy, StreamId, StreamState, Telemetry, open_store
from eventcore.stores import MemoryBackend
from tests.store.bank import Deposit, Deposited

STREAMS = [StreamId(f"account-{name}") for name in "abcd"]
_MODULO = 1_000_003
_PATIENT = RetryPolicy(attempts=500, max_delay=0.02)


class Digest(StreamState, snapshot_every=5):
    """Depends on every event and on their order."""

    value: int = 1
    versions: list[int] = []

    def apply(self, event: RecordedEvent) -> None:
        assert isinstance(event.data, Deposited)
        assert event.version == len(self.versions) + 1
        self.versions.append(event.version)
        self.value = (self.value * 31 + event.data.amount) % _MODULO


class Write(Command[Mapping[StreamId, Digest]]):
    """Writes the digest of one stream into another."""

    source: Annotated[StreamId, Digest]
    target: Annotated[StreamId, Digest]
    guard: StreamId

    def handle(self, state: Mapping[StreamId, Digest]) -> Iterable[tuple[StreamId, Event]]:
        yield self.target, Deposited(amount=state[self.source].value)
        state[self.source].versions.clear()


class Look(Command[Mapping[StreamId, Digest]]):
    streams: tuple[Annotated[StreamId, Digest], ...]

    def handle(self, state: Mapping[StreamId, Digest]) -> None:
        looked.append({stream: one.value for stream, one in state.items()})


looked: list[dict[StreamId, int]] = []

_stream = st.sampled_from(STREAMS)
_pair: TypeAlias = tuple[StreamId, StreamId, StreamId]
_step = st.one_of(
    st.tuples(st.just("batch"), st.lists(st.tuples(_stream, _stream, _stream), min_size=1, max_size=12)),
    st.tuples(st.just("other"), st.lists(st.tuples(_stream, _stream, _stream), min_size=1, max_size=3)),
    st.tuples(st.just("together"), st.lists(st.tuples(_stream, _stream, _stream), min_size=1, max_size=6)),
    st.tuples(st.just("fold"), st.lists(st.tuples(_stream, _stream, _stream), min_size=1, max_size=3)),
    st.tuples(st.just("redact"), st.lists(st.tuples(_stream, _stream, _stream), min_size=1, max_size=1)),
    st.tuples(st.just("reopen"), st.just([])),
    st.tuples(st.just("look"), st.just([])),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(_step, max_size=25), cache_bytes=st.sampled_from([0, 6_000, 40_000, 64 << 20]))
def test_a_state_equals_the_fold_of_all_events(steps: Sequence[tuple[str, list[_pair]]], cache_bytes: int) -> None:
    asyncio.run(_run(steps, cache_bytes))


async def _run(steps: Sequence[tuple[str, list[_pair]]], cache_bytes: int) -> None:
    backend = MemoryBackend()
    async with asyncio.timeout(30), Telemetry(exporters=[]) as telemetry:
        other = open_store(backend.another(), telemetry=telemetry, name="other")
        async with other:
            store = await open_store(backend, telemetry=telemetry, cache_bytes=cache_bytes).__aenter__()
            try:
                for kind, pairs in steps:
                    if kind == "reopen":
                        await store.close()
                        store = await open_store(backend.another(), telemetry=telemetry, cache_bytes=cache_bytes).__aenter__()
                    else:
                        await _step_of(kind, pairs, store, other)
                await _check(store)
            finally:
                await store.close()


async def _step_of(kind: str, pairs: list[_pair], store: EventStore, other: EventStore) -> None:
    writers = {"batch": (store,), "other": (other,), "together": (store, other)}
    match kind:
        case "batch" | "other" | "together":
            commands = [(one, Write(source=a, target=b, guard=c)) for a, b, c in pairs for one in writers[kind]]
            results = await asyncio.gather(*(one.execute(command, retry=_PATIENT) for one, command in commands))
            history = [event async for event in store.read_all()]
            for (_, command), result in zip(commands, results, strict=True):
                # Decided on exactly the events of its source that came before it.
                before = (event for event in history[: result.position - 1] if event.stream_id == command.source)
                assert result.events[0].data == Deposited(amount=_folded(before).value)
        case "fold":
            await asyncio.gather(*(store.execute(Deposit(account=a, amount=7)) for a, _, _ in pairs))
        case "redact":
            for stream, _, _ in pairs:
                async for event in store.read(stream, limit=1):
                    await other.redact(event.event_id, data=Deposited(amount=9), reason="a test")
        case _:
            await _check(store)


async def _check(store: EventStore) -> None:
    expected = {stream: _folded([event async for event in store.read(stream)]).value for stream in STREAMS}
    await store.execute(Look(streams=tuple(STREAMS)))
    assert looked[-1] == expected


def _folded(events: Iterable[RecordedEvent]) -> Digest:
    digest = Digest()
    for event in events:
        digest.apply(event)
    return digest
