"""An event loop that never waits: exporters have their turns all the same."""

from __future__ import annotations

import asyncio
import time

import pytest

from eventcore import Telemetry, open_store
from eventcore.ground import LoopYielder
from tests.pipeline.conftest import Collecting, eventually

SECONDS = 2.0
# At an interval of 0.05 s there would be 40; threads that starve come to a handful.
CYCLES = 15


def telemetry_with(exporter: Collecting) -> Telemetry:
    exporter.interval = 0.05
    telemetry = Telemetry(config={}, exporters=[])
    telemetry.counter("counted").labels().add(1)
    telemetry.register_exporter(exporter)
    eventually(lambda: telemetry.exporters()[0].state == "running" and exporter.context)
    return telemetry


async def saturate(seconds: float) -> None:
    """Have the loop turn without a pause, with as much to do in a turn as many small requests."""
    end = time.monotonic() + seconds

    async def work() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(0)
            sum(range(200))

    await asyncio.gather(*(work() for _ in range(64)))


async def test_beside_a_store_whose_loop_never_waits_exporters_keep_their_intervals() -> None:
    exporter = Collecting()
    telemetry = telemetry_with(exporter)
    async with open_store("memory:", telemetry=telemetry):
        before = exporter.calls.count("flush")
        await saturate(SECONDS)
        cycles = exporter.calls.count("flush") - before
    await telemetry.shutdown(5.0)
    assert cycles >= CYCLES


async def test_a_telemetry_without_a_store_yields_within_async_with() -> None:
    exporter = Collecting()
    async with telemetry_with(exporter):
        before = exporter.calls.count("flush")
        await saturate(SECONDS)
        cycles = exporter.calls.count("flush") - before
    assert cycles >= CYCLES


async def test_a_loop_yields_only_while_threads_are_late(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("eventcore.ground.yielding.time.sleep", naps.append)
    lateness = 0.0
    yielder = LoopYielder(lambda: lateness)
    await asyncio.sleep(0.25)
    assert naps == []
    lateness = 0.1
    async with asyncio.timeout(10):
        while not naps:
            await asyncio.sleep(0.005)
    assert max(naps) < 0.001
    yielder.stop()
    count = len(naps)
    await asyncio.sleep(0.05)
    assert len(naps) == count
