"""Idempotency keys beyond the contract: fingerprints, failures, timeouts, restarts, and what is counted."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from eventcore import Command, CommandResult, Event, EventStore, StreamId, Telemetry, open_store
from eventcore.errors import (
    BusinessRuleViolation,
    CommandTimeout,
    IdempotencyKeyReused,
    InvalidCommand,
    StoreClosed,
    StoreUnavailable,
)
from eventcore.events.fingerprint import fingerprint
from eventcore.stores import AppendRequest, MemoryBackend, Verdict
from tests.store.backends import SteeredBackend
from tests.store.bank import Collect, Deposit, Deposited, Transfer, account
from tests.store.conftest import Measured


class Everything(Command[None]):
    stream: StreamId
    streams: frozenset[StreamId] = frozenset()
    names: dict[str, int] = {}
    amount: Decimal = Decimal(0)
    when: dt.datetime | None = None
    anything: Any = None

    def handle(self, state: None) -> None:
        return None


A = StreamId("a")
SHOW = """
from tests.store.test_idempotency import *
print(fingerprint(Everything(
    stream=A, streams=frozenset(map(StreamId, "abcdefgh")), names={letter: 1 for letter in "hgfedcba"}, amount=Decimal("1.50"),
    anything={"x": {"c", "b", "a"}},
)))
"""


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    environment = {"PYTHONPATH": ":".join(sys.path)}
    found = {
        subprocess.run(
            [sys.executable, "-c", SHOW],
            env={**environment, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": StreamId("b")},
        {"streams": frozenset([A])},
        {"names": {"a": 2}},
        {"amount": Decimal("1.0")},
        {"when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)},
        {"anything": [None]},
    ],
)
def test_commands_with_another_field_have_another_fingerprint(changes: dict[str, Any]) -> None:
    command = Everything(stream=A)
    assert fingerprint(command) != fingerprint(msgspec.structs.replace(command, **changes))
    assert fingerprint(command) == fingerprint(Everything(stream=A, names={}, streams=frozenset()))


def test_a_field_that_is_added_with_a_default_changes_no_fingerprint() -> None:
    older = msgspec.defstruct("Order", [("item", str)], bases=(Command,), frozen=True)
    newer = msgspec.defstruct("Order", [("item", str), ("gift", bool, False)], bases=(Command,), frozen=True)
    assert fingerprint(older(item="a")) == fingerprint(newer(item="a")) != fingerprint(newer(item="a", gift=True))


async def test_a_command_that_cannot_be_told_from_others_takes_no_key(store: EventStore) -> None:
    with pytest.raises(
        InvalidCommand, match=r"Everything: with an idempotency key, all fields .* values of type object have none"
    ):
        await store.execute(Everything(stream=A, anything=object()), idempotency_key="k")
    await store.execute(Everything(stream=A, anything=object()))


class Fail(Command[None]):
    stream: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        raise LookupError("of the command")


async def test_a_command_that_fails_keeps_no_key(store: EventStore) -> None:
    for _ in range(2):
        with pytest.raises(LookupError):
            await store.execute(Fail(stream=A), idempotency_key="k")
    assert len((await store.execute(Deposit(account=account(1)), idempotency_key="k")).events) == 1


async def test_two_commands_in_one_batch_with_one_key(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        backend.hold()
        calls = [
            asyncio.create_task(store.execute(Deposit(account=account(1)), idempotency_key=key))
            for key in ("a", "b", "a", "b", "c")
        ]
        async with asyncio.timeout(5):
            while not backend.appends:
                await asyncio.sleep(0)
        backend.let_all()
        results = await asyncio.gather(*calls)
    assert [result.events[0].version for result in results] == [1, 2, 1, 2, 3]
    assert sum(backend.appends) == 3, "a command that waits for its twin is in no batch"


@pytest.mark.parametrize(
    "command", [Deposit(account=account(1)), Collect(account=account("empty"))], ids=["events", "no events"]
)
async def test_a_command_that_another_process_executes_after_the_look_up_gets_its_result(
    telemetry: Telemetry, command: Command[Any]
) -> None:
    first: list[CommandResult] = []

    class Overtaken(SteeredBackend):
        async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
            if not first:
                async with open_store(self.real, telemetry=telemetry) as other:
                    first.append(await other.execute(command, idempotency_key="k"))
            return await super().append(requests)

    backend = Overtaken()
    async with backend.store(telemetry) as store, asyncio.timeout(10):
        assert await store.execute(command, idempotency_key="k") == first[0]
    assert backend.appends == [1], "the store's first verdict is enough"


async def test_a_call_after_a_timeout_gets_the_result_of_the_call_that_was_sent(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        backend.hold()
        with pytest.raises(CommandTimeout) as timeout:
            await store.execute(Deposit(account=account(1)), idempotency_key="k", timeout=0.05)
        assert timeout.value.may_have_committed
        again = asyncio.create_task(store.execute(Deposit(account=account(1)), idempotency_key="k"))
        await asyncio.sleep(0)
        backend.let_all()
        result = await again
        assert result.events[0].version == 1
        assert await store.head_position() == 1


async def test_a_call_after_an_outage_is_executed(telemetry: Telemetry) -> None:
    backend = SteeredBackend()

    def fail(requests: object) -> None:
        raise StoreUnavailable("away")

    async with backend.store(telemetry) as store:
        backend.before_append = fail
        with pytest.raises(StoreUnavailable):
            await store.execute(Deposit(account=account(1)), idempotency_key="k")
        backend.before_append = lambda requests: None
        assert (await store.execute(Deposit(account=account(1)), idempotency_key="k")).position == 1


async def test_a_cancelled_call_holds_up_no_twin(store: EventStore) -> None:
    calls = [asyncio.create_task(store.execute(Deposit(account=account(1)), idempotency_key="k")) for _ in range(6)]
    for number, call in enumerate(calls[:5]):
        for _ in range(number):
            await asyncio.sleep(0)
        call.cancel()
    async with asyncio.timeout(10):
        result = await calls[5]
    assert await store.head_position() == 1
    assert await store.execute(Deposit(account=account(1)), idempotency_key="k") == result


async def test_a_store_that_is_closed_fails_calls_that_look_for_their_key(telemetry: Telemetry) -> None:
    class Silent(SteeredBackend):
        async def find_keys(self, keys: object) -> Any:
            await asyncio.sleep(3600)

    async with Silent().store(telemetry) as store:
        call = asyncio.create_task(store.execute(Deposit(account=account(1)), idempotency_key="k"))
        await asyncio.sleep(0.01)
        await store.close(1)
    with pytest.raises(StoreClosed):
        await call


async def test_failures_of_looking_up_are_raised_to_every_caller(telemetry: Telemetry) -> None:
    class Failing(SteeredBackend):
        async def find_keys(self, keys: object) -> Any:
            raise OSError("disk")

    async with Failing().store(telemetry) as store:
        calls = [store.execute(Deposit(account=account(number)), idempotency_key=str(number)) for number in range(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["the store failed: OSError: disk"] * 3
        assert (await store.execute(Deposit(account=account(1)))).position == 1


async def test_a_repeated_command_is_counted_as_such(store: EventStore, measured: Measured) -> None:
    for _ in range(3):
        await store.execute(Deposit(account=account(1)), idempotency_key="k")
    with pytest.raises(BusinessRuleViolation):
        await store.execute(Transfer(source=account(2), target=account(1), amount=1), idempotency_key="l")
    with pytest.raises(IdempotencyKeyReused):
        await store.execute(Deposit(account=account(2)), idempotency_key="k")
    outcomes = {
        outcome: measured("commands.total", outcome=outcome) for outcome in ("committed", "repeated", "rejected", "error")
    }
    assert outcomes == {"committed": 1, "repeated": 2, "rejected": 1, "error": 1}
    assert await store.head_position() == 1


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 10**9, "7d"])
async def test_a_time_to_live_is_a_number_of_seconds(ttl: Any) -> None:
    with pytest.raises(ValueError, match="idempotency_ttl="):
        open_store("memory:", idempotency_ttl=ttl)


async def test_expired_keys_are_removed(url: str, telemetry: Telemetry) -> None:
    place = MemoryBackend() if url == "memory:" else url
    async with open_store(place, telemetry=telemetry, idempotency_ttl=0.01) as store:
        await asyncio.gather(*(store.execute(Deposit(account=account(n)), idempotency_key=f"old-{n}") for n in range(50)))
        await asyncio.sleep(0.02)
        for number in range(10):
            await store.execute(Deposit(account=account(number)), idempotency_key=f"new-{number}")
            await asyncio.sleep(0.002)
        left = await keys_in(place)
    assert len(left) <= 10
    assert not [key for key in left if key.startswith("old-")]


async def keys_in(place: str | MemoryBackend) -> list[str]:
    if isinstance(place, MemoryBackend):
        return list(place.log._events.keys._records)
    if place.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(place.removeprefix("sqlite:///"))) as database:
            return [key for (key,) in database.execute("SELECT key FROM command_keys")]
    import asyncpg

    address, _, schema = place.partition("?schema=")
    connection = await asyncpg.connect(address)
    try:
        return [row[0] for row in await connection.fetch(f'SELECT key FROM "{schema}".command_keys')]
    finally:
        await connection.close()


async def test_a_first_result_of_many_events_is_read_in_pages(store: EventStore) -> None:
    class Many(Command[None]):
        stream: StreamId

        def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
            for number in range(1234):
                yield self.stream, Deposited(amount=number)

    first = await store.execute(Many(stream=A), idempotency_key="k")
    assert await store.execute(Many(stream=A), idempotency_key="k") == first
    assert len(first.events) == 1234
