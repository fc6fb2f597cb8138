"""Every trace, delivered: commands per second until a collector has the spans, exported in threads and by a process."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, sleep
from typing import Any, Final

from benchmarks.eventcore_contender import timed
from benchmarks.measuring import Effort, Series, in_turns
from benchmarks.postgres_server import Database, measured_server
from benchmarks.results import Row, Table, Target
from benchmarks.surroundings import collector
from benchmarks.workload import Load, add_item, order_streams
from eventcore.telemetry import Telemetry

__all__ = ["every_trace"]

_CONCURRENCY: Final = 64
_WARM_UP: Final = 0.5
# This share of the spans that were recorded during the load must have arrived.
_SHARE: Final = 0.95
_LONGEST: Final = 60.0
_OFF: Final = "telemetry off"
_THREADS: Final = "in threads"
_PROCESS: Final = "with a process"
# What lets an exporter deliver all spans: a budget for converting them, and a queue for some seconds of them.
_PIPELINES: Final[dict[str, dict[str, Any]]] = {
    _THREADS: {"span_interval": 0.1, "cpu_budget": 1.0, "span_queue": 500_000},
    _PROCESS: {"span_interval": 0.1, "process": True, "span_queue": 500_000},
}
_TARGETS: Final = {_THREADS: 0.6, _PROCESS: 0.8}


@dataclass(slots=True)
class _Turns:
    """What the turns of one contender had beside their rates."""

    in_time: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    account: str = "–"


def every_trace(effort: Effort) -> Table:
    """Telemetry off, and all traces recorded: the load ends when the collector has 95 % of its spans."""
    rounds, seconds = (3, 2.0) if effort.quick else (9, 5.0)
    begun = os.getloadavg()[0]
    names = itertools.count()
    turns = {name: _Turns() for name in (_OFF, _THREADS, _PROCESS)}
    with measured_server() as server, collector() as endpoint:
        database = server.database()
        contenders = {name: partial(_turn, name, endpoint, database, seconds, names, each) for name, each in turns.items()}
        measured = in_turns(contenders, rounds)
        about = server.about
    rows = [_row(name, measured[name], measured[_OFF], turns[name]) for name in turns]
    return Table(
        f"Every trace: commands per second, {_CONCURRENCY} at once, until 95 % of the spans have arrived",
        ("commands/s", "to off", "in time", "CPU", "spans exported / recorded"),
        tuple(rows),
        notes=(
            about,
            "Each command reads and writes one stream, ten events to a stream; each sender executes one command at a time. All "
            "traces are recorded, and exported over OTLP gRPC to a rotel collector on the same cores.",
            "commands/s: the time counts until the collector has 95 % of the spans that were recorded when the load ended. "
            "in time: the share that it had when the load ended.",
            "CPU: processor time of the store's process for one command. That of the exporter's process is not part of it.",
            "in threads: with cpu_budget = 1. with a process: process = true. Both with room for 500,000 spans, and "
            "span_interval = 0.1.",
            f"Load of the machine: {begun:.1f} before, {os.getloadavg()[0]:.1f} after.",
        ),
    )


def _turn(
    name: str,
    endpoint: str,
    database: Database,
    seconds: float,
    names: Iterator[int],
    turns: _Turns,
) -> float:
    before = database.settle()
    stream = order_streams(name=f"order-{next(names)}")
    with _telemetry(name, endpoint) as telemetry:
        load, warm = asyncio.run(timed(database.url, telemetry, _CONCURRENCY, stream, add_item, seconds, _WARM_UP))
        later = _wait_for_spans(telemetry, turns) if name != _OFF else 0.0
    database.verify(before, load.commands + warm.commands)
    turns.cpu.append(load.cpu)
    return _sustained(load, later)


def _sustained(load: Load, later: float) -> float:
    return load.commands / (load.seconds + later)


@contextmanager
def _telemetry(name: str, endpoint: str) -> Iterator[Telemetry]:
    if name == _OFF:
        yield Telemetry(config={}, exporters=[], verbosity="off")
        return
    otel = {"endpoint": endpoint, "insecure": True, "pipeline": _PIPELINES[name]}
    telemetry = Telemetry(config={"exporters": {"otel": otel}}, exporters=["otel"], traces_per_second="all")
    telemetry.start_blocking()
    try:
        if not telemetry.flush_blocking(20.0):
            raise RuntimeError(f"the exporter did not start: {telemetry.exporters()[0].problem}")
        yield telemetry
    finally:
        report = telemetry.shutdown_blocking(10.0)["otel"]
    counted = report.spans_exported + sum(report.spans_dropped.values()) + report.spans_unknown + report.spans_pending
    if report.spans_recorded != counted:
        raise RuntimeError(f"the account does not add up: {report}")


def _wait_for_spans(telemetry: Telemetry, turns: _Turns) -> float:
    """Seconds until the collector had so many spans as were recorded when the load ended, but for 5 %."""
    [exporter] = telemetry.exporters()
    ended = perf_counter()
    # What is still in the ring counts, too.
    ring = len(telemetry._tracer.ring.spans)  # spans between the ring and the queue have no public count
    counts = exporter.stats().spans
    assert counts is not None
    recorded = counts.recorded + ring
    turns.in_time.append(counts.exported / recorded)
    while counts.exported < _SHARE * recorded:
        if perf_counter() - ended > _LONGEST or sum(counts.dropped.values()) > (1 - _SHARE) * recorded:
            raise RuntimeError(f"not even 95 % of the spans arrived: {counts}")
        sleep(0.005)
        counts = exporter.stats().spans
        assert counts is not None
    turns.account = f"{counts.exported:,} / {recorded:,}"
    return perf_counter() - ended


def _row(name: str, series: Series, off: Series, turns: _Turns) -> Row:
    ratio = series.ratio(off)
    # The first turn is the warm-up, as for the rates.
    in_time, cpu = turns.in_time[1:], Series(name, turns.cpu[1:])
    share = sorted(in_time)[len(in_time) // 2] if in_time else 1.0
    cells = (
        f"{series.median:,.0f} ± {series.spread:.0%}",
        f"{ratio:.3f}",
        f"{share:.0%}" if in_time else "–",
        f"{cpu.median * 1e6:.1f} µs ± {cpu.spread:.0%}",
        turns.account,
    )
    targets = (Target("commands/s to off", ratio, _TARGETS[name], at_most=False),) if name in _TARGETS else ()
    return Row(name, cells, {"commands/s": series.median, "to off": ratio, "in time": share, "cpu": cpu.median}, targets)
