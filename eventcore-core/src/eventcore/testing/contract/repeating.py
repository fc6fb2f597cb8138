"""Idempotency keys: the same command twice is executed once, and answered twice with the same result."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import msgspec
import pytest

from eventcore.commands import CommandResult
from eventcore.errors import BusinessRuleViolation, IdempotencyKeyReused, InvalidMetadata
from eventcore.store import EventStore
from eventcore.stores import CONFLICT, KNOWN_KEY, AppendRequest, Backend, CommandKey, KeyRecord
from eventcore.testing.contract.accounts import Deposit, Deposited, Look, Transfer, account
from eventcore.testing.contract.fixtures import ContractFixtures, MakeBackend, log, opened_store, request

A: Final = account("a")
B: Final = account("b")
_LONG: Final = 3600.0


def keyed(
    request: AppendRequest, key: str, *, fingerprint: str = "f", attempts: int = 1, seconds: float = _LONG
) -> AppendRequest:
    """The request with an idempotency key."""
    return msgspec.structs.replace(request, key=CommandKey(key, fingerprint, attempts, seconds))


class RepeatContract(ContractFixtures):
    """Tests of ``CommandKey`` in ``EventLog.append``, of ``find_keys``, and of ``execute(idempotency_key=...)``."""

    async def test_an_accepted_request_stores_its_key(self, backend: Backend, another_backend: Backend) -> None:
        requests = [request({B: 0}, B), keyed(request({A: 0}, A, A), "k-1", attempts=3), keyed(request({B: 0}), "k-2")]
        requests[2] = msgspec.structs.replace(requests[2], expected={B: 1})
        assert await backend.log.append(requests) == [1, 2, 0]
        expected = {"k-1": KeyRecord("f", 3, 2, 2, 3), "k-2": KeyRecord("f", 1, 0, 0, 3)}
        for one in (backend, another_backend):
            assert await one.log.find_keys(["k-1", "none", "k-2"]) == expected
        assert await backend.log.find_keys([]) == {}

    async def test_a_request_with_a_known_key_is_refused_alone(self, backend: Backend, another_backend: Backend) -> None:
        await another_backend.log.append([keyed(request({A: 0}, A), "k-1")])
        verdicts = await backend.log.append(
            [
                request({B: 0}, B),
                keyed(request({A: 1}, A), "k-1"),
                keyed(request({A: 1}, A), "k-2"),
                keyed(request({A: 9}), "k-1"),
            ]
        )
        assert verdicts == [2, KNOWN_KEY, 3, KNOWN_KEY], "a known key refuses its request whatever its streams say"
        assert await log(backend) == [(1, A, 1), (2, B, 1), (3, A, 2)]
        assert (await backend.log.find_keys(["k-1"]))["k-1"].first == 1, "the first record stays"

    async def test_of_two_requests_of_a_call_with_one_key_the_first_counts(self, backend: Backend) -> None:
        verdicts = await backend.log.append([keyed(request({A: 0}, A), "k"), keyed(request({B: 0}, B), "k")])
        assert verdicts == [1, KNOWN_KEY]
        assert await log(backend) == [(1, A, 1)]

    async def test_a_request_that_conflicts_keeps_no_key(self, backend: Backend) -> None:
        await backend.log.append([request({A: 0}, A)])
        assert await backend.log.append([keyed(request({A: 0}, A), "k"), request({B: 0}, B)]) == [CONFLICT, 2]
        assert await backend.log.find_keys(["k"]) == {}
        assert await backend.log.append([keyed(request({A: 1}, A), "k")]) == [3]

    async def test_a_key_is_free_again_when_it_has_expired(self, backend: Backend) -> None:
        assert await backend.log.append(
            [keyed(request({A: 0}, A), "short", seconds=0.05), keyed(request({B: 0}, B), "long")]
        ) == [
            1,
            2,
        ]
        async with asyncio.timeout(10):
            while await backend.log.find_keys(["short"]):  # noqa: ASYNC110  # a store has no event to wait for
                await asyncio.sleep(0.01)
        assert list(await backend.log.find_keys(["long"])) == ["long"]
        assert await backend.log.append([keyed(request({A: 1}, A), "short", fingerprint="other")]) == [3]
        assert (await backend.log.find_keys(["short"]))["short"] == KeyRecord("other", 1, 3, 1, 3)

    async def test_of_two_backends_that_append_one_key_at_once_one_wins(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        for number in range(20):
            a, b = account(f"{number}-a"), account(f"{number}-b")
            verdicts = await asyncio.gather(
                backend.log.append([keyed(request({a: 0}, a), f"k-{number}")]),
                another_backend.log.append([keyed(request({b: 0}, b), f"k-{number}")]),
            )
            assert sorted(verdict for [verdict] in verdicts) == [KNOWN_KEY, number + 1]

    async def test_characters_of_a_key_are_kept(self, backend: Backend) -> None:
        keys = ["é", "日本 🚀", "a b", "A", "a", "'\"\\{},%", "x" * 128]
        requests = [keyed(request({account(number): 0}, account(number)), key) for number, key in enumerate(keys)]
        assert await backend.log.append(requests) == list(range(1, 8))
        assert set(await backend.log.find_keys(keys)) == set(keys), "case counts"

    # Through an EventStore

    async def test_the_same_key_gives_the_first_result_again(
        self, make_backend: MakeBackend, store: EventStore, another_store: EventStore
    ) -> None:
        command = Deposit(account=A, amount=5, times=3)
        await store.execute(Deposit(account=B))
        first = await store.execute(command, idempotency_key="k-1", headers={"a": "b"})
        await store.execute(Deposit(account=A))
        assert await store.execute(command, idempotency_key="k-1") == first, "in this process"
        assert await another_store.execute(command, idempotency_key="k-1") == first, "in another one"
        async with opened_store(make_backend()) as fresh:
            assert await fresh.execute(command, idempotency_key="k-1") == first, "after a restart"
        assert await store.head_position() == 5, "it is executed once"
        assert (await store.execute(command, idempotency_key="k-2")).events[0].version == 5
        assert (await store.execute(command)).events[0].version == 8

    async def test_a_repeated_result_belongs_to_its_caller(self, store: EventStore) -> None:
        command = Deposit(account=A)
        first = await store.execute(command, idempotency_key="k", headers={"a": "b"})
        first.events[0].metadata.headers["a"] = "c"
        again = await store.execute(command, idempotency_key="k")
        assert again.events[0].metadata.headers == {"a": "b"}

    async def test_many_commands_with_one_key_are_executed_once(self, store: EventStore, another_store: EventStore) -> None:
        commands = [
            (one, key, Deposit(account=account(number % 3), note=key))
            for number, key in enumerate(["x", "y", "z"] * 20)
            for one in (store, another_store)
        ]
        calls = [one.execute(command, idempotency_key=key) for one, key, command in commands]
        strangers = [store.execute(Deposit(account=account(number % 3))) for number in range(20)]
        results = (await asyncio.gather(*calls, *strangers))[: len(calls)]
        for key in "xyz":
            found = [result for result, (_, one, _) in zip(results, commands, strict=True) if one == key]
            assert found == [found[0]] * 40, "every caller gets the same result"
        stored = [event.data.note async for event in store.read_all() if isinstance(event.data, Deposited) and event.data.note]
        assert sorted(stored) == ["x", "y", "z"]
        assert await store.head_position() == 23

    async def test_the_same_key_for_another_command_is_refused(self, store: EventStore, another_store: EventStore) -> None:
        first = await store.execute(Deposit(account=A, amount=5), idempotency_key="k")
        for one in (store, another_store):
            for other in (Deposit(account=A, amount=6), Deposit(account=B, amount=5), Look(accounts=(A,))):
                with pytest.raises(IdempotencyKeyReused, match="'k'") as refusal:
                    await one.execute(other, idempotency_key="k")
                assert refusal.value.key == "k"
        assert await another_store.execute(Deposit(account=A, amount=5), idempotency_key="k") == first
        assert await store.head_position() == 1

    async def test_a_result_without_events_is_kept_too(self, store: EventStore, another_store: EventStore) -> None:
        await store.execute(Deposit(account=A))
        first = await store.execute(Look(accounts=(A, B)), idempotency_key="k")
        assert (first.events, first.position) == ((), 1)
        await store.execute(Deposit(account=A))
        assert await store.execute(Look(accounts=(A, B)), idempotency_key="k") == first
        assert await another_store.execute(Look(accounts=(A, B)), idempotency_key="k") == first

    async def test_a_refused_command_keeps_no_key(self, store: EventStore) -> None:
        transfer = Transfer(source=A, target=B, amount=5)
        with pytest.raises(BusinessRuleViolation):
            await store.execute(transfer, idempotency_key="k")
        await store.execute(Deposit(account=A, amount=5))
        first = await store.execute(transfer, idempotency_key="k")
        assert len(first.events) == 2
        # Now it would be refused again, since the money is gone.
        assert await store.execute(transfer, idempotency_key="k") == first

    async def test_a_command_that_its_twin_would_refuse_is_answered_with_the_twins_result(
        self, store: EventStore, another_store: EventStore
    ) -> None:
        for number in range(10):
            a, b = account(f"{number}-a"), account(f"{number}-b")
            await store.execute(Deposit(account=a, amount=5))
            transfer = Transfer(source=a, target=b, amount=5)
            results = await asyncio.gather(
                *(one.execute(transfer, idempotency_key=f"k-{number}") for one in (store, another_store) for _ in range(3))
            )
            assert results == [results[0]] * 6

    async def test_a_key_expires(self, make_backend: MakeBackend) -> None:
        command = Deposit(account=A)
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(opened_store(make_backend(), idempotency_ttl=0.2))
            first: CommandResult = await store.execute(command, idempotency_key="k")
            again = first
            async with asyncio.timeout(10):
                while again == first:
                    again = await store.execute(command, idempotency_key="k")
            assert again.events[0].version == 2

    @pytest.mark.parametrize("key", ["", "x" * 129, "a\0", "a\x1fb", 7])
    async def test_a_key_that_cannot_be_stored_is_refused(self, store: EventStore, key: str) -> None:
        with pytest.raises(InvalidMetadata, match="idempotency_key"):
            await store.execute(Deposit(account=A), idempotency_key=key)
        assert await store.head_position() == 0
