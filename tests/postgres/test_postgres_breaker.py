"""While the server is away, calls fail at once; its metrics say so; a probe finds it back."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import pytest

from eventcore import EventStore, Projection, RecordedEvent, Telemetry, open_store
from eventcore.errors import StoreUnavailable
from tests.postgres.proxy import Proxy
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, account
from tests.store.conftest import Measured, measured, telemetry

__all__ = ["measured", "telemetry"]


async def until(condition: Callable[[], bool], timeout: float = 15) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


def states(measured: Measured) -> list[float]:
    return [measured("store.breaker.state", state=state) for state in ("closed", "open", "half_open")]


@pytest.mark.parametrize("outage", ["silent", "refusing"])
async def test_once_the_server_is_known_to_be_away_commands_fail_at_once_until_it_is_back(
    url: str, telemetry: Telemetry, measured: Measured, outage: str
) -> None:
    async with Proxy.before(url) as proxy, open_store(f"{proxy.url}?timeout=1", telemetry=telemetry) as store:
        await store.execute(Deposit(account=account(1)))
        assert (states(measured), measured("store.up"), measured("store.pool.limit")) == ([1, 0, 0], 1, 7)
        setattr(proxy, outage, True)
        if outage == "refusing":
            proxy.cut_all()
        begun = monotonic()
        with pytest.raises(StoreUnavailable):
            await store.execute(Deposit(account=account(2)))
        assert monotonic() - begun < 1.5
        await until(lambda: measured("store.breaker.state", state="closed") == 0)
        for number in range(20):
            begun = monotonic()
            with pytest.raises(StoreUnavailable, match="calls fail at once until the server answers a probe") as failure:
                await store.execute(Deposit(account=account(number)))
            assert monotonic() - begun < 0.2
            assert not failure.value.may_have_committed
            assert sum(states(measured)) == 1
            assert measured("store.up") == 0
        setattr(proxy, outage, False)
        # Without any call of the application.
        await until(lambda: states(measured) == [1, 0, 0] and measured("store.up") == 1)
        begun = monotonic()
        await store.execute(Deposit(account=account(4)))
        assert monotonic() - begun < 1


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


class Quiet(Projection):
    name = "quiet"

    async def handle(self, event: RecordedEvent, transaction: object) -> None:
        pass


@pytest.mark.once
async def test_with_the_default_timeout_calls_fail_at_once_as_soon_as_it_is_over(
    start_postgres: Callable[..., PostgresServer], telemetry: Telemetry
) -> None:
    """The ends of connections that the server does not confirm take all places, so that none is left for an attempt."""
    took: list[tuple[float, float]] = []
    said: list[str] = []

    async def deposit(store: EventStore, number: int, silent_since: float) -> None:
        begun = monotonic()
        with pytest.raises(StoreUnavailable) as failed:
            await store.execute(Deposit(account=account(number)))
        said.append(str(failed.value))
        took.append((begun - silent_since, monotonic() - begun))

    server = start_postgres()
    async with open_store(server.url(), telemetry=telemetry) as store:
        running = asyncio.create_task(store.run(Quiet()))
        await store.execute(Deposit(account=account(0)))
        await store.wait_for(Quiet(), 1)
        postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
        stopped = [postmaster, *children(postmaster)]
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            since, number = monotonic(), itertools.count(1)
            async with asyncio.TaskGroup() as commands:
                while monotonic() < since + 12:
                    commands.create_task(deposit(store, next(number), since))
                    await asyncio.sleep(0.5)
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)
        running.cancel()
        await asyncio.wait([running])
    late = [seconds for begun, seconds in took if begun > 10.6]
    assert late
    assert max(late) < 0.3
    # First what it means, and then how that was found.
    assert re.match(r"PostgreSQL at \S+ does not answer.*: it is stopped or overloaded, or a machine in between", said[-1])
    assert "calls fail at once until the server answers" in said[-1]
    assert not any("start it, or correct the address" in message for message in said)
    assert max(seconds for _, seconds in took) < 11


async def test_a_held_lock_is_not_an_outage_and_waits_that_fail_are_counted(
    url: str, telemetry: Telemetry, measured: Measured
) -> None:
    async with open_store(f"{url}?timeout=2&pool=1", telemetry=telemetry) as store:
        await store.execute(Deposit(account=account(1)))
        assert measured("store.pool.timeouts") == 0
        holder = await asyncpg.connect(url)
        await holder.execute("BEGIN; LOCK TABLE eventcore.events IN ACCESS EXCLUSIVE MODE")

        async def read() -> None:
            async for _ in store.read(account(1)):
                pass

        for _ in range(2):
            results = await asyncio.gather(*(read() for _ in range(6)), return_exceptions=True)
            assert {type(result) for result in results} == {StoreUnavailable}
        assert measured("store.pool.timeouts") >= 5
        assert measured("store.pool.wait") >= measured("store.pool.timeouts")
        assert measured("store.pool.limit") == 4
        assert states(measured) == [1, 0, 0]
        await holder.execute("ROLLBACK")
        await holder.close()
        await read()


async def test_a_restart_that_takes_less_than_the_timeout_is_waited_for(
    start_postgres: Callable[..., Any], telemetry: Telemetry, measured: Measured
) -> None:
    server = start_postgres()
    url = server.url(server.new_database())
    async with open_store(f"{url}?timeout=20", telemetry=telemetry) as store:
        await store.execute(Deposit(account=account(1)))
        await asyncio.to_thread(server.stop)
        waiting = asyncio.create_task(store.execute(Deposit(account=account(2))))
        await asyncio.sleep(0.3)
        assert states(measured) == [1, 0, 0]
        await asyncio.to_thread(server.start)
        await waiting
