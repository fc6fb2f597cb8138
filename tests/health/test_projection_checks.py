"""The checks of projections: by heartbeat and progress, whichever process runs them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from eventcore import EventStore, OnError, Projection, RecordedEvent, Telemetry, open_store
from eventcore.errors import InvalidProjection, StoreUnavailable
from eventcore.health import CheckResult, HealthSettings
from eventcore.stores import MemoryBackend
from tests.health.conftest import QUICK, Run, check, deposit, until, when
from tests.projections.models import Seen


async def test_a_projection_that_runs_is_healthy_with_its_figures(store: EventStore, run: Run) -> None:
    await deposit(store, 3)
    run(Seen())
    await store.wait_for("seen", 3)
    found = await check(store, "projection:seen")
    assert (found.status, found.figures["position"], found.figures["lag"]) == ("healthy", 3, 0)
    assert found.figures["heartbeat_age"] is not None


async def test_a_projection_that_has_stopped_at_an_event_is_unhealthy_and_says_why(store: EventStore, run: Run) -> None:
    projection = Seen()
    projection.poison.add(1)
    await deposit(store)
    run(projection)

    async def failed() -> CheckResult | None:
        found = (await store.health()).checks.get("projection:seen")
        return found if found is not None and found.status == "unhealthy" else None

    found = await until(failed)
    assert "ProjectionFailed" in found.reason
    assert "poison at 1" in found.reason
    health = await store.health()
    assert (health.status, health.ready) == ("degraded", True)


async def test_a_projection_that_is_refused_is_unhealthy_and_says_why(store: EventStore) -> None:
    projection = Seen()
    projection.batch_size = 0
    with pytest.raises(InvalidProjection):
        await store.run(projection)
    found = await check(store, "projection:seen")
    assert found.status == "unhealthy"
    assert found.reason.startswith("it has failed in this process: InvalidProjection: ")
    assert "batch_size is 0" in found.reason
    assert (await store.health()).status == "degraded"


async def test_a_projection_that_runs_stays_healthy_when_a_second_call_is_refused(store: EventStore, run: Run) -> None:
    run(Seen())
    await deposit(store)
    await store.wait_for("seen", 1)
    wrong = Seen()
    wrong.batch_size = 0
    with pytest.raises(InvalidProjection):
        await store.run(wrong)
    assert (await check(store, "projection:seen")).status == "healthy"


async def test_a_projection_ends_readiness_when_it_is_configured_as_essential(telemetry: Telemetry) -> None:
    settings = msgspec.structs.replace(QUICK, essential=("projection:*",), projections=("balances",))
    async with open_store("memory:", telemetry=telemetry, health=settings) as store:
        health = await until(lambda: when(store, lambda health: "projection:balances" in health.checks))
        assert health.checks["projection:balances"].reason == "it has never run on this store, and no process runs it"
        assert not health.ready


async def test_an_essential_name_that_no_check_has_is_reported_and_ends_readiness(telemetry: Telemetry) -> None:
    essential = ("projection:typo", "nonsense:*", "projection:*", "exporter:*", "dead_letters", "queue")
    settings = msgspec.structs.replace(QUICK, essential=essential)
    async with open_store("memory:", telemetry=telemetry, health=settings) as store:
        store.add_health_check("queues", lambda: True)
        health = await store.health()
        wrong = {name: (check.status, check.reason) for name, check in health.checks.items() if check.status != "healthy"}
        missing = "'essential' names it, but there is no such check"
        assert wrong == {
            "projection:typo": ("unhealthy", missing),
            "nonsense:*": ("degraded", missing),
            "queue": ("unhealthy", f"{missing}; did you mean 'queues'?"),
        }
        assert not health.ready
        store.add_health_check("queue", lambda: True)
        assert (await store.health()).checks["queue"].status == "healthy"


async def test_essential_names_are_several() -> None:
    with pytest.raises(ValueError, match=r"projections='seen'; expected several names, such as \('seen',\)"):
        HealthSettings(projections="seen")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="essential='exporter:\\*'; expected several names"):
        HealthSettings(essential="exporter:*")  # type: ignore[arg-type]  # what is tested


async def test_a_projection_that_nobody_runs_any_more_is_unhealthy_in_every_process(telemetry: Telemetry) -> None:
    backend = MemoryBackend()
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(open_store(each, telemetry=telemetry, name=name, health=QUICK))
            for name, each in (("web", backend), ("worker", backend.another()))
        ]
        web, worker = workers
        running = asyncio.create_task(worker.run(Seen(), lease=0.3))
        await deposit(web)
        await web.wait_for("seen", 1)
        assert (await check(web, "projection:seen")).status == "healthy"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        found = await until(lambda: when(web, lambda health: health.checks["projection:seen"].status == "unhealthy"))
        assert found.checks["projection:seen"].reason.startswith("no process has run it for")
        assert found.checks["projection:seen"].figures["lag"] == 0


async def test_a_projection_with_a_newer_version_need_not_run_any_more(store: EventStore, run: Run) -> None:
    class SeenAnew(Seen):
        version = 2

    await deposit(store)
    task = run(Seen())
    await store.wait_for("seen", 1)
    task.cancel()
    await asyncio.wait([task])
    other = run(SeenAnew())
    await store.wait_for("seen@2", 1)
    assert not other.done()
    names = [name for name in (await store.health()).checks if name.startswith("projection:")]
    # The runner of this process has stopped on purpose, so its last state is shown until the process ends.
    assert "projection:seen@2" in names
    async with open_store("memory:", telemetry=store.telemetry, name="other", health=QUICK) as elsewhere:
        assert not [name for name in (await elsewhere.health()).checks if name.startswith("projection:")]


class Stuck(Projection):
    name = "stuck"

    def __init__(self) -> None:
        self.free = asyncio.Event()

    async def handle(self, event: RecordedEvent) -> None:
        await self.free.wait()


async def test_a_handler_that_hangs_is_unhealthy_by_its_heartbeat(store: EventStore, run: Run) -> None:
    projection = Stuck()
    run(projection)
    await deposit(store)
    found = await until(lambda: when(store, lambda health: health.status == "degraded"))
    assert "no sign of life" in found.checks["projection:stuck"].reason
    projection.free.set()
    await until(lambda: when(store, lambda health: health.status == "healthy"))


class Retrying(Seen):
    name = "retrying"
    on_error = OnError(retries=1000, base_delay=0.01, max_delay=0.05)


async def test_a_handler_that_is_retried_without_end_shows_life_and_makes_no_progress(store: EventStore, run: Run) -> None:
    projection = Retrying()
    projection.poison.add(1)
    run(projection)
    await deposit(store, 2)
    found = await until(lambda: when(store, lambda health: health.checks["projection:retrying"].status == "unhealthy"))
    reason = found.checks["projection:retrying"].reason
    assert "no progress" in reason
    assert "2 events waiting: ValueError: poison at 1" in reason


async def test_what_the_store_does_not_say_of_a_projection_is_unhealthy_and_not_zero(store: EventStore, run: Run) -> None:
    run(Seen())
    await deposit(store)
    await store.wait_for("seen", 1)
    await store.health()

    async def unavailable() -> Any:
        raise StoreUnavailable("away")

    store._monitor._projections._ledger.projections = unavailable  # type: ignore[method-assign]
    found = await check(store, "projection:seen")
    assert (found.status, found.figures["lag"]) == ("unhealthy", None)
    assert found.reason == "unknown, since the store does not answer"


async def test_dead_letters_that_wait_degrade(store: EventStore, run: Run) -> None:
    class Poisoned(Seen):
        name = "poisoned"
        on_error = OnError(retries=0, then="dead_letter")

    projection = Poisoned()
    projection.poison |= {1, 3}
    run(projection)
    await deposit(store, 3)
    await store.wait_for("poisoned", 3)
    # An evaluation that began between the two letters is kept for a moment.
    health = await until(lambda: when(store, lambda health: health.checks["dead_letters"].figures == {"waiting": 2}))
    found = health.checks["dead_letters"]
    assert found.status == "degraded"
    assert "2 of poisoned" in found.reason
    assert "see 'eventcore projections dead-letters poisoned STORE_URL'" in found.reason
    assert (await store.health()).ready
