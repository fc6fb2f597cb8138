"""Replaying moves on a store in memory, reading the metrics, and the checks of the summary."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventcore import Telemetry, open_store
from eventcore.exporting.delivery.report import ExporterReport
from examples.flights.collector import Received
from examples.flights.data import Schedule
from examples.flights.readings import Distribution, Readings
from examples.flights.replay import REJECTIONS, Replay
from examples.flights.scrape import Page
from examples.flights.summary import Evidence, summarize
from examples.flights.tables import duration
from examples.flights.timetable import Move, timetable
from examples.flights.whereabouts import Picture


async def first(count: int, schedule: Schedule) -> AsyncIterator[Move]:
    async for move in timetable(schedule):
        if not count:
            return
        count -= 1
        yield move


async def replayed(folder: Path, *, lanes: int, count: int = 6000) -> tuple[Replay, Readings, list[str]]:
    async with open_store("memory:", exporters="none") as store:
        replay = Replay(store, lanes=lanes)
        await replay.run(first(count, Schedule(folder)), asyncio.Event(), None)
        streams = sorted(
            [f"{event.stream_id} {event.version} {event.data}" async for event in store.read_all(pattern="aircraft-*")]
        )
        return replay, Readings(store.telemetry.collect()), streams


async def test_concurrent_commands_give_the_same_refusals_and_events_as_sequential_ones(real_data: Path) -> None:
    together, readings, streams = await replayed(real_data, lanes=128)
    _, in_order, streams_in_order = await replayed(real_data, lanes=1)
    refused = readings.by(REJECTIONS, "command.type", "reason")
    assert refused["DepartFlight", "flight_cancelled"] > 0
    assert refused == in_order.by(REJECTIONS, "command.type", "reason")
    assert streams == streams_in_order
    assert together.issued == readings.total("eventcore.commands.total") == 6000


async def test_a_rate_is_kept(real_data: Path) -> None:
    async with open_store("memory:", exporters="none") as store:
        replay = Replay(store, rate=200)
        await replay.run(timetable(Schedule(real_data)), asyncio.Event(), 0.5)
    # A slow machine may be behind the rate. No machine may be ahead of it.
    assert 10 <= replay.issued <= 101


async def test_a_stopped_replay_finishes_the_commands_that_it_has_begun(real_data: Path) -> None:
    stop = asyncio.Event()
    async with open_store("memory:", exporters="none") as store:
        replay = Replay(store)
        running = asyncio.create_task(replay.run(timetable(Schedule(real_data)), stop, None))
        while replay.issued < 100:
            await asyncio.sleep(0.001)
        stop.set()
        await running
        assert Readings(store.telemetry.collect()).total("eventcore.commands.total") == replay.issued


def test_quantiles_lie_within_their_buckets() -> None:
    values = Distribution(boundaries=(1.0, 2.0), buckets=(50, 40, 10), largest=12.0)
    assert values.quantile(0.25) == 0.5
    assert values.quantile(0.9) == 2.0
    assert values.quantile(0.95) == 7.0
    assert Distribution().quantile(0.5) is None


def test_the_values_since_an_earlier_reading_are_the_difference() -> None:
    telemetry = Telemetry(exporters="none")
    waits = telemetry.histogram("waits", labels=("gate",), boundaries=(1, 2))
    waits.labels("A1").record(0.5)
    before = Readings(telemetry.collect()).distribution("waits")
    waits.labels("B2").record(1.5)
    waits.labels("A1").record(5)
    now = Readings(telemetry.collect())
    assert list(now.distribution("waits").since(before).buckets) == [0, 1, 1]
    assert list(now.distribution("waits", {"gate": "A1"}).buckets) == [1, 0, 1]


@pytest.mark.parametrize(("seconds", "shown"), [(None, "-"), (2.5, "2.50s"), (0.0123, "12.3ms"), (0.00045, "450µs")])
def test_a_duration_is_shown_with_three_digits(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def evidence() -> Evidence:
    telemetry = Telemetry(exporters="none")
    commands = telemetry.counter("eventcore.commands.total", labels=("outcome",))
    commands.labels("committed").add(3)
    commands.labels("rejected").add(1)
    telemetry.counter(REJECTIONS, labels=("reason",)).labels("in_the_air").add(1)
    telemetry.counter("eventcore.events.written", labels=("event.type",)).labels("FlightDeparted").add(6)
    durations = telemetry.histogram("eventcore.commands.duration", unit="s")
    for _ in range(4):
        durations.labels().record(0.01)
    page = Page(
        [
            ("eventcore_commands_total", {"outcome": "committed"}, 3.0),
            ("eventcore_commands_total", {"outcome": "rejected"}, 1.0),
            ("eventcore_events_written_total", {"event_type": "FlightDeparted"}, 6.0),
            ("eventcore_command_duration_seconds_count", {}, 4.0),
        ]
    )
    otel = ExporterReport(
        name="otel",
        state="stopped",
        delivered=True,
        spans_recorded=9,
        spans_exported=7,
        spans_dropped={"budget": 2},
        points_exported=5,
    )
    return Evidence(
        seconds=1.0,
        issued=4,
        failure="",
        events={"FlightDeparted": 6},
        head=6,
        readings=Readings(telemetry.collect()),
        page=page,
        projected=Picture(),
        picture=Picture(),
        exporters=(otel,),
        failed_exporters={},
        received=Received(span_requests=1, spans=7, metric_requests=1, metrics=2),
        unsampled=0,
    )


def test_evidence_that_agrees_passes_every_check() -> None:
    summary = summarize(evidence(), interrupted=False)
    assert summary.agreed
    assert len(summary.checks) == 12
    assert "9 = 7 + 2 + 0 pending (2 budget)" in {check.found for check in summary.checks}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"issued": 5}, ["commands issued = commands counted"]),
        ({"failure": "the disk is full"}, ["no command failed"]),
        ({"head": 7}, ["positions added = events in the store: no gaps"]),
        ({"events": {"FlightLanded": 6}}, ["events counted, by type = events in the store"]),
        ({"projected": "it lags behind"}, ["read model = fold over all events"]),
        ({"page": "nobody answers"}, ["metrics can be scraped"]),
        ({"received": Received(1, 6, 1, 2)}, ["spans exported = spans that the collector logged"]),
        ({"received": Received(1, 7, 0, 0)}, ["metric points are confirmed"]),
        ({"failed_exporters": {"prometheus": "ImportError: no"}}, ["prometheus is loaded"]),
        (
            {"exporters": (), "received": Received(1, 7, 1, 2)},
            ["spans exported = spans that the collector logged"],
        ),
    ],
)
def test_evidence_that_disagrees_fails_the_check_that_names_it(changes: dict[str, Any], failed: list[str]) -> None:
    summary = summarize(msgspec.structs.replace(evidence(), **changes), interrupted=False)
    assert [check.name for check in summary.checks if not check.passed] == failed


def test_a_span_missing_from_the_counts_fails_a_check() -> None:
    witnesses = evidence()
    (otel,) = witnesses.exporters
    summary = summarize(
        msgspec.structs.replace(witnesses, exporters=(msgspec.structs.replace(otel, spans_recorded=10),)), interrupted=False
    )
    (check,) = [check for check in summary.checks if not check.passed]
    assert check.name == "otel: spans recorded = exported + dropped"
