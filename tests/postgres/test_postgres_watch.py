"""The watch over the head position: what a wait returns before, during and after the polls of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from eventcore.errors import StoreClosed, StoreUnavailable
from eventcore.stores.postgres.connections import Pool
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.postgres.watch import PostgresHeadWatch


class HeldServer:
    """Stands in for the pools: the test answers each poll itself.

    Attributes:
        settings: the settings of the store.
        polls: polls that wait for their answer.
        failure: raised by each attempt to get a connection.
    """

    def __init__(self) -> None:
        self.settings = PostgresSettings(dsn="", address="held", listen=False)
        self.polls: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()
        self.failure: StoreUnavailable | None = None

    @asynccontextmanager
    async def connection(self, deadline: float) -> AsyncIterator[None]:
        if self.failure is not None:
            raise self.failure
        yield

    async def rows(self, connection: None, query: str) -> list[tuple[int]]:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.polls.put_nowait(answer)
        return [(await answer,)]

    async def fetch(self, query: str, timeout: float) -> list[tuple[int]]:
        async with self.connection(timeout) as connection:
            return await self.rows(connection, query)


@pytest.fixture
def server() -> HeldServer:
    return HeldServer()


@pytest.fixture
async def watch(server: HeldServer) -> AsyncIterator[PostgresHeadWatch]:
    pool = cast(Pool, cast(Any, server))
    watch = PostgresHeadWatch(pool, pool)
    yield watch
    await watch.close()


async def some_iterations() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_wait_without_time_returns_the_first_answer_of_the_server(server: HeldServer, watch: PostgresHeadWatch) -> None:
    waiting = asyncio.create_task(watch.wait_beyond(0, 0))
    poll = await server.polls.get()
    await some_iterations()
    assert not waiting.done(), "the head position is not known yet"
    poll.set_result(7)
    assert await waiting == 7
    assert await watch.wait_beyond(9, 0) == 7, "from now on, the head position is known"


async def test_an_append_of_this_process_is_no_answer_of_the_server(server: HeldServer, watch: PostgresHeadWatch) -> None:
    watch.advance(2)
    assert await watch.wait_beyond(1, 0) == 2
    waiting = asyncio.create_task(watch.wait_beyond(2, 0))
    poll = await server.polls.get()
    await some_iterations()
    poll.set_result(5)
    assert await waiting == 5, "other processes have appended, too"


async def test_a_wait_without_time_raises_the_failure_of_the_first_attempt(
    server: HeldServer, watch: PostgresHeadWatch
) -> None:
    server.failure = StoreUnavailable("the server is away")
    with pytest.raises(StoreUnavailable, match="the server is away"):
        await watch.wait_beyond(0, 0)


async def test_closing_ends_a_wait_for_the_first_answer(server: HeldServer, watch: PostgresHeadWatch) -> None:
    waiting = asyncio.create_task(watch.wait_beyond(0, 0))
    await server.polls.get()
    await watch.close()
    with pytest.raises(StoreClosed):
        await waiting


async def test_an_answer_that_an_append_has_overtaken_does_not_lower_the_head(
    server: HeldServer, watch: PostgresHeadWatch
) -> None:
    waiting = asyncio.create_task(watch.wait_beyond(5, 0))
    poll = await server.polls.get()
    watch.advance(1)
    poll.set_result(0)
    await some_iterations()
    assert await waiting == 1
    assert await watch.wait_beyond(5, 0) == 1
    # A failover may lose events: a poll that began after the append is believed.
    (await server.polls.get()).set_result(0)
    await some_iterations()
    assert await watch.wait_beyond(5, 0) == 0
