"""A leader that is stopped, or whose machine vanishes, inside its transaction is succeeded within its lease and two seconds."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any

import asyncpg
import pytest

from eventcore import open_store
from tests.postgres.projecting import POISON, Rows
from tests.postgres.proxy import Proxy
from tests.projections.models import deposit
from tests.store.test_processes import ROOT

# Durations of leases, and of takeovers.
LEASE = 1.0

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def outside(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE seen (position bigint); CREATE TABLE total (n bigint); INSERT INTO total VALUES (0)")
    yield connection
    await connection.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    processes: list[Process] = []

    async def start(url: str, hang_at: int = 0, exit_at: int = 0) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.postgres.projecting", url, str(LEASE), str(hang_at), str(exit_at)),
            cwd=ROOT,
            stdout=PIPE,
            stderr=PIPE,
        )
        processes.append(process)
        if hang_at:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 30) == b"inside\n"
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def positions(outside: Any) -> list[int]:
    return [row[0] for row in await outside.fetch("SELECT position FROM seen ORDER BY position")]


@pytest.mark.timing
async def test_a_leader_that_is_stopped_inside_its_transaction_is_succeeded(url: str, outside: Any, start: Start) -> None:
    async with open_store(url, exporters=[]) as store:
        head = await deposit(store, 3)
        leader = await start(url, hang_at=2)
        running = asyncio.create_task(store.run(Rows(), lease=LEASE))
        leader.send_signal(signal.SIGSTOP)
        begun = monotonic()
        await store.wait_for("rows", head, timeout=20)
        assert monotonic() - begun < LEASE + 2
        leader.send_signal(signal.SIGCONT)
        await store.wait_for("rows", await deposit(store, 3))
        running.cancel()
        await asyncio.wait([running])
    assert await positions(outside) == [1, 2, 3, 4, 5, 6]
    assert await outside.fetchval("SELECT n FROM total") == 6


@pytest.mark.timing
async def test_a_leader_whose_network_vanishes_inside_its_transaction_is_succeeded(
    url: str, outside: Any, start: Start
) -> None:
    async with Proxy.before(url) as proxy, open_store(url, exporters=[]) as store:
        head = await deposit(store, 3)
        leader = await start(proxy.url, hang_at=2)
        running = asyncio.create_task(store.run(Rows(), lease=LEASE))
        # The proxy keeps its connections to the server open, as a machine does that has lost its power.
        proxy.deaf = proxy.silent = True
        begun = monotonic()
        await store.wait_for("rows", head, timeout=20)
        assert monotonic() - begun < LEASE + 2
        leader.kill()
        running.cancel()
        await asyncio.wait([running])
    assert await positions(outside) == [1, 2, 3]


@pytest.mark.timing
async def test_a_transaction_whose_client_is_stopped_ends_without_a_successor(url: str, outside: Any, start: Start) -> None:
    async with open_store(url, exporters=[]) as store:
        await deposit(store, 2)
        leader = await start(url, hang_at=2)
        leader.send_signal(signal.SIGSTOP)
        # The row that the handler has written is free again.
        async with asyncio.timeout(LEASE + 2):
            await outside.execute("UPDATE total SET n = 100")


async def test_a_slow_handler_that_works_on_something_else_is_not_stopped(url: str, outside: Any) -> None:
    class Slow(Rows):
        async def handle(self, event: Any, transaction: Any) -> None:
            await super().handle(event, transaction)
            await asyncio.sleep(3 * LEASE)

    async with open_store(f"{url}?pool=1", exporters=[]) as store:
        await deposit(store, 2)
        running = asyncio.create_task(store.run(Slow(), lease=LEASE))
        await store.wait_for("rows", 2, timeout=20)
        running.cancel()
        await asyncio.wait([running])
    assert await positions(outside) == [1, 2]


async def test_an_event_that_kills_its_process_becomes_a_dead_letter_after_its_retries(
    url: str, outside: Any, start: Start
) -> None:
    async with open_store(url, exporters=[]) as store:
        head = await deposit(store, 4)
        for _ in range(4):
            process = await start(url, exit_at=3)
            assert await asyncio.wait_for(process.wait(), 30) == POISON
        await start(url, exit_at=3)
        await store.wait_for("rows", head, timeout=20)
        [letter] = await store.dead_letters("rows")
        assert (letter.position, letter.attempts) == (3, 3)
        assert letter.error == "the process ended while the handler ran, in each of 3 attempts"
    assert await positions(outside) == [1, 2, 4]
