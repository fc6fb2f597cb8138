"""``store.drain()``: ready says no, what runs ends, and new commands are refused with their own error."""

from __future__ import annotations

import asyncio

import pytest

from eventcore import EventStore, Telemetry, open_store
from eventcore.errors import StoreClosed, StoreDraining, StoreUnavailable
from tests.health.conftest import QUICK, get, until
from tests.projections.models import Seen
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, account

DEPOSIT = Deposit(account=account("a"))


async def test_a_draining_store_lets_running_commands_end_and_refuses_new_ones(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with open_store(backend, telemetry=telemetry, health=QUICK) as store:
        backend.hold()
        running = asyncio.create_task(store.execute(DEPOSIT))
        await until(lambda: _true(backend.appends))
        draining = asyncio.create_task(store.drain())
        await until(lambda: _draining(store))
        with pytest.raises(StoreDraining, match="the store 'default' is draining"):
            await store.execute(DEPOSIT)
        with pytest.raises(StoreDraining):
            await store.run(Seen())
        assert not draining.done()
        backend.let_all()
        assert await draining is True
        assert (await running).position == 1
        # What only reads goes on until the store is closed.
        assert [event.position async for event in store.read_all()] == [1]


async def test_projections_end_and_give_their_leases_back(store: EventStore) -> None:
    running = asyncio.create_task(store.run(Seen()))
    await store.execute(DEPOSIT)
    await store.wait_for("seen", 1)
    assert await store.drain()
    await running
    # Reading goes on, and so does waiting for what another process applies.
    await store.wait_for("seen", 1)
    [record] = await store.projections()
    assert (record.owner, record.checkpoint.position) == ("", 1)


async def test_commands_are_accepted_until_the_delay_is_over_while_the_store_is_not_ready(store: EventStore) -> None:
    draining = asyncio.create_task(store.drain(delay=0.3))
    await asyncio.sleep(0)
    health = await store.health()
    assert (health.draining, health.ready, health.live) == (True, False, True)
    assert (await get(store, "/readyz")).status == 503
    assert (await get(store, "/livez")).status == 200
    await store.execute(DEPOSIT)
    assert await draining
    with pytest.raises(StoreDraining):
        await store.execute(DEPOSIT)


async def test_draining_ends_at_its_timeout_and_says_that_a_command_still_runs(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with open_store(backend, telemetry=telemetry, health=QUICK) as store:
        backend.hold()
        running = asyncio.create_task(store.execute(DEPOSIT))
        await until(lambda: _true(backend.appends))
        assert await store.drain(timeout=0.05) is False
        backend.let_all()
        assert (await running).position == 1
        assert await store.drain() is True


async def test_a_refused_command_counts_as_unavailable_and_wrote_nothing(store: EventStore) -> None:
    await store.drain()
    with pytest.raises(StoreUnavailable) as refused:
        await store.execute(DEPOSIT)
    assert not refused.value.may_have_committed
    assert await store.head_position() == 0


async def test_a_store_that_is_not_open_cannot_drain() -> None:
    with pytest.raises(StoreClosed):
        await open_store("memory:", exporters="none").drain()


async def _true(value: object) -> bool:
    return bool(value)


async def _draining(store: EventStore) -> bool:
    return (await store.health()).draining
