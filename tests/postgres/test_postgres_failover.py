"""A standby, and a failover to one that lags: readers stop where history has gone back, writers go on with what stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from eventcore.errors import HistoryDiverged, StoreUnavailable
from eventcore.stores.base import START, Backend, EventFilter
from tests.postgres.backends import OpenBackend, log, request
from tests.real_parts.postgres import PostgresServer

StartPostgres = Callable[..., PostgresServer]


async def append(backend: Backend, *versions: int) -> None:
    for version in versions:
        assert (await backend.append([request({"a": version - 1}, "a")]))[0] == version


async def test_a_standby_serves_readers_and_refuses_appends(start_postgres: StartPostgres, open_backend: OpenBackend) -> None:
    primary = start_postgres()
    database = primary.new_database()
    writer = await open_backend(primary.url(database))
    await append(writer, 1)
    standby = await asyncio.to_thread(start_postgres, primary)
    reader = await open_backend(standby.url(database))
    assert await log(reader) == [(1, "a", 1)]
    waiting = asyncio.create_task(reader.wait_beyond(1, 20))
    await append(writer, 2)
    assert await waiting == 2
    with pytest.raises(StoreUnavailable, match="is a standby or read only") as refusal:
        await reader.append([request({"a": 2}, "a")])
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
    before = (await backend.follow(START, 10, EventFilter())).end
    assert before.position == 2
    await asyncio.to_thread(standby.fall_behind)
    await append(backend, 3, 4)
    after = (await backend.follow(before, 10, EventFilter())).end
    assert after.position == 4
    assert await backend.wait_beyond(3, 5) == 4

    await asyncio.to_thread(primary.stop)
    await asyncio.to_thread(standby.promote)
    with pytest.raises(HistoryDiverged, match="position 4"):
        await backend.follow(after, 10, EventFilter())
    # Who has not seen what is lost goes on.
    assert (await backend.follow(before, 10, EventFilter())).end == before
    async with asyncio.timeout(20):
        while await backend.wait_beyond(2, 0.2) != 2:
            pass
    await append(backend, 3, 4)
    assert [position for position, _, _ in await log(backend)] == [1, 2, 3, 4]
    with pytest.raises(HistoryDiverged):
        await backend.follow(after, 10, EventFilter())
