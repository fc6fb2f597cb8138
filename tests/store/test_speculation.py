"""Commands on streams that this process has never seen: decided as if the streams were empty, which the append checks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar
from uuid import uuid4

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
from eventcore.commands.streams.speculation import Speculation
from eventcore.errors import CorruptEvent, InvalidEvent
from eventcore.exporting import HistogramPoint
from eventcore.stores import Backend, MemoryBackend
from tests.store.bank import Collect, Deposit, Deposited, Link, Transfer, account
from tests.store.conftest import Measured

A, B, C = (account(name) for name in "abc")


@pytest.fixture
def speculating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTCORE_SPECULATION", "on")


class Place:
    """The same data for several stores, as several processes have it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._memory = MemoryBackend()

    @asynccontextmanager
    async def store(self, name: str, telemetry: Telemetry, **settings: Any) -> AsyncIterator[EventStore]:
        place: str | Backend = self._memory.another() if self._url == "memory:" else self._url
        async with open_store(place, name=name, telemetry=telemetry, **settings) as store:
            yield store


@pytest.fixture
def place(url: str) -> Place:
    return Place(url)


def reads(measured: Measured, store: str) -> float:
    return measured("store.operation.duration", store=store, operation="read_streams")


class Raise(Command[list[int]]):
    """Raises on an empty state, wherever ``where`` says."""

    stream: StreamId
    where: str

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        return [*state, event.version]

    def discover_streams(self, state: list[int]) -> Iterable[StreamId]:
        self._check("discover_streams", state)
        return ()

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        self._check("handle", state)
        yield self.stream, Deposited(amount=sum(state))

    def _check(self, where: str, state: list[int]) -> None:
        if where == self.where and not state:
            raise SystemExit(f"{where} was called on a state that never existed")


class Look(Command[list[int]]):
    """Writes nothing, and refuses an empty stream if it must not be empty."""

    stream: StreamId
    must_exist: bool

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        return [*state, event.version]

    def handle(self, state: list[int]) -> None:
        if self.must_exist and not state:
            raise BusinessRuleViolation("there is nothing")


class Follow(Command[set[StreamId]]):
    """Discovers another stream if its own is empty, and writes to each."""

    stream: StreamId

    def initial_state(self) -> set[StreamId]:
        return {C}

    def apply(self, state: set[StreamId], event: RecordedEvent) -> set[StreamId]:
        return state - {C}

    def discover_streams(self, state: set[StreamId]) -> Iterable[StreamId]:
        return state

    def handle(self, state: set[StreamId]) -> Iterable[tuple[StreamId, Event]]:
        for stream in {self.stream, *state}:
            yield stream, Deposited(amount=1)


class Echo(Command[set[StreamId]]):
    """Writes to each stream that its events name."""

    stream: StreamId

    def initial_state(self) -> set[StreamId]:
        return set()

    def apply(self, state: set[StreamId], event: RecordedEvent) -> set[StreamId]:
        return {*state, event.stream_id}

    def handle(self, state: set[StreamId]) -> Iterable[tuple[StreamId, Event]]:
        for stream in state or {self.stream}:
            yield stream, Deposited(amount=1)


class Unfit(Command[list[int]]):
    """Writes an event that cannot be encoded: always, or only on an empty stream."""

    stream: StreamId
    always: bool

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        return [*state, event.version]

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        unfit: Any = "no number"
        yield self.stream, Deposited(amount=unfit if self.always or not state else 1)


class Moody(Event):
    """Cannot be made while ``broken`` holds something."""

    broken: ClassVar[list[bool]] = []

    def __post_init__(self) -> None:
        if self.broken:
            raise ValueError("not in the mood")


class BeMoody(Command[None]):
    stream: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Moody()


class Total(StreamState, version=1, snapshot_every=2):
    total: int = 0

    def apply(self, event: RecordedEvent) -> None:
        self.total += event.data.amount if isinstance(event.data, Deposited) else 0


class Double(Command[Mapping[StreamId, Total]]):
    stream: Annotated[StreamId, Total]

    def handle(self, state: Mapping[StreamId, Total]) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Deposited(amount=state[self.stream].total)


@pytest.mark.usefixtures("speculating")
class TestForcedOn:
    async def test_a_command_on_a_new_stream_takes_one_call(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as store:
            results = await asyncio.gather(*(store.execute(Deposit(account=account(n), amount=n)) for n in range(20)))
            assert [result.attempts for result in results] == [1] * 20
            assert sorted(result.position for result in results) == list(range(1, 21))
            assert reads(measured, "one") == 0
            assert measured("commands.streams", mode="read") == 20

    async def test_a_wrong_guess_is_decided_again_on_what_the_append_has_found(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            for amount in (5, 6, 7):
                await one.execute(Deposit(account=A, amount=amount))
            result = await other.execute(Deposit(account=A))
            assert (result.attempts, [event.version for event in result.events]) == (1, [4])
            result = await other.execute(Transfer(source=A, target=B, amount=19))
            assert (result.attempts, [event.version for event in result.events]) == (1, [5, 1])
            with pytest.raises(BusinessRuleViolation, match="holds 0"):
                await one.execute(Transfer(source=A, target=B, amount=1))
            assert reads(measured, "other") == 0, "the refusal brought the rows"
            assert measured("events.read", store="other", purpose="command") == 3
            for name in ("commands.retries", "commands.conflicts"):
                assert measured(name, store="other") == 0

    async def test_the_events_that_an_append_has_found_name_their_streams_by_stream_ids(
        self, place: Place, telemetry: Telemetry
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await one.execute(Deposit(account=A))
            result = await other.execute(Echo(stream=A))
            assert [(type(event.stream_id), event.version) for event in result.events] == [(StreamId, 2)]

    async def test_commands_of_one_batch_on_a_stream_that_exists_are_decided_again(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await one.execute(Deposit(account=A, amount=5))
            commands: list[Command[Any]] = [
                Deposit(account=A),
                Deposit(account=B),
                Deposit(account=A),
                Transfer(source=A, target=C, amount=7),
            ]
            results = await asyncio.gather(*map(other.execute, commands))
            assert [result.attempts for result in results] == [1] * 4
            assert [event.version async for event in one.read(A)] == [1, 2, 3, 4]
            assert measured("commands.retries", store="other") == 0
            assert measured("commands.conflicts", store="other", outcome="absorbed") == 0

    @pytest.mark.parametrize("where", ["discover_streams", "handle"])
    async def test_what_is_raised_on_a_guess_is_not_reported(self, place: Place, telemetry: Telemetry, where: str) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await one.execute(Deposit(account=A))
            result = await other.execute(Raise(stream=A, where=where))
            assert (result.attempts, result.events[0].data) == (1, Deposited(amount=1))
            with pytest.raises(SystemExit):
                await other.execute(Raise(stream=B, where=where))

    async def test_a_failure_of_the_codec_is_counted_once_and_only_if_the_caller_gets_it(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await one.execute(Deposit(account=A))
            await other.execute(Unfit(stream=A, always=False))
            assert measured("codec.errors") == 0, "only the guess failed"
            for count, stream in enumerate((A, B), 1):
                with pytest.raises(InvalidEvent):
                    await other.execute(Unfit(stream=stream, always=True))
                assert measured("codec.errors", direction="encode", event_type="bank.Deposited") == count

    async def test_rows_of_a_refusal_that_cannot_be_read_are_counted_when_the_caller_gets_the_error(
        self, place: Place, telemetry: Telemetry, measured: Measured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await one.execute(BeMoody(stream=A))
            monkeypatch.setattr(Moody, "broken", [True])
            with pytest.raises(CorruptEvent, match="not in the mood"):
                await other.execute(Transfer(source=B, target=A, amount=0))
            assert measured("codec.errors") == measured("codec.errors", direction="decode", event_type="Moody") == 1

    async def test_a_decision_without_events_is_made_on_what_was_read(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await one.execute(Deposit(account=A))
            assert (await other.execute(Look(stream=A, must_exist=True))).position == 1
            assert (await other.execute(Look(stream=B, must_exist=False))).position == 1
            with pytest.raises(BusinessRuleViolation):
                await other.execute(Look(stream=C, must_exist=True))
            assert reads(measured, "other") == 3

    async def test_a_stream_that_only_a_guess_names_does_not_join_the_boundary(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await one.execute(Deposit(account=A))
            result = await other.execute(Follow(stream=A))
            assert [event.stream_id for event in result.events] == [A]
            assert measured("commands.streams", store="other", mode="read") == 1
            assert [event.stream_id for event in (await other.execute(Follow(stream=B))).events] in ([B, C], [C, B])

    async def test_a_stream_with_many_events_is_read(self, place: Place, telemetry: Telemetry, measured: Measured) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await asyncio.gather(*(one.execute(Deposit(account=A)) for _ in range(300)))
            result = await other.execute(Transfer(source=A, target=B, amount=300))
            assert (result.attempts, result.events[0].version) == (1, 301)
            assert reads(measured, "other") == 1

    async def test_a_stream_with_a_stored_state_is_read_from_there(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one:
            await one.execute(Deposit(account=A, amount=5))
            for _ in range(3):
                await one.execute(Double(stream=A))
        async with place.store("other", telemetry) as other:
            assert (await other.execute(Double(stream=A))).events[0].data == Deposited(amount=40)
            assert reads(measured, "other") == 1
            assert measured("snapshots.reads", store="other", result="hit") == 1

    async def test_a_refusal_contests_only_the_streams_that_were_behind(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            await other.execute(Deposit(account=A, amount=5))
            await one.execute(Deposit(account=B, amount=5))
            await other.execute(Transfer(source=A, target=B, amount=5))
            await other.execute(Deposit(account=A))
            await other.execute(Deposit(account=B))
            assert reads(measured, "other") == 0

    async def test_a_redaction_of_an_event_that_was_never_read_is_noticed(
        self, place: Place, telemetry: Telemetry, measured: Measured
    ) -> None:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            event = (await other.execute(Deposit(account=A, amount=5))).events[0]
            assert reads(measured, "other") == 0
            await one.redact(event.event_id, data=Deposited(amount=0), reason="asked by the customer")
            with pytest.raises(BusinessRuleViolation, match="holds 0"):
                await other.execute(Transfer(source=A, target=B, amount=5))

    async def test_a_store_on_which_the_guess_could_go_wrong_unnoticed_is_read(
        self, telemetry: Telemetry, measured: Measured
    ) -> None:
        class Foreign:
            """A backend that another distribution brings: it says nothing of its appends."""

            def __init__(self) -> None:
                self._real = MemoryBackend()
                self.system, self.open, self.close, self.ledger = "memory", self._real.open, self._real.close, self._real.ledger

            @property
            def log(self) -> Any:
                return Silent(self._real.log)

        class Silent:
            def __init__(self, log: Any) -> None:
                self._log = log

            def __getattr__(self, name: str) -> Any:
                if name == "append_hints":
                    raise AttributeError(name)
                return getattr(self._log, name)

        async with open_store(Foreign(), telemetry=telemetry, name="one") as store:
            await store.execute(Deposit(account=A))
        assert reads(measured, "one") == 1


COUNTS = ("attempts", "conflicts", "retries", "streams", "total", "events.emitted", "events.loaded", "active")
ALSO = ("events.written", "events.size", "streams.created", "streams.active", "codec.errors")


async def worked(place: Place, mode: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Mapping[str, Any], list[Any]]:
    """The counts after some random work on two stores, one command after the other, and what the commands answered."""
    monkeypatch.setenv("EVENTCORE_SPECULATION", mode)
    choose = random.Random(17)
    answers: list[Any] = []
    async with Telemetry(exporters=[]) as telemetry:
        async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
            for number in range(80):
                source, target = (account(choose.randrange(max(8, number // 3))) for _ in range(2))
                command: Command[Any] = choose.choice(
                    [
                        Deposit(account=source, amount=choose.randrange(9)),
                        Transfer(source=source, target=target, amount=choose.randrange(9)),
                        Link(account=source, to=target),
                        Collect(account=source),
                        Look(stream=source, must_exist=choose.random() < 0.5),
                        Follow(stream=source),
                        Unfit(stream=source, always=choose.random() < 0.3),
                    ]
                )
                try:
                    result = await choose.choice([one, other]).execute(command)
                    answers.append((result.attempts, result.position, len(result.events)))
                except (BusinessRuleViolation, InvalidEvent) as refusal:
                    answers.append(str(refusal))
        counts: dict[str, Any] = {}
        for data in telemetry.collect():
            if data.name.removeprefix("eventcore.commands.") in COUNTS or data.name.removeprefix("eventcore.") in ALSO:
                for point in data.points:
                    value = (point.count, point.sum) if isinstance(point, HistogramPoint) else point.value
                    counts[f"{data.name} {sorted(dict(point.labels).items())}"] = value
    return counts, answers


async def test_the_counts_of_commands_are_the_same_with_and_without(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def fresh() -> Place:
        if url.startswith("sqlite"):
            return Place(f"sqlite:///{tmp_path / uuid4().hex}.db")
        return Place(url if url == "memory:" else f"{url.partition('?')[0]}?schema=store_{uuid4().hex}")

    without = await worked(fresh(), "off", monkeypatch)
    assert await worked(fresh(), "on", monkeypatch) == without
    assert await worked(fresh(), "learn", monkeypatch) == without
    assert any(name.startswith("eventcore.commands.streams") for name in without[0])


async def test_commands_stop_reading_once_they_find_nothing_and_read_again_once_they_do(
    url: str, telemetry: Telemetry, measured: Measured
) -> None:
    place = Place(url)
    async with place.store("one", telemetry) as one, place.store("other", telemetry) as other:
        for number in range(80):
            await one.execute(Deposit(account=account(number)))
        assert 16 <= reads(measured, "one") <= 20
        for number in range(80):
            await other.execute(Deposit(account=account(number)))
        assert reads(measured, "other") == 80, "no stream was empty"
        before = reads(measured, "one")
        for number in range(80, 160):
            await other.execute(Deposit(account=account(number)))
        for number in range(80, 160):
            await one.execute(Deposit(account=account(number)))
        assert reads(measured, "one") - before >= 60, "it stopped to guess"
        assert measured("commands.conflicts") == measured("commands.retries") == 0


def test_speculation_begins_above_95_percent_and_stops_below_90() -> None:
    learned = Speculation("learn")
    for _ in range(15):
        learned.learn(right=True)
    assert not learned.active
    learned.learn(right=True)
    assert learned.active
    for _ in range(1000):
        learned.learn(right=True)
    wrong = 0
    while learned.active:
        learned.learn(right=False)
        wrong += 1
    assert wrong == 7
    right = 0
    while not learned.active:
        learned.learn(right=True)
        right += 1
    assert 40 < right < 60
    often = Speculation("learn")
    for number in range(5000):
        often.learn(right=number % 10 != 0)
        assert not often.active, "90 % are not enough to begin"


def test_few_commands_are_looked_at_while_their_streams_clearly_are_not_empty() -> None:
    learned = Speculation("learn")
    looked = 0
    for _ in range(1000):
        if learned.looks():
            learned.learn(right=False)
            looked += 1
    assert 64 <= looked <= 64 + 1000 // 16
    # Streams are empty from now on: it takes about as many commands as if each had been looked at.
    begun = 0
    while not learned.active:
        if learned.looks():
            learned.learn(right=True)
        begun += 1
        assert begun < 300
    assert not any(Speculation("off").looks() for _ in range(100))


async def test_a_mode_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTCORE_SPECULATION", "sometimes")
    with pytest.raises(ValueError, match="EVENTCORE_SPECULATION='sometimes'; expected one of learn, on, off"):
        async with open_store("memory:", exporters="none"):
            pass
