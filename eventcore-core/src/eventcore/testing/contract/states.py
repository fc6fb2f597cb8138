"""The contract of states of streams: they are what their events add up to, however they were kept, stored or shared."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

import pytest

from eventcore.commands import Command, RetryPolicy
from eventcore.errors import BusinessRuleViolation
from eventcore.events import StreamId, StreamState
from eventcore.store import EventStore
from eventcore.testing.contract.accounts import Balance, Deposit, Deposited, Link, Remit, Transfer, account, balance_after
from eventcore.testing.contract.fixtures import ContractFixtures, MakeBackend, opened_store

_PATIENT = RetryPolicy(attempts=500, max_delay=0.02)


class _Doubled(StreamState, version=1, snapshot_every=3):
    """Another view of the same events."""

    total: int = 0

    def apply(self, event: object) -> None:
        data = getattr(event, "data", None)
        if isinstance(data, Deposited):
            self.total += 2 * data.amount


class _Spoil(Command[Mapping[StreamId, Balance]]):
    """Changes its own copy of the state and writes nothing."""

    account: Annotated[StreamId, Balance]

    def handle(self, state: Mapping[StreamId, Balance]) -> None:
        state[self.account].amount = 10_000
        state[self.account].changes.append("spoiled")


class _Check(Command[Mapping[StreamId, _Doubled]]):
    account: Annotated[StreamId, _Doubled]
    expected: int

    def handle(self, state: Mapping[StreamId, _Doubled]) -> None:
        if state[self.account].total != self.expected:
            raise BusinessRuleViolation(f"{state[self.account].total}, not {self.expected}")


class StateContract(ContractFixtures):
    async def test_commands_with_and_without_states_decide_alike(self, store: EventStore) -> None:
        await store.execute(Deposit(account=account("a"), amount=5, times=4))
        await store.execute(Remit(source=account("a"), target=account("b"), amount=15))
        await store.execute(Transfer(source=account("b"), target=account("a"), amount=10))
        with pytest.raises(BusinessRuleViolation, match="holds 5, not 6"):
            await store.execute(Remit(source=account("b"), target=account("a"), amount=6))
        with pytest.raises(BusinessRuleViolation, match="holds 5, not 6"):
            await store.execute(Transfer(source=account("b"), target=account("a"), amount=6))

    async def test_a_store_that_is_opened_later_goes_on_from_stored_states(self, make_backend: MakeBackend) -> None:
        for number in range(1, 8):
            async with opened_store(make_backend()) as store:
                await store.execute(Deposit(account=account("a"), amount=1))
                result = await store.execute(Remit(source=account("a"), target=account("b"), amount=1))
                assert [event.version for event in result.events] == [2 * number, number]
        async with opened_store(make_backend()) as store:
            with pytest.raises(BusinessRuleViolation, match="holds 0, not 1"):
                await store.execute(Remit(source=account("a"), target=account("b"), amount=1))
            await store.execute(Remit(source=account("b"), target=account("a"), amount=7))

    async def test_events_that_a_state_ignores_move_its_version_all_the_same(self, store: EventStore) -> None:
        await store.execute(Deposit(account=account("a"), amount=3))
        await store.execute(Remit(source=account("a"), target=account("b"), amount=1))
        await store.execute(Link(account=account("a"), to=account("b")))
        result = await store.execute(Remit(source=account("a"), target=account("b"), amount=2))
        assert [event.version for event in result.events] == [4, 2]

    async def test_what_a_command_does_to_its_state_concerns_no_other(self, store: EventStore) -> None:
        await store.execute(Deposit(account=account("a"), amount=3, times=3))
        for _ in range(3):
            await store.execute(_Spoil(account=account("a")))
        with pytest.raises(BusinessRuleViolation, match="holds 9, not 10"):
            await store.execute(Remit(source=account("a"), target=account("b"), amount=10))

    async def test_states_of_several_classes_are_kept_of_one_stream(self, store: EventStore, another_store: EventStore) -> None:
        await store.execute(Deposit(account=account("a"), amount=3, times=5))
        await store.execute(Remit(source=account("a"), target=account("b"), amount=1))
        for one in (store, another_store):
            await one.execute(_Check(account=account("a"), expected=30))
            await one.execute(_Check(account=account("b"), expected=2))

    async def test_another_stores_events_reach_a_kept_state(self, store: EventStore, another_store: EventStore) -> None:
        await store.execute(Deposit(account=account("a"), amount=3))
        for _ in range(4):
            await store.execute(Remit(source=account("a"), target=account("b"), amount=3))
            await another_store.execute(Remit(source=account("b"), target=account("a"), amount=3))
        with pytest.raises(BusinessRuleViolation, match="holds 0, not 1"):
            await store.execute(Remit(source=account("b"), target=account("a"), amount=1))

    async def test_money_is_conserved_by_many_concurrent_commands(self, store: EventStore, another_store: EventStore) -> None:
        accounts = [account(number) for number in range(4)]
        await asyncio.gather(*(store.execute(Deposit(account=one, amount=20)) for one in accounts))
        moves = [(accounts[number % 4], accounts[(number * 7 + 1) % 4], 1 + number % 5) for number in range(60)]

        async def move(store: EventStore, source: StreamId, target: StreamId, amount: int) -> None:
            try:
                await store.execute(Remit(source=source, target=target, amount=amount), retry=_PATIENT)
            except BusinessRuleViolation:
                pass

        await asyncio.gather(*(move((store, another_store)[number % 2], *moved) for number, moved in enumerate(moves)))
        balances = dict.fromkeys(accounts, 0)
        async for event in store.read_all():
            balances = balance_after(balances, event)
        assert sum(balances.values()) == 80
        assert min(balances.values()) >= 0
        for one, holds in balances.items():
            with pytest.raises(BusinessRuleViolation, match=f"holds {holds}, not {holds + 1}"):
                await another_store.execute(Remit(source=one, target=account("x"), amount=holds + 1))
