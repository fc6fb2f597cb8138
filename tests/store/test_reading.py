from __future__ import annotations

from collections.abc import Iterable

import pytest

from eventcore import Command, Event, EventStore, StreamId
from eventcore.errors import InvalidPattern, InvalidStreamId
from tests.store.bank import Deposit, Deposited, Linked, account


class _Mixed(Command[None]):
    """Writes 1,200 events to 4 streams, every fifth a link."""

    streams: tuple[StreamId, ...]

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        for number in range(1200):
            stream = self.streams[number % 4]
            yield stream, Linked(account=stream) if number % 5 == 0 else Deposited(amount=number)


STREAMS = tuple(map(StreamId, ["order-1", "order-12", "Order-2", "user_é"]))


@pytest.fixture
async def filled(store: EventStore) -> EventStore:
    await store.execute(_Mixed(streams=STREAMS))
    return store


async def test_a_stream_is_read_in_order_of_version(filled: EventStore) -> None:
    events = [event async for event in filled.read(STREAMS[1])]
    assert [event.version for event in events] == list(range(1, 301))
    assert {event.stream_id for event in events} == {STREAMS[1]}
    assert [event.position for event in events] == list(range(2, 1201, 4))


async def test_a_stream_is_read_from_a_version_and_to_a_limit(filled: EventStore) -> None:
    assert [event.version async for event in filled.read(STREAMS[0], after_version=290, limit=4)] == [291, 292, 293, 294]
    assert [event.version async for event in filled.read(STREAMS[0], after_version=298)] == [299, 300]
    assert [event async for event in filled.read(STREAMS[0], after_version=300)] == []
    assert [event async for event in filled.read(STREAMS[0], limit=0)] == []


async def test_a_stream_without_events_is_empty(filled: EventStore) -> None:
    assert [event async for event in filled.read(StreamId("order-3"))] == []


async def test_everything_is_read_in_order_of_position(filled: EventStore) -> None:
    events = [event async for event in filled.read_all()]
    assert [event.position for event in events] == list(range(1, 1201))
    assert [event.position async for event in filled.read_all(after=1195)] == [1196, 1197, 1198, 1199, 1200]
    assert [event.position async for event in filled.read_all(after=600, limit=2)] == [601, 602]
    assert [event async for event in filled.read_all(after=5000)] == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("order-*", {"order-1", "order-12"}),
        ("order-?", {"order-1"}),
        ("[Oo]rder-[0-9]", {"order-1", "Order-2"}),
        ("*", {"order-1", "order-12", "Order-2", "user_é"}),
        ("user_?", {"user_é"}),
        ("[!o]*", {"Order-2", "user_é"}),
        ("order", set()),
        ("order_1", set()),
    ],
)
async def test_a_pattern_chooses_streams_and_case_counts(filled: EventStore, pattern: str, expected: set[str]) -> None:
    events = [event async for event in filled.read_all(pattern=pattern)]
    assert {str(event.stream_id) for event in events} == expected
    assert len(events) == 300 * len(expected)


async def test_event_types_are_chosen_by_name_or_class(filled: EventStore) -> None:
    by_class = [event async for event in filled.read_all(event_types=[Linked])]
    by_name = [event async for event in filled.read_all(event_types=["bank.Linked"])]
    assert len(by_class) == 240
    assert by_class == by_name
    assert [event async for event in filled.read_all(event_types=[])] == []
    assert len([event async for event in filled.read_all(event_types=[Linked, Deposited])]) == 1200


async def test_the_limit_counts_what_matches(filled: EventStore) -> None:
    events = [event async for event in filled.read_all(after=600, pattern="order-12", event_types=[Linked], limit=3)]
    assert [event.position for event in events] == [606, 626, 646]


async def test_reading_all_ends_at_the_head_of_its_beginning(store: EventStore) -> None:
    await store.execute(Deposit(account=account("a")))
    positions = []
    async for event in store.read_all():
        positions.append(event.position)
        await store.execute(Deposit(account=account("a")))
    assert positions == [1]
    assert await store.head_position() == 2


async def test_wrong_arguments_are_refused(store: EventStore) -> None:
    with pytest.raises(InvalidPattern):
        [event async for event in store.read_all(pattern="[")]
    with pytest.raises(ValueError, match="after=-1; expected an int, 0 or more"):
        [event async for event in store.read_all(after=-1)]
    with pytest.raises(ValueError, match="limit=-1"):
        [event async for event in store.read(account("a"), limit=-1)]
    with pytest.raises(InvalidStreamId):
        [event async for event in store.read("a b")]  # type: ignore[arg-type]  # that is the point
