"""The metrics of a projection, each compared with what was done."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from eventcore import EventStore, OnError, RecordedEvent, Telemetry, open_store
from eventcore.catalogue import ProjectionInstruments, ProjectionProgress
from eventcore.health import HealthSettings
from eventcore.stores import Checkpoint, ProjectionRecord
from tests.projections.conftest import Run
from tests.projections.models import Seen, Table, deposit, until
from tests.store.bank import Deposit, account
from tests.store.conftest import Measured


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> ProjectionProgress:
    return ProjectionProgress(clock)


def test_without_the_lease_every_number_is_unknown(progress: ProjectionProgress) -> None:
    for _ in range(2):
        assert [progress.lag(), progress.lag_time(), progress.eta(), progress.position, progress.checkpoint] == [None] * 5
        progress.start_leading(3)
        progress.observe_head(5)
        assert (progress.lag(), progress.position, progress.checkpoint) == (2, 3, 3)
        progress.stand_by("paused")


def test_the_lag_is_absent_while_the_head_is_not_known(progress: ProjectionProgress) -> None:
    progress.start_leading(3)
    assert progress.lag() is None
    assert progress.lag_time() is None
    progress.observe_head(3)
    assert (progress.lag(), progress.lag_time(), progress.eta()) == (0, 0.0, 0.0)


def test_the_lag_time_is_the_age_of_the_oldest_event_that_is_not_applied(progress: ProjectionProgress, clock: Clock) -> None:
    progress.start_leading(0)
    progress.observe_head(10)
    clock.now += 5
    progress.observe_head(20)
    clock.now += 3
    assert progress.lag_time() == 8
    progress.advance(9)
    assert progress.lag_time() == 8
    progress.advance(10)
    assert progress.lag_time() == 3
    progress.advance(20)
    clock.now += 60
    assert progress.lag_time() == 0


def test_many_sightings_take_bounded_memory_and_never_make_the_lag_time_too_low(
    progress: ProjectionProgress, clock: Clock
) -> None:
    progress.start_leading(0)
    for head in range(1, 20_001):
        clock.now = 1000.0 + head
        progress.observe_head(head)
    assert len(progress._sightings) <= 1024
    for position in (0, 777, 5_000, 19_990):
        progress.advance(position)
        assert (progress.lag_time() or 0) >= 20_000 - (position + 1)
    progress.advance(20_000)
    assert progress.lag_time() == 0


def test_eta_follows_from_the_speed_at_which_the_lag_shrinks(progress: ProjectionProgress, clock: Clock) -> None:
    progress.start_leading(0)
    progress.observe_head(10_000)
    for second in range(11):
        clock.now = 1000.0 + second
        progress.observe_head(10_000 + 100 * second)
        progress.advance(600 * second)
    assert progress.lag() == 5_000
    assert progress.eta() == pytest.approx(10.0)


def test_eta_is_unknown_while_the_lag_grows(progress: ProjectionProgress, clock: Clock) -> None:
    progress.start_leading(0)
    for second in range(5):
        clock.now = 1000.0 + second
        progress.observe_head(1000 * (second + 1))
        progress.advance(10 * second)
    assert progress.eta() is None


def test_the_heartbeat_ends_when_the_runner_stops(progress: ProjectionProgress, clock: Clock) -> None:
    assert progress.heartbeat_age() is None
    progress.tick()
    clock.now += 7
    assert progress.heartbeat_age() == 7
    progress.stand_by("stopped")
    assert progress.heartbeat_age() is None


# In a store


def shown(telemetry: Telemetry, name: str) -> list[float]:
    return [
        point.value  # type: ignore[union-attr]  # a gauge's points have it
        for data in telemetry.collect()
        if data.name == f"eventcore.projections.{name}"
        for point in data.points
    ]


async def test_all_metrics_of_a_projection_are_recorded(
    store: EventStore, telemetry: Telemetry, run: Run, measured: Measured
) -> None:
    class Held(Seen):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = asyncio.Event()

        async def handle(self, event: RecordedEvent) -> None:  # type: ignore[override]  # either is allowed
            if event.position == 4:
                await self.go_on.wait()
            self.take(event)

    held = Held()
    await deposit(store, 6)
    task = run(store, held)
    await until(lambda: len(held.positions) == 3)
    assert shown(telemetry, "lag") == [6]
    assert shown(telemetry, "leader") == [1]
    assert measured("projections.lag.time", store="default", projection="seen") > 0
    held.go_on.set()
    await store.wait_for(held, 6)
    await until(lambda: measured("projections.checkpoint", projection="seen") == 6)
    assert (shown(telemetry, "lag"), shown(telemetry, "lag.time"), shown(telemetry, "eta")) == ([0], [0], [0])
    assert measured("projections.position", projection="seen") == 6
    assert measured("projections.state", projection="seen", state="running") == 1
    assert measured("projections.events", projection="seen", outcome="applied") == 6
    assert measured("projections.handle.duration", projection="seen") == measured(
        "projections.batch.duration", projection="seen", phase="apply"
    )
    assert measured("projections.batch.duration", projection="seen", phase="load") >= 1
    assert measured("projections.batch.duration", projection="seen", phase="commit") >= 1
    assert measured("events.read", purpose="projection") == 6
    assert measured("store.operation.duration", operation="follow", outcome="ok") >= 1
    assert 0 <= shown(telemetry, "heartbeat.age")[0] < 5
    task.cancel()
    await asyncio.wait([task])
    assert measured("projections.state", projection="seen", state="stopped") == 1
    assert measured("projections.state", projection="seen") == 1
    assert shown(telemetry, "leader") == [0]
    for name in ("lag", "lag.time", "eta", "position", "checkpoint", "heartbeat.age"):
        assert shown(telemetry, name) == []


async def test_a_closed_store_shows_no_projections(url: str, telemetry: Telemetry) -> None:
    async with open_store(url, telemetry=telemetry) as store:
        running = asyncio.create_task(store.run(Seen()))
        await store.wait_for("seen", await deposit(store, 2))
        assert len(shown(telemetry, "state")) == 5
    await running
    assert shown(telemetry, "state") == shown(telemetry, "leader") == []


async def test_at_verbose_each_call_of_a_handler_is_measured(url: str) -> None:
    async with Telemetry(exporters=[], verbosity="verbose") as telemetry:
        async with open_store(url, telemetry=telemetry) as store:
            await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(50)))
            running = asyncio.create_task(store.run(Seen()))
            await store.wait_for("seen", 50)
            [data] = [one for one in telemetry.collect() if one.name == "eventcore.projections.handle.duration"]
            assert [point.count for point in data.points] == [50]  # type: ignore[union-attr]  # a histogram's points have it
        await running


async def test_a_projection_with_a_transaction_has_the_same_metrics(
    sqlite_url: str, telemetry: Telemetry, measured: Measured, run: Run
) -> None:
    async with open_store(sqlite_url, telemetry=telemetry) as store:
        run(store, Table())
        await store.wait_for("table", await deposit(store, 5))
        assert measured("projections.events", projection="table", outcome="applied") == 5
        assert measured("projections.checkpoint", projection="table") == 5
        for phase in ("load", "apply", "commit"):
            assert measured("projections.batch.duration", projection="table", phase=phase) >= 1


async def test_a_projection_that_nobody_runs_keeps_its_lag_its_position_and_its_dead_letters(
    sqlite_url: str, telemetry: Telemetry, run: Run, measured: Measured
) -> None:
    often = HealthSettings(interval=0.02, keep=0.0)
    seen = Seen()
    seen.on_error = OnError(retries=0, then="dead_letter")
    seen.poison.add(2)
    async with open_store(sqlite_url, telemetry=telemetry, name="runs", health=often) as store:
        await deposit(store, 4)
        task = run(store, seen)
        await store.wait_for(seen, 4)
        async with open_store(sqlite_url, telemetry=telemetry, name="watches", health=often) as watching:
            # Each of the two stores shows it.
            await until(lambda: measured("projections.dead.letters.waiting", store="runs", projection="seen") == 1)
            await until(lambda: measured("projections.dead.letters.waiting", store="watches", projection="seen") == 1)
            task.cancel()
            await asyncio.wait([task])
            await deposit(watching, 3)
            for name in ("runs", "watches"):
                await until(partial(reaches, measured, name, 3))
                assert measured("projections.position", store=name, projection="seen") == 4
                assert measured("projections.lag.time", store=name, projection="seen") > 0
            # What this process does not know, it does not say.
            assert measured("projections.state", store="watches") == 0
            assert [labels for labels in labels_of(telemetry, "heartbeat.age") if labels["store"] == "watches"] == []
            await watching.reset_projection("seen")
            await until(lambda: measured("projections.position", store="watches") == 0)
            await until(lambda: measured("projections.dead.letters.waiting", store="watches") == 0)


async def test_a_runner_that_leads_is_shown_by_its_own_numbers(store: EventStore, run: Run, measured: Measured) -> None:
    seen = Seen()
    await deposit(store, 2)
    run(store, seen)
    await store.wait_for(seen, 2)
    store._instruments.projections.observe_records([record_at(1)], 9)
    assert measured("projections.lag") == 0
    assert measured("projections.position") == 2


def test_a_projection_that_was_set_back_begins_anew(telemetry: Telemetry, measured: Measured) -> None:
    instruments = ProjectionInstruments(telemetry, "default")
    instruments.observe_records([record_at(5)], 8)
    assert (measured("projections.lag"), measured("projections.position")) == (3, 5)
    instruments.observe_records([record_at(1)], 8)
    assert (measured("projections.lag"), measured("projections.position")) == (7, 1)
    instruments.observe_records([], 0)
    assert labels_of(telemetry, "lag") == labels_of(telemetry, "dead.letters.waiting") == []


def reaches(measured: Measured, store: str, lag: int) -> bool:
    return measured("projections.lag", store=store, projection="seen") == lag


def record_at(position: int) -> ProjectionRecord:
    return ProjectionRecord("seen", Checkpoint(position, "id"), "", 1, 0.0, 0)


def labels_of(telemetry: Telemetry, name: str) -> list[dict[str, str]]:
    return [
        dict(point.labels)
        for data in telemetry.collect()
        if data.name == f"eventcore.projections.{name}"
        for point in data.points
    ]
