"""A store goes back in time while a projection runs: a runner that has applied a lost event raises HistoryDiverged."""

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


async def test_a_runner_that_has_lost_its_lease_checks_the_last_event_that_it_applied(telemetry: Telemetry, run: Run) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        seen = Seen()
        running = run(store, seen, lease=0.3)
        await deposit(store, 3)
        await until(lambda: seen.positions == [1, 2, 3])
        # A standby that lagged has neither the events nor the lease. The runner notices the lease first.
        backend.real = MemoryBackend()
        backend.overtake(account("a"), 1, 1)
        with pytest.raises(HistoryDiverged, match="position 3"):
            await asyncio.wait_for(running, 10)
    assert seen.positions == [1, 2, 3]


async def test_a_runner_that_stands_by_checks_too(telemetry: Telemetry, run: Run) -> None:
    """Another runner, which has applied nothing yet, gets the lease first."""
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
