"""A store that goes away is one record, and its return is another."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from eventcore import open_store
from eventcore.catalogue.outages import Outages
from eventcore.errors import StoreUnavailable, UnknownEventType
from tests.postgres.proxy import Proxy
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, account


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_is_two_records_however_many_calls_fail(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outages = Outages("bank", lambda: False, clock)
    for _ in range(50):
        outages.failed(StoreUnavailable("no answer within 5 s"))
    clock.now += 20.04
    outages.succeeded()
    outages.succeeded()
    assert [record.getMessage() for record in caplog.records] == [
        "the store 'bank' is away; commands and reads fail until it answers again: StoreUnavailable: no answer within 5 s",
        "the store 'bank' is back after 20.0 s; 50 calls to it failed meanwhile",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_an_outage_begins_with_its_first_call_and_not_when_that_call_gave_up(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outages = Outages("bank", lambda: False, clock)
    clock.now += 10
    outages.failed(StoreUnavailable("no answer within 10 s"), 10.0)
    clock.now += 3
    outages.failed(StoreUnavailable("no answer within 10 s"), 10.0)
    outages.succeeded()
    assert caplog.records[-1].getMessage() == "the store 'bank' is back after 13.0 s; 2 calls to it failed meanwhile"


def test_calls_that_fail_while_the_store_answers_others_are_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages("bank", lambda: True)
    outages.failed(StoreUnavailable("a lock was held"))
    outages.failed(StoreUnavailable("a lock was held"))
    outages.succeeded()
    assert caplog.records == []


def test_an_error_that_is_an_answer_of_the_store_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages("bank", lambda: False)
    outages.failed(UnknownEventType("no class"))
    assert caplog.records == []


@pytest.mark.once
async def test_a_server_that_is_killed_and_comes_back_is_two_records(
    start_postgres: Callable[..., PostgresServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_postgres()
    async with open_store(f"{server.url(server.new_database())}?timeout=1", name="bank", exporters=[]) as store:
        await store.execute(Deposit(account=account(1)))
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        for number in range(5):
            with pytest.raises(StoreUnavailable):
                await store.execute(Deposit(account=account(number)))
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            while not any("is back" in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.05)
    messages = [record.getMessage() for record in caplog.records if record.name == "eventcore.store"]
    assert len(messages) == 2
    assert messages[0].startswith(
        "the store 'bank' is away; commands and reads fail until it answers again: StoreUnavailable: "
    )
    found = re.fullmatch(r"the store 'bank' is back after [\d.]+ s; (\d+) calls to it failed meanwhile", messages[1])
    assert found is not None
    assert int(found[1]) >= 5


@pytest.mark.once
async def test_an_outage_in_which_calls_hang_counts_from_the_first_of_them(
    newest_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy.before(newest_postgres.url(newest_postgres.new_database())))
        store = await stack.enter_async_context(open_store(f"{proxy.url}?timeout=2", name="bank", exporters=[]))
        await store.execute(Deposit(account=account(1)))
        begun, proxy.deaf = time.monotonic(), True
        with pytest.raises(StoreUnavailable):
            await store.execute(Deposit(account=account(1)))
        proxy.deaf = False
        proxy.cut_all()
        async with asyncio.timeout(20):
            while not any("is back" in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.05)
        took = time.monotonic() - begun
    [said] = [record.getMessage() for record in caplog.records if "is back" in record.getMessage()]
    found = re.match(r"the store 'bank' is back after ([\d.]+) s", said)
    assert found is not None
    assert float(found[1]) > took - 1
