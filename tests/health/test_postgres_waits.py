"""Locks and full pools of a real server, as the checks show them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from eventcore import EventStore, StreamId, Telemetry, open_store
from eventcore.health import Health, HealthSettings
from tests.health.conftest import until
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, account

asyncpg = pytest.importorskip("asyncpg")
pytestmark = [pytest.mark.once, pytest.mark.timeout(60)]

SETTINGS = HealthSettings(keep=0.0, interval=0.5, append_after=0.2, limit=0.5)


@asynccontextmanager
async def held(url: str, statement: str) -> AsyncIterator[None]:
    """Another session that holds the lock of a statement."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


async def when(store: EventStore, condition: Callable[[Health], bool]) -> Health:
    async def met() -> Health | None:
        health = await store.health()
        return health if condition(health) else None

    found: Health = await until(met)
    return found


async def test_a_held_lock_and_a_full_pool_are_told_from_a_server_that_is_away(
    newest_postgres: PostgresServer, telemetry: Telemetry
) -> None:
    schema = f"waits_{uuid4().hex[:12]}"
    url = newest_postgres.url()
    async with open_store(f"{url}?schema={schema}&pool=1&timeout=20", telemetry=telemetry, health=SETTINGS) as store:
        await store.execute(Deposit(account=account("a")))
        # Commands insert into this table; reading the head does not touch it.
        async with held(url, f"LOCK TABLE {schema}.events IN EXCLUSIVE MODE"):
            waiting = asyncio.create_task(store.execute(Deposit(account=account("a"))))
            found = await when(store, lambda health: health.checks["append"].status == "unhealthy")
            assert not found.ready
            assert found.checks["store"].status == "healthy"
            assert "another session may hold" in found.checks["append"].reason
        await waiting
        await when(store, lambda health: health.status == "healthy")

        # The one connection for reading is taken, and another read waits for it.
        pool = store._monitor._store._backend._reading  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        async with pool.connection(loop.time() + 20):

            async def read() -> list[int]:
                return [event.position async for event in store.read(StreamId("account-a"))]

            reading = asyncio.create_task(read())
            found = await when(store, lambda health: health.checks["pool"].status == "unhealthy")
            assert not found.ready
            assert found.checks["store"].status == "healthy"
            assert found.checks["pool"].figures["limit"] == 4
            assert "a call has been waiting for a connection for" in found.checks["pool"].reason
        assert await reading == [1, 2]
        await when(store, lambda health: health.status == "healthy")
