"""A standby, and a failover to one that lags: readers stop where history has gone back, writers go on with what stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from eventcore import BusinessRuleViolation, open_store
from eventcore.errors import HistoryDiverged, StoreUnavailable
from eventcore.stores import START, Backend, EventFilter
from tests.postgres.backends import OpenBackend, log, request
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, Transfer, account

StartPostgres = Callable[..., PostgresServer]


async def append(backend: Backend, *versions: int) -> None:
    for version in versions:
        assert (await backend.log.append([request({"a": version - 1}, "a")]))[0] == version


async def test_a_standby_serves_readers_and_refuses_appends(start_postgres: StartPostgres, open_backend: OpenBackend) -> None:
    primary = start_postgres()
    database = primary.new_database()
    writer = await open_backend(primary.url(database))
    await append(writer, 1)
    standby = await asyncio.to_thread(start_postgres, primary)
    reader = await open_backend(standby.url(database))
    assert await log(reader) == [(1, "a", 1)]
    waiting = asyncio.create_task(reader.log.wait_beyond(1, 20))
    await append(writer, 2)
    assert await waiting == 2
    with pytest.raises(StoreUnavailable, match="is a standby or read only") as refusal:
        await reader.log.append([request({"a": 2}, "a")])
    assert not refusal.value.may_have_committed


async def test_after_a_failover_to_a_standby_that_lags_readers_stop_and_writers_go_on(
    start_postgres: StartPostgres, open_backend: OpenBackend
) -> None:
    primary = start_postgres()
    database = primary.new_database()
    writer = await open_backend(primary.url(database))
    await append(writer, 1, 2)
    standby = await asyncio.to_thread(start_postgres, primary)
    parts = urlsplit(primary.url(database))
    both = f"{parts.netloc},127.0.0.1:{standby.port}"
    url = parts._replace(netloc=both, query="target_session_attrs=primary").geturl()
    backend = await open_backend(url)
    before = (await backend.log.follow(START, 10, EventFilter())).end
    assert before.position == 2
    await asyncio.to_thread(standby.fall_behind)
    await append(backend, 3, 4)
    after = (await backend.log.follow(before, 10, EventFilter())).end
    assert after.position == 4
    assert await backend.log.wait_beyond(3, 5) == 4

    await asyncio.to_thread(primary.stop)
    await asyncio.to_thread(standby.promote)
    with pytest.raises(HistoryDiverged, match="position 4"):
        await backend.log.follow(after, 10, EventFilter())
    # Who has not seen what is lost goes on.
    assert (await backend.log.follow(before, 10, EventFilter())).end == before
    async with asyncio.timeout(20):
        while await backend.log.wait_beyond(2, 0.2) != 2:
            await asyncio.sleep(0.01)
    # Whoever builds on what is lost is told once; what comes then builds on what stands.
    with pytest.raises(HistoryDiverged):
        await append(backend, 3)
    await append(backend, 3, 4)
    assert [position for position, _, _ in await log(backend)] == [1, 2, 3, 4]
    with pytest.raises(HistoryDiverged):
        await backend.log.follow(after, 10, EventFilter())


async def test_after_a_failover_to_a_standby_that_lags_commands_are_decided_on_what_stands(
    start_postgres: StartPostgres,
) -> None:
    """The process remembers streams, also what of them is lost; another one writes as many events in its place."""
    primary = start_postgres()
    database = primary.new_database()
    a, b = account("a"), account("b")
    async with AsyncExitStack() as stack:
        early = await stack.enter_async_context(open_store(primary.url(database), exporters=[]))
        await early.execute(Deposit(account=a, amount=10))
        standby = await asyncio.to_thread(start_postgres, primary)
        parts = urlsplit(primary.url(database))
        both = f"{parts.netloc},127.0.0.1:{standby.port}"
        url = parts._replace(netloc=both, query="target_session_attrs=primary").geturl()
        remembering, stuck = [await stack.enter_async_context(open_store(url, exporters=[])) for _ in range(2)]
        await asyncio.to_thread(standby.fall_behind)
        for store in (remembering, stuck):
            await store.execute(Deposit(account=a, amount=5))
        await stuck.execute(Deposit(account=b))
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(standby.promote)

        # What it remembers is ahead of what stands: not a conflict that never ends.
        assert (await stuck.execute(Deposit(account=b))).position == 2
        other = await stack.enter_async_context(open_store(standby.url(database), exporters=[]))
        await other.execute(Deposit(account=a, amount=1))
        # What it remembers has the version that stands, and says 15.
        with pytest.raises(BusinessRuleViolation, match="holds 11, not 14"):
            await remembering.execute(Transfer(source=a, target=b, amount=14))
