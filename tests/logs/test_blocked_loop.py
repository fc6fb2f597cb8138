"""Code that blocks the event loop is one record with the stack of that code, and shows in the metric `event.loop.lag`."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from eventcore import EventStore, Telemetry, open_store
from eventcore.exporting import HistogramData
from eventcore.health import HealthSettings
from eventcore.health.loop_watch import LoopWatch

LOGGER = "eventcore.loop"


def parse_a_large_file(seconds: float) -> None:
    time.sleep(seconds)


def block_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOGGER]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def lags(store: EventStore) -> list[int]:
    [data] = [data for data in store.telemetry.collect() if data.name == "eventcore.event.loop.lag"]
    assert isinstance(data, HistogramData)
    [point] = data.points
    return list(point.buckets)


async def test_a_blocked_loop_is_one_record_with_the_stack_that_blocks_it(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        Telemetry(exporters=[], config={}) as telemetry,
        open_store("memory:", telemetry=telemetry, health=HealthSettings(blocked_after=0.2)) as store,
    ):
        await until(lambda: sum(lags(store)) >= 1)
        parse_a_large_file(0.9)
        await until(lambda: sum(lags(store)[-7:]) == 1)
        [record] = block_records(caplog)
        message = record.getMessage()
        assert re.match(r"the event loop has been blocked for 0\.\d\d s by this code, the innermost call last:\n", message)
        assert message.splitlines()[-2].endswith("in parse_a_large_file")
        assert record.levelno == logging.WARNING
        # Of the same code, but another block.
        parse_a_large_file(0.9)
        await until(lambda: len(block_records(caplog)) == 2)


async def test_a_loop_that_runs_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    lateness: list[float] = []
    watch = LoopWatch(0.4, record_lag=lateness.append)
    await until(lambda: len(lateness) == 2)
    watch.stop()
    assert all(0 <= late < 0.4 for late in lateness)
    assert block_records(caplog) == []


async def test_a_block_that_no_thread_could_see_is_logged_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch(0.2)
    expected = re.compile(r"a callback blocked the event loop for \d+\.\d\d s; no other thread could run to see its stack")
    numbers = 10_000_000
    while not any(expected.fullmatch(record.getMessage()) for record in block_records(caplog)):
        # One call in C, which keeps the GIL for longer with each turn.
        sum(range(numbers))
        numbers = min(2 * numbers, 80_000_000)
        await asyncio.sleep(0.01)
    watch.stop()


STOPPED = """
import asyncio, os, signal, subprocess, sys
from eventcore import open_store

async def main():
    async with open_store("memory:", exporters="none", config={}):
        await asyncio.sleep(0.6)
        # Another process stops this one for two seconds.
        subprocess.Popen(["sh", "-c", f"kill -STOP {os.getpid()}; sleep 2; kill -CONT {os.getpid()}"])
        await asyncio.sleep(3)

asyncio.run(main())
"""


@pytest.mark.once
def test_a_process_that_was_stopped_is_not_taken_for_one_whose_callbacks_block() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=60, check=True)
    assert re.search(r"^eventcore\.loop: the process did not run for [12]\.\d\d s: it got 0\.\d\d s", done.stderr), done.stderr
    assert "blocked" not in done.stderr


async def test_the_thread_that_watches_ends_with_the_store() -> None:
    def watching() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "eventcore-loop-watch"]

    before = len(watching())
    async with open_store("memory:", exporters="none", config={}):
        assert len(watching()) == before + 1
    await until(lambda: len(watching()) <= before)


def test_a_loop_that_ends_without_closing_the_store_is_not_taken_for_blocked(caplog: pytest.LogCaptureFixture) -> None:
    async def leave_it() -> LoopWatch:
        return LoopWatch(0.02)

    loop = asyncio.new_event_loop()
    watch = loop.run_until_complete(leave_it())
    seen: list[float] = []
    deadline = time.monotonic() + 5
    while (blocked := watch.blocked_for()) < 0.1:
        seen.append(blocked)
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    loop.close()
    assert block_records(caplog) == []
