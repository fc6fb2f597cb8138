"""A store is closed on its own event loop, or on any once that loop is gone."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest

from eventcore import EventStore, open_store
from eventcore.errors import StoreClosed, WrongEventLoop
from eventcore.testing import RecordingExporter
from tests.store.bank import Deposit, account


async def test_closing_from_another_event_loop_is_refused_and_changes_nothing(url: str) -> None:
    async with open_store(url, exporters=[]) as store:
        with pytest.raises(WrongEventLoop, match="run_coroutine_threadsafe"):
            await asyncio.wait_for(asyncio.to_thread(asyncio.run, store.close(1)), 10)
        assert (await store.execute(Deposit(account=account("a")))).position == 1
        await store.close()
        # It is closed, so this call has nothing to do.
        await asyncio.wait_for(asyncio.to_thread(asyncio.run, store.close(1)), 10)


@pytest.mark.parametrize("cancels", [True, False], ids=["tasks-cancelled", "tasks-left"])
async def test_closing_a_store_whose_event_loop_is_closed_releases_its_threads_and_files(url: str, cancels: bool) -> None:
    if url.startswith("postgresql"):
        pytest.skip("its connections belong to the closed loop, and warn when they are collected")
    before = set(threading.enumerate())

    async def leave_open() -> EventStore:
        store = await open_store(url, exporters=[]).__aenter__()
        store.register_exporter(RecordingExporter())
        await store.execute(Deposit(account=account("a")))
        return store

    def run() -> float:
        loop = asyncio.new_event_loop()
        store = loop.run_until_complete(leave_open())
        tasks = asyncio.all_tasks(loop)
        if cancels:
            for task in tasks:  # as asyncio.run does
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()
        assert len(set(threading.enumerate()) - before) > 1
        begun = time.monotonic()
        for _ in range(2):
            asyncio.run(store.close(10))
        seconds = time.monotonic() - begun
        with pytest.raises(StoreClosed):
            asyncio.run(store.execute(Deposit(account=account("a"))))
        return seconds

    assert await asyncio.to_thread(run) < 8
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("eventcore"):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive(), thread.name


@pytest.mark.parametrize("timeout", [-1, math.nan, "1"])
async def test_a_timeout_of_closing_that_is_no_number_of_seconds_is_refused_before_anything_changes(timeout: object) -> None:
    async with open_store("memory:", exporters=[]) as store:
        with pytest.raises(ValueError, match=r"timeout=.*; expected seconds, 0 or more"):
            await store.close(timeout=timeout)  # type: ignore[arg-type]  # the fault under test
        assert (await store.execute(Deposit(account=account("a")))).position == 1
