"""A store that goes back in time under a projection: whoever has applied what is gone is told, however it finds out."""

from __future__ import annotations

import asyncio

import pytest

from eventcore import Telemetry
from eventcore.errors import HistoryDiverged
from eventcore.stores import MemoryBackend
from tests.projections.conftest import Run
from tests.projections.models import Seen, deposit, until
from tests.store.backends import SteeredBackend
from tests.store.bank import account


async def test_a_runner_that_has_lost_its_lease_looks_whether_what_it_applied_still_stands(
    telemetry: Telemetry, run: Run
) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        seen = Seen()
        running = run(store, seen, lease=0.3)
        await deposit(store, 3)
        await until(lambda: seen.positions == [1, 2, 3])
        # A standby that lagged knows neither the events nor the lease: the lease is missed first.
        backend.real = MemoryBackend()
        backend.overtake(account("a"), 1, 1)
        with pytest.raises(HistoryDiverged, match="position 3"):
            await asyncio.wait_for(running, 10)
    assert seen.positions == [1, 2, 3]


async def test_a_runner_that_stands_by_looks_too(telemetry: Telemetry, run: Run) -> None:
    """Another, which has applied nothing yet, is faster to lead on what stands."""
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        seen = Seen()
        running = run(store, seen, lease=0.3)
        await deposit(store, 3)
        await until(lambda: seen.positions == [1, 2, 3])
        backend.real = MemoryBackend()
        backend.overtake(account("a"), 1, 1)
        assert await backend.ledger.acquire_lease("seen", "another", 60) is not None
        with pytest.raises(HistoryDiverged, match="position 3"):
            await asyncio.wait_for(running, 10)
