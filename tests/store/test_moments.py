"""What a command decides on is one moment of the store: no event is folded twice, and no stream is there that this moment does
not name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import pytest

from eventcore import Command, Event, EventStore, RecordedEvent, RetryPolicy, StreamId, StreamState, Telemetry, open_store
from eventcore.errors import CommandTimeout
from eventcore.stores import BackendPage, Purpose, StateKey
from tests.store.backends import SteeredBackend
from tests.store.bank import Balances, Deposit, Deposited, Linked, Withdrawn, account, balance_after
from tests.store.conftest import Measured
from tests.store.test_group_commit import held_up
from tests.store.test_shared_reads import GatedReads
from tests.store.test_speculation import Place
from tests.store.test_stream_states import DepositMany

A, B, C, D = (account(name) for name in "abcd")
X = account("x")


@pytest.fixture
def place(url: str) -> Place:
    return Place(url)


class Unlinked(Event):
    account: StreamId


class Swept(Event):
    taken: dict[str, int]


class Put(Command[None]):
    account: StreamId
    amount: int

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=self.amount)


class Change(Command[None]):
    """Links one account to another, or takes the link away."""

    account: StreamId
    to: StreamId
    links: bool = True

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Linked(account=self.to) if self.links else Unlinked(account=self.to)


class Sweep(Command[tuple[dict[StreamId, set[StreamId]], Balances]]):
    """Moves the money of all accounts that are linked, directly or not, to the first one."""

    account: StreamId

    def initial_state(self) -> tuple[dict[StreamId, set[StreamId]], Balances]:
        return {}, {}

    def apply(
        self, state: tuple[dict[StreamId, set[StreamId]], Balances], event: RecordedEvent
    ) -> tuple[dict[StreamId, set[StreamId]], Balances]:
        links, balances = state
        if isinstance(event.data, Linked):
            links.setdefault(event.stream_id, set()).add(event.data.account)
        elif isinstance(event.data, Unlinked):
            links.setdefault(event.stream_id, set()).discard(event.data.account)
        return links, balance_after(balances, event)

    def discover_streams(self, state: tuple[dict[StreamId, set[StreamId]], Balances]) -> Iterable[StreamId]:
        return sorted({linked for links in state[0].values() for linked in links})

    def handle(self, state: tuple[dict[StreamId, set[StreamId]], Balances]) -> Iterable[tuple[StreamId, Event]]:
        taken = {other: amount for other, amount in sorted(state[1].items()) if other != self.account and amount > 0}
        yield self.account, Swept(taken={str(other): amount for other, amount in taken.items()})
        for other, amount in taken.items():
            yield other, Withdrawn(amount=amount)
        if taken:
            yield self.account, Deposited(amount=sum(taken.values()))


def swept_alone(command: Sweep, before: list[RecordedEvent]) -> dict[str, int]:
    """What a command takes that is executed alone on a log."""
    streams = {command.account}
    while True:
        state = command.initial_state()
        for event in before:
            if event.stream_id in streams:
                state = command.apply(state, event)
        if streams.issuperset(new := set(command.discover_streams(state))):
            (_, first), *_ = command.handle(state)
            assert isinstance(first, Swept)
            return first.taken
        streams |= new


async def test_a_command_that_is_decided_after_a_link_was_removed_has_no_longer_its_stream(store: EventStore) -> None:
    await store.execute(Deposit(account=X, amount=100))
    await store.execute(Change(account=A, to=X))
    unlinked, swept = await asyncio.gather(store.execute(Change(account=A, to=X, links=False)), store.execute(Sweep(account=A)))
    assert unlinked.position < swept.position
    assert [event.data for event in swept.events] == [Swept(taken={})]


@pytest.mark.parametrize("warm", [True, False])
async def test_streams_that_only_an_older_state_names_are_no_part_of_the_boundary(
    place: Place, telemetry: Telemetry, warm: bool
) -> None:
    async with place.store("one", telemetry) as one, place.store("two", telemetry) as two:
        first = two if warm else one
        await one.execute(Deposit(account=X, amount=100))
        await first.execute(Change(account=A, to=X))
        await first.execute(Deposit(account=A))
        await one.execute(Change(account=A, to=X, links=False))
        swept = await two.execute(Sweep(account=A))
        assert [event.data for event in swept.events] == [Swept(taken={})]


@pytest.mark.parametrize("seed", range(3))
async def test_commands_that_discover_streams_decide_as_if_they_were_executed_one_after_the_other(
    place: Place, telemetry: Telemetry, seed: int
) -> None:
    choose = random.Random(seed)
    accounts = [account(name) for name in "abcde"]

    def some() -> Command[Any]:
        one, other = choose.sample(accounts, 2)
        match choose.randrange(6):
            case 0 | 1:
                return Put(account=one, amount=choose.randint(1, 9))
            case 2:
                return Change(account=one, to=other, links=True)
            case 3:
                return Change(account=one, to=other, links=False)
            case _:
                return Sweep(account=one)

    async with place.store("one", telemetry) as one, place.store("two", telemetry) as two:
        retry = RetryPolicy(attempts=100)
        for _ in range(12):
            await asyncio.gather(*(choose.choice((one, two)).execute(some(), retry=retry) for _ in range(12)))
        log = [event async for event in one.read_all(after=0)]
    checked = 0
    for number, event in enumerate(log):
        if isinstance(event.data, Swept):
            checked += bool(event.data.taken)
            assert event.data.taken == swept_alone(Sweep(account=event.stream_id), log[:number]), event.position
    assert checked


class Paid(Event):
    amount: int
    memo: str = ""


class Seen(Event):
    balance: int
    events: int


class Account(StreamState, version=1, snapshot_every=50):
    events: int = 0
    balance: int = 0

    def apply(self, event: RecordedEvent) -> None:
        assert isinstance(event.data, Paid)
        self.events += 1
        self.balance += event.data.amount


class Pay(Command[None]):
    account: StreamId
    memo: str = ""

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Paid(amount=1, memo=self.memo)


class Look(Command[Mapping[StreamId, Account]]):
    account: Annotated[StreamId, Account]
    note: StreamId

    def handle(self, state: Mapping[StreamId, Account]) -> Iterable[tuple[StreamId, Event]]:
        seen = state[self.account]
        yield self.note, Seen(balance=seen.balance, events=seen.events)


class Fold(Command[int]):
    account: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + 1

    def handle(self, state: int) -> None:
        pass


async def test_a_state_is_not_folded_twice_when_another_command_reads_its_stream_from_the_beginning(
    place: Place, telemetry: Telemetry
) -> None:
    notes, others = StreamId("notes-1"), [account(f"other-{number}") for number in range(6)]

    async def look(store: EventStore) -> Seen:
        seen = (await store.execute(Look(account=A, note=notes))).events[0].data
        assert isinstance(seen, Seen)
        return seen

    async with (
        place.store("one", telemetry, cache_bytes=1_000_000) as one,
        place.store("two", telemetry, cache_bytes=1_000_000) as two,
    ):
        for stream in (A, *others):
            await asyncio.gather(*(one.execute(Pay(account=stream, memo="m" * 3000)) for _ in range(130)))
        assert await look(two) == Seen(balance=130, events=130)
        # One call reads the state of A, A from its first event, and more than the cache holds.
        seen, *_ = await asyncio.gather(look(two), *(two.execute(Fold(account=stream)) for stream in (A, *others)))
        assert seen == Seen(balance=130, events=130)
        for _ in range(60):
            await two.execute(Pay(account=A))
        assert await look(two) == Seen(balance=190, events=190)
    async with place.store("three", telemetry) as three:
        assert await look(three) == Seen(balance=190, events=190)


class PayBoth(Command[None]):
    one: StreamId
    other: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.one, Deposited(amount=1)
        yield self.other, Deposited(amount=1)


@pytest.mark.parametrize("speculation", ["off", "on"])
async def test_a_wrong_guess_of_one_command_is_no_conflict_of_the_command_that_has_built_on_it(
    telemetry: Telemetry, measured: Measured, monkeypatch: pytest.MonkeyPatch, speculation: str
) -> None:
    monkeypatch.setenv("EVENTCORE_SPECULATION", speculation)
    first, backend = SteeredBackend(), SteeredBackend()
    backend.real = first.real.another()
    async with first.store(telemetry) as one, open_store(backend, name="other", telemetry=telemetry) as two:
        for stream in (A, C):
            await one.execute(Deposit(account=stream, amount=100))
        for stream in (B, C):
            await two.execute(Deposit(account=stream))
        await one.execute(Deposit(account=C))
        await two.execute(Deposit(account=C))  # refused once, so commands on C read the store for a while
        backend.appends.clear()
        held = await held_up(backend, two.execute(Deposit(account=D)))
        guesses = asyncio.create_task(two.execute(PayBoth(one=A, other=B)))
        await asyncio.sleep(0.01)
        builds_on_it = asyncio.create_task(two.execute(PayBoth(one=C, other=B), retry=RetryPolicy(attempts=1)))
        await asyncio.sleep(0.05)
        backend.let_all()
        results = await asyncio.gather(held, guesses, builds_on_it)
    assert [result.attempts for result in results] == [1, 1, 1]
    counts = {"store": "other", "command_type": "PayBoth"}
    assert measured("commands.conflicts", resolution="absorbed", **counts) == 0
    assert measured("commands.conflicts", resolution="escaped", **counts) == 0
    assert measured("commands.retries", **counts) == 0


async def test_a_command_whose_append_was_refused_has_written_nothing(telemetry: Telemetry) -> None:
    first, backend = SteeredBackend(), GatedReads()
    backend.real = first.real.another()
    backend.gate.set()
    async with first.store(telemetry) as one, open_store(backend, name="other", telemetry=telemetry) as two:
        await two.execute(Deposit(account=A))
        await one.execute(DepositMany(account=A, count=2000))
        backend.gate.clear()
        backend.appends.clear()
        # What the process knows of the account is old: the append is refused, and the command waits for a read.
        with pytest.raises(CommandTimeout) as timeout:
            await two.execute(Deposit(account=A), timeout=0.3)
        assert backend.appends == [1]
        assert not timeout.value.may_have_committed
        backend.gate.set()
    assert await first.real.log.head_position() == 2001


class ChangedBetweenReads(SteeredBackend):
    """Another process changes the store before the second read."""

    def __init__(self, change: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._change = change
        self.reads = 0

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = MappingProxyType({}),
    ) -> BackendPage:
        if X in after and not self.reads:
            self.reads += 1
            await self._change()
        return await super().read_streams(after, up_to=up_to, origins=origins, purpose=purpose, snapshots=snapshots)


@pytest.mark.parametrize("cache_bytes", [1 << 26, 20_000], ids=["kept whole", "read in pages"])
async def test_a_link_that_is_removed_while_its_stream_is_read_is_not_followed(telemetry: Telemetry, cache_bytes: int) -> None:
    first = SteeredBackend()
    async with first.store(telemetry) as one:
        await asyncio.gather(*(one.execute(Put(account=A, amount=1)) for _ in range(700)))
        await one.execute(Deposit(account=X, amount=100))
        await one.execute(Change(account=A, to=X))
        backend = ChangedBetweenReads(lambda: one.execute(Change(account=A, to=X, links=False)))
        backend.real = first.real.another()
        async with open_store(backend, name="two", telemetry=telemetry, cache_bytes=cache_bytes) as two:
            swept = await two.execute(Sweep(account=A))
        assert backend.reads == 1
        assert [event.data for event in swept.events] == [Swept(taken={})]
