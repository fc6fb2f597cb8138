"""What one event class or one caller does reaches no other command: not in the same load, not in the same batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from eventcore import Command, Event, EventStore, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.errors import CorruptEvent, InvalidEvent
from eventcore.stores import MemoryBackend
from tests.store.bank import Deposit, account

PICKY = StreamId("picky-1")


class Picky(Event):
    """Its own code raises ``refusal`` when it is made, also from JSON."""

    event_type: ClassVar[str] = "strangers.Picky"
    refusal: ClassVar[BaseException | None] = None

    def __post_init__(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class Pick(Command[int]):
    stream: StreamId = PICKY

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + 1

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Picky()


class PickAgain(Pick):
    """Writes an event whose class refuses it only when it is read back."""

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        event = Picky()
        Picky.refusal = LookupError("refused")
        yield self.stream, event
        Picky.refusal = None


@pytest.fixture(autouse=True)
def accepting() -> Iterable[None]:
    Picky.refusal = None
    yield
    Picky.refusal = None


@pytest.mark.parametrize("refusal", [LookupError("no"), SystemExit(1), asyncio.CancelledError(), GeneratorExit()])
async def test_a_class_that_raises_when_it_is_read_fails_only_those_who_read_its_stream(
    url: str, telemetry: Telemetry, refusal: BaseException
) -> None:
    # Two stores, since the first one would not read its own events again.
    place = MemoryBackend() if url == "memory:" else url
    async with open_store(place, telemetry=telemetry) as store:
        await store.execute(Pick())
        await store.execute(Deposit(account=account(0)))
    async with asyncio.timeout(30), open_store(place, telemetry=telemetry) as store:
        Picky.refusal = refusal
        strangers = [Deposit(account=account(number % 5)) for number in range(20)]
        answers = await asyncio.gather(*map(store.execute, [*strangers, Pick(), *strangers, Pick()]), return_exceptions=True)
        assert [type(answer).__name__ for answer in answers if isinstance(answer, BaseException)] == ["CorruptEvent"] * 2
        with pytest.raises(CorruptEvent) as raised:
            [event async for event in store.read(PICKY)]
        assert (raised.value.stream_id, raised.value.version, raised.value.position) == (PICKY, 1, 1)
        Picky.refusal = None
        assert (await store.execute(Pick())).events[0].version == 2


async def test_a_class_that_refuses_what_is_written_fails_only_the_command_that_writes(store: EventStore) -> None:
    commands = [Deposit(account=account(1)), PickAgain(), Deposit(account=account(1)), Deposit(account=account(2))]
    first, refused, *others = await asyncio.gather(*map(store.execute, commands), return_exceptions=True)
    assert isinstance(refused, InvalidEvent)
    assert not [answer for answer in (first, *others) if isinstance(answer, BaseException)]


class Listed(Event):
    event_type: ClassVar[str] = "strangers.Listed"
    items: list[int]


class Append(Command[list[int]]):
    """Adds the number of items that there are."""

    stream: StreamId

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        assert isinstance(event.data, Listed)
        return [*state, *event.data.items]

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Listed(items=[len(state)])


async def test_a_result_shares_nothing_that_can_be_changed_with_the_next_command(store: EventStore) -> None:
    stream = StreamId("listed-1")
    headers = {"tenant": "a"}
    for number in range(3):
        result = await store.execute(Append(stream=stream), headers=headers)
        [event] = result.events
        assert isinstance(event.data, Listed)
        assert event.data.items == [number]
        assert [stored async for stored in store.read(stream)][-1] == event
        event.data.items.extend([7, 7, 7])
        event.metadata.headers["tenant"] = "b"
    async for stored in store.read(stream):
        assert stored.metadata.headers == {"tenant": "a"}


async def test_events_of_one_result_share_nothing_either(store: EventStore) -> None:
    result = await store.execute(Deposit(account=account(1)), headers={"a": "b"})
    again = await store.execute(Deposit(account=account(1)), headers={"a": "b"})
    events: list[Any] = [*result.events, *again.events]
    events[0].metadata.headers["a"] = "c"
    assert events[1].metadata.headers == {"a": "b"}
