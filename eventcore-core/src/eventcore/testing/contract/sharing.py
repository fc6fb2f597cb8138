"""Two stores on the same data, as in two processes."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from eventcore.commands import CommandResult, RetryPolicy
from eventcore.errors import BusinessRuleViolation
from eventcore.store import EventStore
from eventcore.testing.contract.accounts import Collect, Deposit, Deposited, Guarantee, Link, Look, Transfer, account
from eventcore.testing.contract.commanding import balances, pairs
from eventcore.testing.contract.fixtures import ContractFixtures, MakeBackend, opened_store

A: Final = account("a")
B: Final = account("b")
_PATIENT: Final = RetryPolicy(attempts=200, max_delay=0.05)


class SharingContract(ContractFixtures):
    """Tests of ``EventStore.execute`` with two stores."""

    async def test_what_one_store_has_acknowledged_another_reads_at_once(
        self, store: EventStore, another_store: EventStore
    ) -> None:
        for number in range(1, 11):
            result = await store.execute(Deposit(account=A, amount=number))
            assert [event async for event in another_store.read(A)][-1] == result.events[0]
            assert await another_store.head_position() == number
            seen = await another_store.execute(Look(accounts=(A,)))
            assert seen.position == number, "a command sees every event acknowledged before it, also by another store"

    async def test_stores_that_write_a_stream_alternately_see_each_others_events(
        self, store: EventStore, another_store: EventStore
    ) -> None:
        for number in range(1, 21):
            result = await (store, another_store)[number % 2].execute(Deposit(account=A, amount=number))
            assert [event.version for event in result.events] == [number]
        assert [event.data async for event in store.read(A)] == [Deposited(amount=number) for number in range(1, 21)]

    async def test_money_is_conserved_by_transfers_of_two_stores(self, store: EventStore, another_store: EventStore) -> None:
        accounts = [account(number) for number in range(5)]
        await asyncio.gather(*(store.execute(Deposit(account=name, amount=100)) for name in accounts))
        choice = random.Random(3)
        calls = [
            (store, another_store)[number % 2].execute(
                Transfer(source=source, target=target, amount=choice.randint(1, 60)), retry=_PATIENT
            )
            for number, (source, target) in enumerate(pairs(choice, accounts, 120))
        ]
        async with asyncio.timeout(40):
            results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [result for result in results if isinstance(result, BusinessRuleViolation)]
        assert [result for result in results if isinstance(result, BaseException)] == refused
        found = await balances(store, never_negative=True)
        assert sum(found.values()) == 500
        assert await store.head_position() == 5 + 2 * (120 - len(refused))
        returned = [event for result in results if isinstance(result, CommandResult) for event in result.events]
        stored = [event async for event in another_store.read_all(after=5)]
        assert sorted(returned, key=lambda event: event.position) == stored, "each result holds what the command has written"

    async def test_a_stream_that_is_only_read_guards_the_decision_across_stores(
        self, store: EventStore, another_store: EventStore
    ) -> None:
        for number in range(20):
            a, b = account(f"{number}-a"), account(f"{number}-b")
            await store.execute(Deposit(account=a, amount=1))
            results = await asyncio.gather(
                store.execute(Guarantee(account=a, guarantor=b, amount=1), retry=_PATIENT),
                another_store.execute(Guarantee(account=b, guarantor=a, amount=1), retry=_PATIENT),
                return_exceptions=True,
            )
            refused = [result for result in results if isinstance(result, BusinessRuleViolation)]
            assert len(refused) == 1, f"one of two conflicting commands must be refused, but: {results}"

    async def test_a_discovered_stream_is_checked_across_stores(self, store: EventStore, another_store: EventStore) -> None:
        await store.execute(Link(account=A, to=B))

        async def deposit() -> None:
            for _ in range(20):
                await another_store.execute(Deposit(account=B), retry=_PATIENT)

        async def collect() -> None:
            for _ in range(20):
                await store.execute(Collect(account=A), retry=_PATIENT)

        await asyncio.gather(deposit(), collect())
        await store.execute(Collect(account=A))
        assert await balances(another_store) == {A: 20, B: 0}

    async def test_a_stream_that_two_stores_write_to_starves_neither(
        self, store: EventStore, another_store: EventStore
    ) -> None:
        async with asyncio.timeout(40):
            results = await asyncio.gather(
                *((store, another_store)[number % 2].execute(Deposit(account=A), retry=_PATIENT) for number in range(128))
            )
        assert sorted(result.events[0].version for result in results) == list(range(1, 129))
        assert [event.version async for event in store.read(A)] == list(range(1, 129))

    async def test_a_store_that_is_opened_later_sees_the_events_of_the_others(
        self, store: EventStore, make_backend: MakeBackend
    ) -> None:
        await store.execute(Deposit(account=A, amount=7))
        async with opened_store(make_backend()) as later:
            assert (await later.execute(Transfer(source=A, target=B, amount=7))).position == 3
        assert (await store.execute(Transfer(source=B, target=A, amount=7))).position == 5
