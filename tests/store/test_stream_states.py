"""States of streams: shared by all commands, kept encoded, folded once, and stored as snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
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
from eventcore.commands.streams.folding import StateCodec
from eventcore.errors import InvalidCommand
from eventcore.stores import AppendRequest, MemoryBackend
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Deposited, Linked, Withdrawn, account
from tests.store.conftest import Measured

A, B, C = account("a"), account("b"), account("c")

applied: list[int] = []
"""The versions of the events that `Account.apply` got."""


class Account(StreamState, version=1, snapshot_every=100):
    balance: int = 0
    seen: list[int] = []
    links: set[StreamId] = set()

    def apply(self, event: RecordedEvent) -> None:
        applied.append(event.version)
        self.seen.append(event.version)
        match event.data:
            case Deposited(amount=amount):
                self.balance += amount
            case Withdrawn(amount=amount):
                self.balance -= amount
            case Linked(account=other):
                self.links.add(other)
            case _:
                pass


Accounts = Mapping[StreamId, Account]


@pytest.fixture(autouse=True)
def _nothing_applied() -> None:
    applied.clear()


class Move(Command[Accounts]):
    source: Annotated[StreamId, Account]
    target: Annotated[StreamId, Account]
    amount: int

    def handle(self, state: Accounts) -> Iterable[tuple[StreamId, Event]]:
        if state[self.source].balance < self.amount:
            raise BusinessRuleViolation(f"{self.source} holds {state[self.source].balance}")
        yield self.source, Withdrawn(amount=self.amount)
        yield self.target, Deposited(amount=self.amount)


class Double(Command[Accounts]):
    """Writes the balance of the account into it, and the number of events that its state has seen into the note."""

    account: Annotated[StreamId, Account]

    def handle(self, state: Accounts) -> Iterable[tuple[StreamId, Event]]:
        one = state[self.account]
        assert one.seen == list(range(1, len(one.seen) + 1))
        # A copy of this command's own: the next one must not see this.
        amount, one.balance = one.balance, 1_000_000
        yield self.account, Deposited(amount=amount)


class Guarded(Command[Accounts]):
    account: Annotated[StreamId, Account]
    guard: StreamId

    def handle(self, state: Accounts) -> Iterable[tuple[StreamId, Event]]:
        assert list(state) == [self.account]
        yield self.account, Deposited(amount=state[self.account].balance)


class Several(Command[Accounts]):
    """Adds up any number of accounts."""

    target: Annotated[StreamId | None, Account]
    sources: tuple[Annotated[StreamId, Account], ...] = ()

    def handle(self, state: Accounts) -> Iterable[tuple[StreamId, Event]]:
        if self.target is not None:
            yield self.target, Deposited(amount=sum(state[source].balance for source in self.sources))


class CollectLinked(Command[Accounts]):
    """Adds up what all accounts hold that the first one links to, directly or not."""

    account: Annotated[StreamId, Account]

    def discover_streams(self, state: Accounts) -> Mapping[StreamId, type[StreamState] | None]:
        return {other: Account for one in state.values() for other in one.links}

    def handle(self, state: Accounts) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=sum(one.balance for one in state.values()))


class Connect(Command[None]):
    account: StreamId
    to: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Linked(account=self.to)


class DepositMany(Command[None]):
    account: StreamId
    count: int

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        return ((self.account, Deposited(amount=1)) for _ in range(self.count))


async def amounts(store: EventStore, stream: StreamId) -> list[int]:
    return [event.data.amount async for event in store.read(stream)]  # type: ignore[attr-defined]  # they all have it


async def test_a_command_decides_on_the_states_of_its_streams(store: EventStore) -> None:
    await store.execute(Deposit(account=A, amount=10))
    await store.execute(Move(source=A, target=B, amount=7))
    with pytest.raises(BusinessRuleViolation, match="account-a holds 3"):
        await store.execute(Move(source=A, target=B, amount=4))
    await store.execute(Move(source=B, target=A, amount=7))
    assert await amounts(store, A) == [10, 7, 7]


async def test_each_event_is_applied_once_however_many_commands_ask(telemetry: Telemetry) -> None:
    async with SteeredBackend().store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=1))
        for _ in range(5):
            await store.execute(Double(account=A))
        await store.execute(Several(target=B, sources=(A,)))
        assert applied == [1, 2, 3, 4, 5, 6]
        assert await amounts(store, A) == [1, 1, 2, 4, 8, 16]
        assert await amounts(store, B) == [32]


async def test_commands_of_one_batch_see_their_predecessors_uncommitted_events(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=1))
        await asyncio.gather(*(store.execute(Double(account=A)) for _ in range(8)))
        assert await amounts(store, A) == [1, 1, 2, 4, 8, 16, 32, 64, 128]


async def test_events_of_a_batch_that_is_refused_never_reach_the_kept_state(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=1))
        await store.execute(Double(account=A))

        def overtake_once(requests: list[AppendRequest]) -> None:
            backend.before_append = lambda requests: None
            backend.overtake(A, 3, 100)

        backend.before_append = overtake_once  # type: ignore[assignment]  # a list is a sequence
        await asyncio.gather(*(store.execute(Double(account=A)) for _ in range(3)))
        assert await amounts(store, A) == [1, 1, 100, 102, 204, 408]


async def test_a_stream_without_a_state_is_checked_and_not_folded(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=1))
        await store.execute(DepositMany(account=B, count=1200))
        applied.clear()

        def overtake_once(_: Any) -> None:
            backend.before_append = lambda requests: None
            backend.overtake(B, 1201, 1)

        backend.before_append = overtake_once
        result = await store.execute(Guarded(account=A, guard=B))
        # Decided on the cached version of the guard, refused, read and decided again: that is no attempt.
        assert (result.attempts, result.position) == (1, 1203)
        assert backend.appends[-2:] == [1, 1]
        assert set(applied) == {1}


async def test_optional_streams_and_collections_of_streams_have_states(store: EventStore) -> None:
    await store.execute(Deposit(account=A, amount=1))
    await store.execute(Deposit(account=B, amount=2))
    assert (await store.execute(Several(target=None, sources=(A, B)))).events == ()
    assert (await store.execute(Several(target=C, sources=(A, B, C)))).events[0].data == Deposited(amount=3)


async def test_discovered_streams_have_states(store: EventStore) -> None:
    await store.execute(Deposit(account=A, amount=1))
    await store.execute(Deposit(account=C, amount=5))
    await store.execute(Connect(account=A, to=B))
    await store.execute(Connect(account=B, to=C))
    for expected in (6, 12):
        assert (await store.execute(CollectLinked(account=A))).events[0].data == Deposited(amount=expected)


async def test_asking_for_a_stream_that_has_no_state_says_what_to_do(store: EventStore) -> None:
    class Wrong(Guarded):
        def handle(self, state: Accounts) -> Iterable[tuple[StreamId, Event]]:
            yield self.account, Deposited(amount=state[self.guard].balance)

    with pytest.raises(InvalidCommand, match=r"StreamId\('account-b'\) has no state in this command; annotate its field"):
        await store.execute(Wrong(account=A, guard=B))


async def test_a_stream_that_is_discovered_as_another_class_is_refused(store: EventStore) -> None:
    class Other(StreamState):
        def apply(self, event: RecordedEvent) -> None:
            pass

    class Wrong(CollectLinked):
        def discover_streams(self, state: Accounts) -> Mapping[StreamId, type[StreamState] | None]:
            return {self.account: Other}

    with pytest.raises(InvalidCommand, match=r"asks for the stream .* as Account and as Other"):
        await store.execute(Wrong(account=A))


async def test_a_state_that_cannot_be_read_back_is_refused_and_says_why(store: EventStore) -> None:
    class Spoilt(Account):
        def apply(self, event: RecordedEvent) -> None:
            self.balance = "much"  # type: ignore[assignment]  # that is the point

    class Use(Command[Mapping[StreamId, Spoilt]]):
        account: StreamId

        def discover_streams(self, state: Mapping[StreamId, Spoilt]) -> Mapping[StreamId, type[StreamState] | None]:
            return {self.account: Spoilt}

        def handle(self, state: Mapping[StreamId, Spoilt]) -> None:
            return None

    await store.execute(Deposit(account=A))
    with pytest.raises(InvalidCommand, match="Spoilt cannot be read back: Expected `int`, got `str`"):
        await store.execute(Use(account=A))


class Scalars(StreamState, snapshot_every=3):
    """Nothing in it can be changed, so commands get copies of its fields and not of its JSON."""

    balance: int = 0
    last: StreamId | None = None
    text: str = ""

    def apply(self, event: RecordedEvent) -> None:
        applied.append(event.version)
        assert isinstance(event.data, Deposited)
        self.balance += event.data.amount
        self.last = event.stream_id
        self.text += f"{event.version}ü"


class DoubleScalars(Command[Mapping[StreamId, Scalars]]):
    account: Annotated[StreamId, Scalars]

    def handle(self, state: Mapping[StreamId, Scalars]) -> Iterable[tuple[StreamId, Event]]:
        one = state[self.account]
        assert (one.text, one.last) == ("".join(f"{version}ü" for version in range(1, one.text.count("ü") + 1)), A)
        amount, one.balance, one.text, one.last = one.balance, 1_000_000, "spoilt", None
        yield self.account, Deposited(amount=amount)


async def test_commands_share_nothing_of_a_state_of_scalars(telemetry: Telemetry, measured: Measured) -> None:
    backend = MemoryBackend()
    async with open_store(backend, telemetry=telemetry) as store:
        await store.execute(Deposit(account=A, amount=1))
        for _ in range(4):
            await store.execute(DoubleScalars(account=A))
        assert applied == [1, 2, 3, 4]
        await asyncio.gather(*(store.execute(DoubleScalars(account=A)) for _ in range(3)))
        assert await amounts(store, A) == [1, 1, 2, 4, 8, 16, 32, 64]
    assert measured("snapshots.writes", result="hit") >= 1
    async with open_store(backend.another(), telemetry=telemetry) as store:
        assert (await store.execute(DoubleScalars(account=A))).events[0].data == Deposited(amount=128)
    assert measured("snapshots.reads", result="hit") == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [("much", "cannot be read back"), (2.5, "cannot be read back"), ("\ud800", "cannot be kept"), ([1], "cannot be read back")],
)
async def test_a_scalar_that_is_not_what_its_field_says_is_refused(value: Any, says: str, store: EventStore) -> None:
    class Spoilt(Scalars):
        def apply(self, event: RecordedEvent) -> None:
            self.balance = value

    class Use(Command[Mapping[StreamId, Spoilt]]):
        account: StreamId

        def discover_streams(self, state: Mapping[StreamId, Spoilt]) -> Mapping[StreamId, type[StreamState] | None]:
            return {self.account: Spoilt}

        def handle(self, state: Mapping[StreamId, Spoilt]) -> None:
            return None

    await store.execute(Deposit(account=A))
    with pytest.raises(InvalidCommand, match=f"Spoilt {says}"):
        await store.execute(Use(account=A))


@pytest.mark.parametrize("value", ["a", "ü", True, 0, -(2**63), 2**64, 2.5, float("inf"), None, A, "\x00"])
def test_what_is_copied_by_its_fields_is_what_its_json_would_be(value: Any) -> None:
    class Mixed(StreamState):
        text: str | None = None
        number: int | float = 0
        stream: StreamId | None = None
        flag: bool = False

        def apply(self, event: RecordedEvent) -> None:
            raise NotImplementedError

    codec = StateCodec(Mixed)
    kinds = {bool: "flag", str: "text", int: "number", float: "number", StreamId: "stream", type(None): "text"}
    state = Mixed(**{kinds[type(value)]: value})
    kept = codec.kept(state, 1, "", 1)
    if kept.whole is None:
        assert value in (2**64, float("inf"), -(2**63))
        return
    assert kept.whole is not state
    assert codec.copy(kept) == codec.decode(codec.encode(state)) == state
    assert codec.copy(kept) is not codec.copy(kept)


# Snapshots


async def test_a_state_is_stored_in_the_background_and_read_after_a_restart(
    measured: Measured, telemetry: Telemetry, url: str
) -> None:
    backend = MemoryBackend() if url == "memory:" else url
    async with open_store(backend, telemetry=telemetry) as store:
        await store.execute(DepositMany(account=A, count=250))
        await store.execute(Double(account=A))
    assert measured("snapshots.writes", result="hit") == 1
    applied.clear()
    again = backend.another() if isinstance(backend, MemoryBackend) else backend
    async with open_store(again, telemetry=telemetry) as store:
        result = await store.execute(Double(account=A))
        assert result.events[0].data == Deposited(amount=500)
    assert applied == [251]
    assert measured("snapshots.reads", result="hit") == 1
    assert measured("commands.events.loaded", command_type="Double", source="full") == 1
    assert measured("commands.events.loaded", command_type="Double", source="snapshot") == 1


async def test_another_version_of_the_class_is_not_used(measured: Measured, telemetry: Telemetry) -> None:
    backend = MemoryBackend()
    async with open_store(backend, telemetry=telemetry) as store:
        await store.execute(DepositMany(account=A, count=250))
        await store.execute(Double(account=A))
    applied.clear()
    Account.state_version = 2
    try:
        async with open_store(backend.another(), telemetry=telemetry) as store:
            await store.execute(Double(account=A))
    finally:
        Account.state_version = 1
    assert len(applied) == 251
    assert measured("snapshots.reads", result="miss") == 1
    assert measured("snapshots.reads", result="hit") == 0


async def test_a_stored_state_that_the_class_cannot_read_is_left_aside(measured: Measured, telemetry: Telemetry) -> None:
    backend = MemoryBackend()
    async with open_store(backend, telemetry=telemetry) as store:
        await store.execute(DepositMany(account=A, count=250))
        await store.execute(Double(account=A))
    snapshots = backend._events.snapshots
    for place, snapshot in list(snapshots.items()):
        snapshots[place] = type(snapshot)(snapshot.key, snapshot.version, snapshot.event_id, 0, b'{"balance":"x"}')
    async with open_store(backend.another(), telemetry=telemetry) as store:
        assert (await store.execute(Double(account=A))).events[0].data == Deposited(amount=500)
    assert measured("snapshots.reads", result="error") == 1


# Long streams


async def test_commands_at_once_on_a_long_stream_share_one_load_and_one_fold(measured: Measured, telemetry: Telemetry) -> None:
    backend = MemoryBackend()
    async with open_store(backend, telemetry=telemetry) as store:
        await store.execute(DepositMany(account=A, count=6_000))
    async with open_store(backend.another(), telemetry=telemetry) as store:
        before = measured("events.read", purpose="command")
        await asyncio.gather(*(store.execute(Several(target=account(n), sources=(A,))) for n in range(20)))
        assert measured("events.read", purpose="command") - before == 6_000
        assert applied == list(range(1, 6_001))
        assert await amounts(store, account(7)) == [6_000]


@pytest.mark.parametrize("cache_bytes", [64 << 20, 1 << 20])
async def test_commands_at_once_that_fold_a_long_stream_themselves_share_one_load(
    cache_bytes: int, measured: Measured, telemetry: Telemetry
) -> None:
    backend = MemoryBackend()
    async with open_store(backend, telemetry=telemetry) as store:
        await store.execute(DepositMany(account=A, count=6_000))
    async with open_store(backend.another(), telemetry=telemetry, cache_bytes=cache_bytes) as store:
        before = measured("events.read", purpose="command")
        results = await asyncio.gather(*(store.execute(Deposit(account=A)) for _ in range(20)))
        assert measured("events.read", purpose="command") - before == 6_000
        assert [result.attempts for result in results] == [1] * 20
        assert sorted(result.position for result in results) == list(range(6_001, 6_021))
