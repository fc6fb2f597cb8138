"""An append whose answer was lost is never executed twice, and never reported as failed when it stands."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import Any

import asyncpg
import msgspec
import pytest

from eventcore import BusinessRuleViolation, Command, CommandResult, RetryPolicy, open_store
from eventcore.errors import StoreUnavailable
from eventcore.stores import CONFLICT, KNOWN_KEY, Backend, CommandKey
from eventcore.stores.postgres.schema import lock_key
from tests.postgres.backends import OpenBackend, as_soon_as_it_answers, everything, log, request
from tests.postgres.proxy import Proxy
from tests.store.bank import Collect, Deposit, Deposited, Link, Transfer, account

# The name of the event type is in the bytes of each call that appends.
MARK = b"bank.Deposited"


async def test_commands_whose_answers_are_lost_are_each_executed_once(url: str, backend: Backend) -> None:
    choice = random.Random(5)
    async with Proxy.before(url) as proxy:
        proxy.mark = MARK
        proxy.cut_answer = lambda: choice.random() < 0.4
        async with open_store(proxy.url, exporters=[]) as store:

            async def deposit(number: int) -> list[str]:
                told: list[str] = []
                for _ in range(40):
                    result = await store.execute(Deposit(account=account(number % 5)), retry=RetryPolicy(attempts=100))
                    told += [event.event_id for event in result.events]
                return told

            told = [event_id for ids in await asyncio.gather(*map(deposit, range(20))) for event_id in ids]
    assert proxy.cuts > 5
    rows = await everything(backend)
    assert len(told) == len(set(told)) == 800
    assert {row.event_id: 1 for row in rows} == dict.fromkeys(told, 1)
    assert [row.position for row in rows] == list(range(1, 801))


async def test_a_redaction_while_the_first_append_of_a_process_is_settled_is_noticed(
    url: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was read before that append, so it alone tells the process how many redactions there are."""
    monkeypatch.setenv("EVENTCORE_SPECULATION", "on")
    a, b = account("a"), account("b")
    async with Proxy.before(url) as proxy:

        def cut() -> bool:
            proxy.refusing = True
            return True

        proxy.mark, proxy.cut_answer = MARK, cut
        async with open_store(proxy.url, exporters=[]) as store:
            deposit = asyncio.ensure_future(store.execute(Deposit(account=a, amount=5)))
            while not proxy.cuts:
                await asyncio.sleep(0.01)
            [row] = await everything(backend)
            await backend.log.redact(row.event_id, msgspec.json.encode(Deposited(amount=0)), "asked by the customer")
            proxy.cut_answer = lambda: False
            proxy.refusing = False
            assert (await deposit).events[0].event_id == row.event_id
            with pytest.raises(BusinessRuleViolation, match="holds 0"):
                await store.execute(Transfer(source=a, target=b, amount=5))


async def test_a_redaction_before_an_append_comes_through_is_noticed(url: str, backend: Backend) -> None:
    """The first call never reached the server, so what is repeated must not be stored on the old text."""
    a, b = account("a"), account("b")
    async with Proxy.before(url) as proxy, open_store(proxy.url, exporters=[]) as store:
        [deposited] = (await store.execute(Deposit(account=a, amount=5))).events
        await store.execute(Deposit(account=b, amount=1))
        proxy.mark, proxy.deaf = MARK, True
        transfer = asyncio.ensure_future(store.execute(Transfer(source=a, target=b, amount=5)))
        while not proxy.unheard:
            await asyncio.sleep(0.01)
        await backend.log.redact(deposited.event_id, msgspec.json.encode(Deposited(amount=0)), "asked by the customer")
        proxy.deaf = False
        proxy.cut_all()
        with pytest.raises(BusinessRuleViolation, match="holds 0"):
            await transfer
    assert [row.stream_id for row in await everything(backend)] == [a, b]


async def test_each_request_of_a_batch_keeps_the_verdict_of_the_lost_call(
    url: str, backend: Backend, open_backend: OpenBackend
) -> None:
    await backend.log.append([request({"a": 0}, "a")])
    async with Proxy.before(url) as proxy:
        cut = iter([True])
        proxy.mark, proxy.cut_answer = MARK, lambda: next(cut, False)
        remote = await open_backend(proxy.url)
        verdicts = await remote.log.append([request({"b": 0}, "b", "b"), request({"a": 0}, "a"), request({"c": 0}, "c")])
    assert proxy.cuts == 1
    assert verdicts == [2, CONFLICT, 4]
    assert await log(backend) == [(1, "a", 1), (2, "b", 1), (3, "b", 2), (4, "c", 1)]


async def test_a_call_that_never_came_through_is_made_again(url: str, backend: Backend, open_backend: OpenBackend) -> None:
    async with Proxy.before(url) as proxy:
        remote = await open_backend(proxy.url)
        await remote.log.append([request({"a": 0}, "a")])
        # The connection is dead, which only the next call finds out.
        proxy.cut_all()
        assert await remote.log.append([request({"a": 1}, "a")]) == [2]
    assert len(await everything(backend)) == 2


async def test_a_lost_call_that_arrives_after_it_was_settled_is_refused(backend: Backend) -> None:
    """The same arguments twice, the second time without looking for the first: what a call left in a socket does."""
    batch = [request({"a": 0}, "a"), request({"b": 0}, "b")]
    assert await backend.log.append(batch) == [1, 2]
    assert await backend.log.append(batch) == [CONFLICT, CONFLICT]
    assert len(await everything(backend)) == 2


async def test_an_append_that_cannot_be_settled_in_time_says_so(url: str, backend: Backend, open_backend: OpenBackend) -> None:
    async with Proxy.before(url) as proxy:

        def cut() -> bool:
            proxy.refusing = True
            return True

        proxy.mark, proxy.cut_answer = MARK, cut
        remote = await open_backend(f"{proxy.url}?timeout=0.8")
        begun = monotonic()
        with pytest.raises(StoreUnavailable, match="may be committed") as refusal:
            await remote.log.append([request({"a": 0}, "a")])
        assert monotonic() - begun < 5
    assert refusal.value.may_have_committed
    assert len(await everything(backend)) == 1


async def test_a_server_that_falls_silent_holds_nobody_up_for_longer_than_the_timeout(
    url: str, backend: Backend, open_backend: OpenBackend
) -> None:
    async with Proxy.before(url) as proxy:
        remote = await open_backend(f"{proxy.url}?timeout=1")
        proxy.silent = True
        begun = monotonic()
        with pytest.raises(StoreUnavailable) as refusal:
            await remote.log.append([request({"a": 0}, "a")])
        assert refusal.value.may_have_committed
        with pytest.raises(StoreUnavailable):
            await remote.log.head_position()
        assert monotonic() - begun < 8
        proxy.silent = False
        assert await as_soon_as_it_answers(remote.log.head_position) <= 1


async def test_an_append_that_waits_too_long_for_its_turn_has_not_happened(
    url: str, backend: Backend, open_backend: OpenBackend
) -> None:
    impatient = await open_backend(f"{url}?timeout=2")
    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.execute(f"SELECT pg_advisory_xact_lock({lock_key('eventcore')})")
            with pytest.raises(StoreUnavailable, match="append lock") as refusal:
                await impatient.log.append([request({"a": 0}, "a")])
        assert not refusal.value.may_have_committed
    finally:
        await holder.close()
    assert await impatient.log.append([request({"a": 0}, "a")]) == [1]


async def test_commands_with_keys_whose_answers_are_lost_are_each_executed_once(url: str, backend: Backend) -> None:
    choice = random.Random(7)
    async with Proxy.before(url) as proxy:
        # Also of appends without an event, which name no event type.
        proxy.mark = b"-the-key"
        proxy.cut_answer = lambda: choice.random() < 0.4
        async with open_store(proxy.url, exporters=[]) as store:

            async def execute(number: int) -> list[CommandResult]:
                key = f"{number}-the-key"
                command: Command[Any] = Link(account=account(number % 5), to=account(6))
                if number % 4 == 0:
                    command = Collect(account=account("empty"))
                return [await store.execute(command, idempotency_key=key, retry=RetryPolicy(attempts=100)) for _ in range(2)]

            answers = await asyncio.gather(*map(execute, range(60)))
    assert proxy.cuts > 3
    assert [first for first, _ in answers] == [second for _, second in answers]
    rows = await everything(backend)
    assert sorted(row.event_id for row in rows) == sorted(event.event_id for first, _ in answers for event in first.events)
    assert len(rows) == 45
    assert len(await backend.log.find_keys([f"{number}-the-key" for number in range(60)])) == 60


async def test_a_key_that_another_process_took_meanwhile_is_respected_by_a_repeated_call(
    url: str, backend: Backend, open_backend: OpenBackend
) -> None:
    """The first call comes to the server and is cut off before it is executed; then another process uses the key."""
    key = CommandKey("the-key", "f", 1, 60.0)
    async with Proxy.before(url) as proxy:
        remote = await open_backend(proxy.url)
        proxy.cut_all()
        await backend.log.append([msgspec.structs.replace(request({"a": 0}, "a"), key=key)])
        late = [msgspec.structs.replace(request({"b": 0}, "b"), key=key), request({"c": 0}, "c")]
        assert await remote.log.append(late) == [KNOWN_KEY, 2]
    assert await log(backend) == [(1, "a", 1), (2, "c", 1)]


async def test_a_batch_that_was_stored_keeps_its_verdicts_though_one_of_its_keys_is_known_now(
    url: str, backend: Backend, open_backend: OpenBackend
) -> None:
    """The lost call stored one request and refused the other; the key of the other was used by another process since."""
    key = CommandKey("the-key", "f", 1, 60.0)
    await backend.log.append([request({"a": 0}, "a")])
    async with Proxy.before(url) as proxy:
        cuts, others = iter([True]), list[asyncio.Task[None]]()

        async def use_the_key() -> None:
            assert await backend.log.append([msgspec.structs.replace(request({"c": 0}, "c"), key=key)]) == [3]
            proxy.refusing = False

        def cut() -> bool:
            if not next(cuts, False):
                return False
            # Until the other process is done, the batch cannot be sent again.
            proxy.refusing = True
            others.append(asyncio.create_task(use_the_key()))
            return True

        proxy.mark, proxy.cut_answer = MARK, cut
        remote = await open_backend(f"{proxy.url}?timeout=5")
        batch = [request({"b": 0}, "b"), msgspec.structs.replace(request({"a": 0}, "a"), key=key)]
        verdicts = await remote.log.append(batch)
        await asyncio.gather(*others)
    assert proxy.cuts == 1
    assert verdicts == [2, CONFLICT]
    assert await log(backend) == [(1, "a", 1), (2, "b", 1), (3, "c", 1)]
    assert (await backend.log.find_keys(["the-key"]))["the-key"].first == 3
