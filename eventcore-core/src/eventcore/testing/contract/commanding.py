"""Commands in one process: what they read, what they write, and that conflicting commands are not both accepted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any, Final

import pytest

from eventcore.commands import Command
from eventcore.errors import BusinessRuleViolation, InvalidEvent
from eventcore.events import Event, RecordedEvent, StreamId
from eventcore.store import EventStore
from eventcore.testing.contract.accounts import (
    Balances,
    Collect,
    Deposit,
    Deposited,
    Guarantee,
    Link,
    Look,
    Transfer,
    Withdrawn,
    account,
    balance_after,
)
from eventcore.testing.contract.fixtures import ContractFixtures

A: Final = account("a")
B: Final = account("b")
C: Final = account("c")


class _Positions(Command[list[int]]):
    """Writes the number of events that it has read, and checks that they come in order of position."""

    streams: frozenset[StreamId]
    optional: StreamId | None = None

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        return [*state, event.position]

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        assert state == sorted(state), f"events of several streams must be applied in order of position, not as {state}"
        for stream in sorted(self.streams):
            yield stream, Deposited(amount=len(state))


class _Fail(Command[None]):
    """Raises an unexpected exception."""

    stream: StreamId

    def handle(self, state: None) -> None:
        raise LookupError("of the command")


class CommandContract(ContractFixtures):
    """Tests of ``EventStore.execute`` with one store."""

    async def test_a_command_appends_what_it_yields(self, store: EventStore) -> None:
        result = await store.execute(Deposit(account=A, amount=5, note="é\U0001f680"), correlation_id="c", headers={"x": "ü"})
        assert (result.attempts, result.position) == (1, 1)
        [event] = result.events
        assert (event.stream_id, event.version, event.position) == (A, 1, 1)
        assert event.data == Deposited(amount=5, note="é\U0001f680")
        assert (event.metadata.command_type, event.metadata.correlation_id) == ("Deposit", "c")
        assert event.metadata.headers == {"x": "ü"}
        assert [stored async for stored in store.read(A)] == [event], "the result holds what is stored"

    async def test_a_command_writes_several_streams_at_once(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A, amount=5))
        result = await store.execute(Transfer(source=A, target=B, amount=3))
        assert [(event.position, event.stream_id, event.version) for event in result.events] == [(2, A, 2), (3, B, 1)]
        assert result.position == 3

    async def test_a_refusal_reaches_the_caller_and_writes_nothing(self, store: EventStore) -> None:
        with pytest.raises(BusinessRuleViolation, match="account-a holds 0, not 1"):
            await store.execute(Transfer(source=A, target=B, amount=1))
        assert await store.head_position() == 0

    async def test_a_command_without_events_is_answered_with_the_position_it_saw(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A))
        result = await store.execute(Look(accounts=(A, B)))
        assert (result.events, result.position, result.attempts) == ((), 1, 1)

    async def test_results_hold_exactly_what_is_stored(self, store: EventStore) -> None:
        results = await asyncio.gather(*(store.execute(Deposit(account=account(number % 3))) for number in range(60)))
        returned = sorted((event for result in results for event in result.events), key=lambda event: event.position)
        assert returned == [event async for event in store.read_all()]

    async def test_discovered_streams_are_read_until_no_new_one_is_found(self, store: EventStore) -> None:
        for source, target in ((A, B), (B, C), (C, A)):
            await store.execute(Link(account=source, to=target))
        await store.execute(Deposit(account=B, amount=2))
        await store.execute(Deposit(account=C, amount=3))
        result = await store.execute(Collect(account=A))
        assert [(event.stream_id, event.data) for event in result.events] == [
            (B, Withdrawn(amount=2)),
            (C, Withdrawn(amount=3)),
            (A, Deposited(amount=5)),
        ]

    async def test_a_discovered_stream_is_part_of_the_conflict_check(self, store: EventStore) -> None:
        await store.execute(Link(account=A, to=B))
        calls = [store.execute(command) for _ in range(20) for command in (Deposit(account=B), Collect(account=A))]
        await asyncio.gather(*calls)
        await store.execute(Collect(account=A))
        assert await balances(store) == {A: 20, B: 0}, "each command collects what is there"

    async def test_events_of_several_streams_are_applied_in_order_of_position(self, store: EventStore) -> None:
        names = [account(number) for number in range(4)]
        for number in range(12):
            await store.execute(Deposit(account=names[number * 7 % 4]))
        result = await store.execute(_Positions(streams=frozenset(names[:3]), optional=names[3]))
        assert [event.data for event in result.events] == [Deposited(amount=12)] * 3

    async def test_a_stream_longer_than_a_page_is_read_as_a_whole(self, store: EventStore) -> None:
        for round_ in range(1, 5):
            result = await store.execute(Deposit(account=A, times=1700))
            assert result.events[-1].version == round_ * 1700
        assert [event.version async for event in store.read(A)] == list(range(1, 6801))
        assert (await store.execute(Deposit(account=A))).events[0].version == 6801

    async def test_money_is_conserved_by_many_concurrent_transfers(self, store: EventStore) -> None:
        accounts = [account(number) for number in range(6)]
        await asyncio.gather(*(store.execute(Deposit(account=name, amount=100)) for name in accounts))
        choice = random.Random(7)
        transfers = [Transfer(source=a, target=b, amount=choice.randint(1, 60)) for a, b in pairs(choice, accounts, 300)]
        results = await asyncio.gather(*map(store.execute, transfers), return_exceptions=True)
        refused = [result for result in results if isinstance(result, BusinessRuleViolation)]
        assert [result for result in results if isinstance(result, BaseException)] == refused
        assert refused, "some transfers ask for more than there is"
        found = await balances(store, never_negative=True)
        assert sum(found.values()) == 600
        assert await store.head_position() == 6 + 2 * (300 - len(refused))

    async def test_a_stream_that_is_only_read_guards_the_decision(self, store: EventStore) -> None:
        """Two withdrawals read both accounts, and each writes one of them. Only one may be accepted for the same sum."""
        for number in range(20):
            a, b = account(f"{number}-a"), account(f"{number}-b")
            await store.execute(Deposit(account=a, amount=1))
            results = await asyncio.gather(
                store.execute(Guarantee(account=a, guarantor=b, amount=1)),
                store.execute(Guarantee(account=b, guarantor=a, amount=1)),
                return_exceptions=True,
            )
            refused = [result for result in results if isinstance(result, BusinessRuleViolation)]
            assert len(refused) == 1, f"one of two conflicting commands must be refused, but: {results}"

    async def test_each_of_512_commands_at_once_gets_its_own_answer(self, store: EventStore) -> None:
        bad: dict[int, Command[Any]] = {
            100: Deposit(account=account(100), amount=1 << 80, note="\ud800"),
            200: Transfer(source=account(200), target=account(0), amount=5),
            300: _Fail(stream=account(300)),
        }
        commands = [bad.get(number, Deposit(account=account(number))) for number in range(512)]
        results = await asyncio.gather(*(store.execute(command) for command in commands), return_exceptions=True)
        failed = {number: type(result) for number, result in enumerate(results) if isinstance(result, BaseException)}
        assert failed == {100: InvalidEvent, 200: BusinessRuleViolation, 300: LookupError}, "a bad command fails alone"
        found = [event.position async for event in store.read_all()]
        assert found == list(range(1, 510)), "the events of the other commands are stored, without gaps"

    async def test_a_stream_that_all_commands_write_to_costs_each_command_one_attempt(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A))
        results = await asyncio.gather(*(store.execute(Deposit(account=A, amount=number)) for number in range(256)))
        assert {result.attempts for result in results} == {1}, "commands of one process are handled one after the other"
        assert [event.data async for event in store.read(A, after_version=1)] == [Deposited(amount=n) for n in range(256)], (
            "in order of arrival"
        )

    async def test_a_cancelled_command_is_stored_as_a_whole_or_not_at_all_and_affects_no_other(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A, amount=1000))
        targets = [account(f"target-{number}") for number in range(60)]
        calls = [asyncio.ensure_future(store.execute(Transfer(source=A, target=target, amount=1))) for target in targets]
        for number, call in enumerate(calls):
            await asyncio.sleep(0)
            if number % 2:
                call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert not [result for result in results[::2] if isinstance(result, BaseException)], "the other commands succeed"
        assert {type(result) for result in results[1::2]} <= {asyncio.CancelledError, type(results[0])}
        # An append that was in flight when its command was cancelled ends before the next command of its streams is handled.
        await store.execute(Look(accounts=(A, *targets)))
        found = await balances(store)
        assert found[A] + sum(found.get(target, 0) for target in targets) == 1000, "a command is never stored in part"
        assert all(found[target] == 1 for target in targets[::2]), "each acknowledged command is stored once"
        assert all(found.get(target, 0) in (0, 1) for target in targets[1::2])


def pairs(choice: random.Random, accounts: list[StreamId], count: int) -> Iterable[tuple[StreamId, StreamId]]:
    """``count`` random pairs of different accounts."""
    for _ in range(count):
        source, target = choice.sample(accounts, 2)
        yield source, target


async def balances(store: EventStore, *, never_negative: bool = False) -> Balances:
    """The balance of every account, from all events. Checks that positions have no gaps."""
    found: Balances = {}
    position = 0
    async for event in store.read_all():
        position += 1
        assert event.position == position, "positions have no gaps"
        balance_after(found, event)
        if never_negative and event.stream_id in found:
            assert found[event.stream_id] >= 0, f"{event} was decided on an outdated state"
    return found
