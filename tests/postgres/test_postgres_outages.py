"""Restarts and other outages: commands wait for the server to come back, or fail in time; nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from time import monotonic

import pytest

from eventcore import EventStore, RetryPolicy, open_store
from eventcore.errors import CommandTimeout, StoreUnavailable
from eventcore.stores.urls import backend_from_url
from tests.postgres.backends import as_soon_as_it_answers, everything
from tests.postgres.proxy import Proxy
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, account

StartPostgres = Callable[..., PostgresServer]


class Depositors:
    """Tasks that deposit one after the other until they are stopped, and keep what they were told."""

    def __init__(self, store: EventStore, count: int) -> None:
        self.told: list[str] = []
        self.failures: list[StoreUnavailable] = []
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run(store, number)) for number in range(count)]

    async def _run(self, store: EventStore, number: int) -> None:
        while not self._stop.is_set():
            try:
                result = await store.execute(Deposit(account=account(number)), retry=RetryPolicy(attempts=100))
            except StoreUnavailable as failure:
                self.failures.append(failure)
            else:
                self.told += [event.event_id for event in result.events]

    async def have_done(self, more: int, timeout: float = 30) -> None:
        wanted = len(self.told) + more
        async with asyncio.timeout(timeout):
            while len(self.told) < wanted:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_commands_go_on_after_a_restart_of_the_server(start_postgres: StartPostgres, ending: signal.Signals) -> None:
    server = start_postgres()
    url = server.url(server.new_database())
    async with open_store(url, exporters=[]) as store:
        depositors = Depositors(store, 8)
        for _ in range(2):
            await depositors.have_done(50)
            await asyncio.to_thread(server.stop, ending)
            await asyncio.to_thread(server.start)
        await depositors.have_done(50)
        await depositors.stop()
    backend = backend_from_url(url)
    await backend.open()
    rows = await everything(backend)
    await backend.close(5)
    stored = [row.event_id for row in rows]
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    assert len(set(stored)) == len(stored)
    assert set(depositors.told) <= set(stored)
    # What failed may stand only if it was said so.
    uncertain = sum(failure.may_have_committed for failure in depositors.failures)
    assert len(stored) - len(depositors.told) <= uncertain


async def test_a_command_does_not_hang_beyond_its_timeout_nor_beyond_that_of_the_server(url: str) -> None:
    async with Proxy.before(url) as proxy, open_store(f"{proxy.url}?timeout=1", exporters=[]) as store:
        await store.execute(Deposit(account=account(1)))
        proxy.silent = True
        begun = monotonic()
        with pytest.raises(CommandTimeout):
            await store.execute(Deposit(account=account(1)), timeout=0.2)
        assert monotonic() - begun < 3
        with pytest.raises(StoreUnavailable):
            await store.execute(Deposit(account=account(2)))
        assert monotonic() - begun < 10
        proxy.silent = False
        await as_soon_as_it_answers(lambda: store.execute(Deposit(account=account(3))))


async def test_readers_are_woken_after_a_restart_too(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    url = server.url(server.new_database())
    async with open_store(url, exporters=[]) as store:
        reader = backend_from_url(url)
        await reader.open()
        assert await reader.log.wait_beyond(0, 0.1) == 0
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        waiting = asyncio.create_task(reader.log.wait_beyond(0, 30))
        await store.execute(Deposit(account=account(1)))
        assert await waiting == 1
        await reader.close(5)


async def test_waiting_for_events_of_a_server_that_is_gone_fails(url: str) -> None:
    async with Proxy.before(url) as proxy:
        backend = backend_from_url(f"{proxy.url}?timeout=0.5")
        await backend.open()
        assert await backend.log.wait_beyond(0, 0.5) == 0
        proxy.refusing = True
        proxy.cut_all()
        with pytest.raises(StoreUnavailable):
            await backend.log.wait_beyond(0, 4)
        proxy.refusing = False
        assert await backend.log.wait_beyond(0, 5) == 0
        await backend.close(5)


async def test_closing_does_not_wait_for_a_server_that_is_silent(url: str) -> None:
    async with Proxy.before(url) as proxy:
        backend = backend_from_url(proxy.url)
        await backend.open()
        await backend.log.wait_beyond(0, 0.1)
        await backend.log.head_position()
        proxy.silent = True
        begun = monotonic()
        await backend.close(1)
        assert monotonic() - begun < 4
