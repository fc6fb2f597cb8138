from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from eventcore import BusinessRuleViolation, Command, Event, EventStore, RecordedEvent, StreamId, open_store
from eventcore.errors import InvalidCommand, InvalidEvent, StoreClosed, WrongEventLoop
from tests.store.bank import Balances, Collect, Deposit, Deposited, Link, Transfer, account, balance_after


async def test_a_command_appends_what_it_yields(store: EventStore) -> None:
    result = await store.execute(Deposit(account=account("a"), amount=5))
    assert (result.attempts, result.position) == (1, 1)
    [event] = result.events
    assert (event.stream_id, event.version, event.position, event.data) == (account("a"), 1, 1, Deposited(amount=5))
    assert [stored async for stored in store.read(account("a"))] == [event]


async def test_a_command_writes_several_streams_at_once(store: EventStore) -> None:
    await store.execute(Deposit(account=account("a"), amount=5))
    result = await store.execute(Transfer(source=account("a"), target=account("b"), amount=3))
    assert [(event.position, event.stream_id, event.version) for event in result.events] == [
        (2, account("a"), 2),
        (3, account("b"), 1),
    ]


async def test_a_refusal_reaches_the_caller_and_writes_nothing(store: EventStore) -> None:
    with pytest.raises(BusinessRuleViolation, match="account-a holds 0, not 1"):
        await store.execute(Transfer(source=account("a"), target=account("b"), amount=1))
    assert await store.head_position() == 0


async def test_money_is_conserved_by_many_concurrent_transfers(store: EventStore) -> None:
    accounts = [account(number) for number in range(6)]
    await asyncio.gather(*(store.execute(Deposit(account=name, amount=100)) for name in accounts))
    choice = random.Random(7)
    transfers = [
        Transfer(source=source, target=target, amount=choice.randint(1, 60))
        for source, target in (choice.sample(accounts, 2) for _ in range(400))
    ]
    results = await asyncio.gather(*(store.execute(transfer) for transfer in transfers), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BusinessRuleViolation)]
    assert [result for result in results if isinstance(result, BaseException)] == refused
    balances: Balances = {}
    positions = []
    async for event in store.read_all():
        positions.append(event.position)
        balance_after(balances, event)
        assert balances[event.stream_id] >= 0
    assert sum(balances.values()) == 600
    assert positions == list(range(1, 6 + 2 * (400 - len(refused)) + 1))


async def test_results_name_exactly_what_is_stored(store: EventStore) -> None:
    results = await asyncio.gather(*(store.execute(Deposit(account=account(number % 3))) for number in range(60)))
    told = sorted((event for result in results for event in result.events), key=lambda event: event.position)
    assert told == [event async for event in store.read_all()]


class _Nothing(Command[None]):
    account: StreamId

    def handle(self, state: None) -> None:
        return None


async def test_a_command_without_events_is_answered_with_the_position_it_saw(store: EventStore) -> None:
    await store.execute(Deposit(account=account("a")))
    result = await store.execute(_Nothing(account=account("a")))
    assert (result.events, result.position, result.attempts) == ((), 1, 1)


async def test_discovered_streams_are_read_until_no_new_one_is_named(store: EventStore) -> None:
    a, b, c = account("a"), account("b"), account("c")
    await store.execute(Link(account=a, to=b))
    await store.execute(Link(account=b, to=c))
    await store.execute(Link(account=c, to=a))
    await store.execute(Deposit(account=b, amount=2))
    await store.execute(Deposit(account=c, amount=3))
    result = await store.execute(Collect(account=a))
    assert [event.stream_id for event in result.events] == [b, c, a]
    assert result.events[-1].data == Deposited(amount=5)


async def test_a_discovered_stream_is_part_of_the_conflict_check(store: EventStore) -> None:
    a, b = account("a"), account("b")
    await store.execute(Link(account=a, to=b))
    calls = [store.execute(command) for _ in range(20) for command in (Deposit(account=b), Collect(account=a))]
    await asyncio.gather(*calls)
    await store.execute(Collect(account=a))
    balances: Balances = {}
    async for event in store.read_all():
        balance_after(balances, event)
    assert balances == {a: 20, b: 0}


class _Order(Command[list[int]]):
    streams: frozenset[StreamId]
    optional: StreamId | None = None

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        return [*state, event.position]

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        assert state == sorted(state)
        for stream in sorted(self.streams):
            yield stream, Deposited(amount=len(state))


async def test_events_of_several_streams_are_folded_in_order_of_position(store: EventStore) -> None:
    names = [account(number) for number in range(4)]
    for number in range(12):
        await store.execute(Deposit(account=names[number * 7 % 4]))
    result = await store.execute(_Order(streams=frozenset(names[:3]), optional=names[3]))
    assert [event.data for event in result.events] == [Deposited(amount=12)] * 3


async def test_a_stream_longer_than_a_page_is_folded_whole(store: EventStore) -> None:
    class Fill(Command[int]):
        account: StreamId

        def initial_state(self) -> int:
            return 0

        def apply(self, state: int, event: RecordedEvent) -> int:
            assert event.version == state + 1
            return event.version

        def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
            for _ in range(1700):
                yield self.account, Deposited(amount=state)

    for round_ in range(4):
        result = await store.execute(Fill(account=account("a")))
        assert result.events[0].data == Deposited(amount=1700 * round_)
    assert [event.version async for event in store.read(account("a"))] == list(range(1, 6801))
    # Longer than the cache keeps whole: the next one reads it page by page.
    assert (await store.execute(Fill(account=account("a")))).events[0].data == Deposited(amount=6800)


# What a command may not do


async def test_a_plain_str_in_place_of_a_stream_id_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidCommand, match=r"Deposit.account holds 'a' of type str; write StreamId\('a'\)"):
        await store.execute(Deposit(account="a"))  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidCommand, match=r"_Order.streams holds 'a' of type str"):
        await store.execute(_Order(streams={"a"}))  # type: ignore[arg-type]  # that is the point


class _Elsewhere(Command[None]):
    account: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield account("elsewhere"), Deposited(amount=1)


async def test_writing_outside_the_boundary_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidCommand, match="writes to the stream StreamId\\('account-elsewhere'\\), which it does not read"):
        await store.execute(_Elsewhere(account=account("a")))


class _Yields(Command[None]):
    account: StreamId
    what: Any

    def handle(self, state: None) -> Any:
        return self.what


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (7, "handle returned 7; expected pairs"),
        ([7], "handle yields 7 of type int"),
        ([(account("a"), "no event")], "handle yields .* of type tuple"),
        ([("account-a", Deposited(amount=1))], "writes to 'account-a' of type str"),
    ],
)
async def test_a_decision_that_is_none_is_refused(store: EventStore, what: Any, problem: str) -> None:
    with pytest.raises(InvalidCommand, match=problem):
        await store.execute(_Yields(account=account("a"), what=what))


async def test_an_event_that_would_not_read_back_is_refused_and_harms_no_other(store: EventStore) -> None:
    good = [store.execute(Deposit(account=account(number))) for number in range(5)]
    bad = store.execute(_Yields(account=account("bad"), what=[(account("bad"), Deposited(amount="5"))]))  # type: ignore[arg-type]  # that is the point
    *fine, refused = await asyncio.gather(*good, bad, return_exceptions=True)
    assert isinstance(refused, InvalidEvent)
    assert "bank.Deposited: would not read back: Expected `int`, got `str` - at `$.amount`" in str(refused)
    assert not [result for result in fine if isinstance(result, BaseException)]
    assert await store.head_position() == 5


async def test_what_a_command_raises_reaches_its_caller_as_it_is(store: EventStore) -> None:
    class Broken(Command[None]):
        account: StreamId

        def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
            raise LookupError("of the command")

    with pytest.raises(LookupError, match="of the command"):
        await store.execute(Broken(account=account("a")))
    await store.execute(Deposit(account=account("a")))


def _commands_that_cannot_be() -> Iterable[tuple[type[Command[Any]], str]]:
    class NoStream(Command[None]):
        amount: int = 1

        def handle(self, state: None) -> None:
            return None

    class NoHandle(Command[None]):
        account: StreamId = account("a")

    class AsyncHandle(Command[None]):
        account: StreamId = account("a")

        async def handle(self, state: None) -> None:  # type: ignore[override]  # that is the point
            return None

    class AsyncYields(Command[None]):
        account: StreamId = account("a")

        async def handle(self, state: None) -> AsyncIterator[Any]:  # type: ignore[override]  # that is the point
            yield 1

    class Hidden(Command[None]):
        account: StreamId = account("a")
        shares: dict[StreamId, int] = {}

        def handle(self, state: None) -> None:
            return None

    class HalfAState(Command[int]):
        account: StreamId = account("a")

        def initial_state(self) -> int:
            return 0

        def handle(self, state: int) -> None:
            return None

    yield NoStream, "has no field of type StreamId"
    yield NoHandle, "does not define handle"
    yield AsyncHandle, "AsyncHandle.handle is async"
    yield AsyncYields, "AsyncYields.handle is async"
    yield Hidden, "Hidden.shares is typed .*would escape the conflict check"
    yield HalfAState, "defines only one of initial_state and apply"


@pytest.mark.parametrize(("command", "problem"), list(_commands_that_cannot_be()))
async def test_a_command_class_that_cannot_work_is_refused(command: type[Command[Any]], problem: str) -> None:
    async with open_store("memory:", exporters=[]) as store:
        with pytest.raises(InvalidCommand, match=problem):
            await store.execute(command())


async def test_something_else_than_a_command_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidCommand, match="got 'x' of type str"):
        await store.execute("x")  # type: ignore[arg-type]  # that is the point


# Life of a store


async def test_a_store_is_used_within_its_block_only(url: str) -> None:
    store = open_store(url, exporters=[])
    with pytest.raises(StoreClosed, match="async with"):
        await store.execute(Deposit(account=account("a")))
    async with store:
        await store.execute(Deposit(account=account("a")))
    with pytest.raises(StoreClosed):
        await store.execute(Deposit(account=account("a")))
    await store.close()
    with pytest.raises(StoreClosed, match="opened once"):
        await store.__aenter__()


async def test_closing_commits_what_waits(sqlite_url: str) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        calls = [asyncio.ensure_future(store.execute(Deposit(account=account(number)))) for number in range(200)]
        while await store.head_position() == 0:
            await asyncio.sleep(0)
        await store.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
    done = [result for result in results if not isinstance(result, BaseException)]
    assert done
    assert {type(result) for result in results if isinstance(result, BaseException)} <= {StoreClosed}
    async with open_store(sqlite_url, exporters=[]) as store:
        assert await store.head_position() == len(done)


async def test_another_event_loop_is_refused(url: str) -> None:
    async with open_store(url, exporters=[]) as store:
        with pytest.raises(WrongEventLoop, match="run_coroutine_threadsafe"):
            await asyncio.to_thread(asyncio.run, store.execute(Deposit(account=account("a"))))
