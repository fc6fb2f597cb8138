"""Locks and full pools of a real server, as the checks show them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import pytest

from eventcore import EventStore, StreamId, Telemetry, open_store
from eventcore.errors import CommandTimeout
from eventcore.health import Health, HealthSettings
from tests.health.conftest import until
from tests.postgres.proxy import Proxy
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, account

asyncpg = pytest.importorskip("asyncpg")
pytestmark = [pytest.mark.once, pytest.mark.timeout(60)]

SETTINGS = HealthSettings(keep=0.0, interval=0.5, append_after=0.2, limit=0.5)
# Where the server answers: on a busy machine, an answer may take longer than half a second.
PATIENT = msgspec.structs.replace(SETTINGS, limit=10.0)


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
    """Poll until one answer fits. On a busy machine, a single one may find a check that was just late: ask for all at once."""

    async def met() -> Health | None:
        health = await store.health()
        return health if condition(health) else None

    found: Health = await until(met)
    return found


def statuses(health: Health, *checks: str) -> list[str]:
    return [health.checks[check].status for check in checks]


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
            found = await when(store, lambda health: statuses(health, "append", "store") == ["unhealthy", "healthy"])
            assert not found.ready
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
            found = await when(store, lambda health: statuses(health, "pool", "store") == ["unhealthy", "healthy"])
            assert not found.ready
            assert found.checks["pool"].figures["limit"] == 4
            assert "a call has been waiting for a connection for" in found.checks["pool"].reason
            assert found.checks["pool"].reason.endswith("all 4 may be in use; raise pool, or look for held locks")
        assert await reading == [1, 2]
        await when(store, lambda health: health.status == "healthy")


async def test_a_pool_that_is_full_since_the_server_hangs_is_blamed_on_the_server(
    newest_postgres: PostgresServer, telemetry: Telemetry
) -> None:
    schema = f"waits_{uuid4().hex[:12]}"
    async with Proxy.before(newest_postgres.url()) as proxy:
        url = f"{proxy.url}?schema={schema}&pool=1&timeout=2"
        async with open_store(url, telemetry=telemetry, health=SETTINGS) as store:
            await store.execute(Deposit(account=account("a")))

            async def read() -> list[int]:
                return [event.position async for event in store.read(StreamId("account-a"))]

            proxy.deaf = True
            reads = [asyncio.create_task(read()) for _ in range(3)]
            found = await when(store, lambda health: health.checks["pool"].status == "unhealthy")
            assert found.checks["store"].status == "unhealthy"
            assert found.checks["pool"].reason.endswith("the store does not answer, see the check 'store'")
            await asyncio.wait(reads)
            found = await when(store, lambda health: health.checks["pool"].figures["timeouts"] not in (None, 0))
            assert "raise pool" not in found.checks["pool"].reason
            await asyncio.gather(*reads, return_exceptions=True)
            proxy.deaf = False
            proxy.cut_all()
            said = "within their timeout while the store did not answer"
            found = await when(store, lambda health: health.checks["pool"].reason.endswith(said))
            assert statuses(found, "pool", "store") == ["degraded", "healthy"]


async def test_a_command_that_gives_up_waiting_for_a_connection_before_its_call_would_is_counted(
    newest_postgres: PostgresServer, telemetry: Telemetry
) -> None:
    schema = f"waits_{uuid4().hex[:12]}"
    url = f"{newest_postgres.url()}?schema={schema}&pool=1&timeout=20"
    async with open_store(url, telemetry=telemetry, health=PATIENT) as store:
        await store.execute(Deposit(account=account("a")))
        backend = store._monitor._store._backend
        # The connection that reads for commands is taken. They share the call that waits for it, which gets it in the end.
        pool = backend._loading  # type: ignore[attr-defined]
        async with pool.connection(asyncio.get_running_loop().time() + 20):
            for number in range(2):
                with pytest.raises(CommandTimeout):
                    await store.execute(Deposit(account=account(f"b-{number}")), timeout=1.0)
        assert backend.counters.connection_timeouts == 2  # type: ignore[attr-defined]
        said = "calls have got no connection within their timeout; raise pool, or look for held locks"
        found = await when(store, lambda health: health.checks["pool"].reason == said)
        assert (found.checks["pool"].status, found.checks["pool"].figures["timeouts"]) == ("degraded", 2)
        # On the event loop, which the collection blocks: the checks that run twice a second would take connections meanwhile,
        # and the counters below be those of another moment.
        values = {data.name: data for data in telemetry.collect()}
        [waited] = values["eventcore.store.pool.timeouts"].points
        assert waited.value == 2  # type: ignore[union-attr]
        states = {dict(point.labels)["state"]: point.value for point in values["eventcore.store.pool.connections"].points}  # type: ignore[union-attr]
        counters = backend.counters  # type: ignore[attr-defined]
        assert states == {"used": counters.connections_used, "idle": counters.connections_idle}
        assert 1 <= sum(states.values()) <= counters.connections_limit


async def test_a_store_without_an_answer_says_why_as_soon_as_a_connection_is_refused(
    newest_postgres: PostgresServer, telemetry: Telemetry
) -> None:
    schema = f"waits_{uuid4().hex[:12]}"
    async with Proxy.before(newest_postgres.url()) as proxy:
        # Calls try to connect for up to 20 s; health says after its own half second what they have met.
        url = f"{proxy.url}?schema={schema}&pool=1&timeout=20"
        async with open_store(url, telemetry=telemetry, health=SETTINGS) as store:
            proxy.refusing = True
            proxy.cut_all()
            found = await when(store, lambda health: "reached" in health.checks["store"].reason)
            reason = r"no answer within \S+ s: no PostgreSQL server can be reached at 127\.0\.0\.1:\d+/.*; start it, or correct"
            assert re.match(reason, found.checks["store"].reason)
            assert not found.ready
            proxy.refusing = False
            await when(store, lambda health: health.checks["store"].status == "healthy")
            # One that hangs, or a held lock, is told from that.
            proxy.deaf = True
            found = await when(store, lambda health: health.checks["store"].status == "unhealthy")
            assert found.checks["store"].reason.endswith("another session holds a lock that reading needs")
            proxy.deaf = False
            proxy.cut_all()
