"""Commands per second on SQLite: the cost of telemetry, and the throughput of one hot stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter
from typing import Final, Literal

from benchmarks.measuring import Effort, Series, in_turns
from benchmarks.results import Row, Table, Target
from benchmarks.surroundings import collector, scraped
from benchmarks.workload import Load, file_store, keep_busy, order_streams
from eventcore import StreamId
from eventcore.telemetry import Telemetry
from eventcore_otel import OpenTelemetryExporter
from eventcore_prometheus import PrometheusExporter

__all__ = ["store_throughput"]

_CONCURRENCY: Final = (64, 256)
_HOT_EVENTS: Final = 1000
_WARM_UP: Final = 500
_OFF: Final = "off"
# The name, verbosity, sampling, exporters, and whether the target applies.
_CONFIGURATIONS: Final[tuple[tuple[str, Literal["off", "normal"], float | Literal["all"], bool, bool], ...]] = (
    (_OFF, "off", 100, False, False),
    ("on, no exporter", "normal", 100, False, True),
    ("on, both exporters", "normal", 100, True, True),
    ("on, both exporters, all traces", "normal", "all", True, False),
)


def store_throughput(effort: Effort) -> tuple[Table, Table]:
    """Telemetry off, on, and with exporters; then all commands on one stream."""
    rounds, seconds = (5, 0.5) if effort.quick else (9, 3.0)
    with collector() as endpoint:
        return _with_and_without(rounds, seconds, endpoint), _hot_stream(rounds)


def _with_and_without(rounds: int, seconds: float, endpoint: str) -> Table:
    rows = []
    for concurrency in _CONCURRENCY:
        accounts: dict[str, list[str]] = {name: [] for name, *_ in _CONFIGURATIONS}
        loads: dict[str, list[Load]] = {name: [] for name, *_ in _CONFIGURATIONS}
        turns = {
            name: partial(
                _turn, verbosity, rate, endpoint if exporters else None, concurrency, seconds, accounts[name], loads[name]
            )
            for name, verbosity, rate, exporters, _ in _CONFIGURATIONS
        }
        measured = in_turns(turns, rounds)
        cpu = {name: Series(name, [load.cpu for load in loads[name][1:]]) for name in loads}
        for name, *_, has_target in _CONFIGURATIONS:
            ratios = measured[name].ratio(measured[_OFF]), cpu[name].ratio(cpu[_OFF])
            rows.append(_row(f"{concurrency} at once, {name}", measured[name], cpu[name], ratios, accounts[name], has_target))
    return Table(
        "SQLite: commands per second, telemetry off and on",
        ("commands/s", "to off", "CPU", "to off", "spans exported / recorded (otel)"),
        tuple(rows),
        notes=(
            "File database, WAL, synchronous=FULL; each command reads and writes one stream, ten events to a "
            "stream; each sender executes one command at a time; each turn has a new file.",
            "both exporters: OTLP over gRPC to a rotel collector, metrics every second (the default is every "
            "ten); and an endpoint that another process scrapes every second. Both processes run on the same "
            "cores.",
            "default sampling: 100 traces per second. all traces: no target; spans beyond the budget are dropped and counted.",
            "CPU: processor time of all threads of this process for one command. Other processes hardly affect it.",
        ),
    )


def _turn(
    verbosity: Literal["off", "normal"],
    rate: float | Literal["all"],
    endpoint: str | None,
    concurrency: int,
    seconds: float,
    accounts: list[str],
    loads: list[Load],
) -> float:
    telemetry = Telemetry(
        config={"exporters": {"otel": {"pipeline": {"interval": 1.0}}}},
        exporters=[],
        verbosity=verbosity,
        traces_per_second=rate,
    )
    with _exported(telemetry, endpoint, accounts):
        loads.append(asyncio.run(_commands(telemetry, concurrency, seconds)))
        return loads[-1].rate


@contextmanager
def _exported(telemetry: Telemetry, endpoint: str | None, accounts: list[str]) -> Iterator[None]:
    if endpoint is None:
        yield
        telemetry.shutdown_blocking(5.0)
        return
    prometheus = PrometheusExporter(port=0)
    telemetry.register_exporter(OpenTelemetryExporter(endpoint=endpoint, insecure=True), name="otel")
    telemetry.register_exporter(prometheus, name="prometheus")
    if not telemetry.flush_blocking(10.0) or prometheus.url is None:
        raise RuntimeError("the exporters did not start")
    with scraped(prometheus.url, 1.0) as account:
        yield
    report = telemetry.shutdown_blocking(10.0)["otel"]
    if account["failures"] or not account["scrapes"] or not report.points_exported:
        raise RuntimeError(f"the exporters did not deliver: {account}, {report}")
    if report.spans_recorded != report.spans_exported + sum(report.spans_dropped.values()) + report.spans_pending:
        raise RuntimeError(f"recorded spans are not exported, dropped or pending: {report}")
    accounts.append(f"{report.spans_exported:,} / {report.spans_recorded:,}")


async def _commands(telemetry: Telemetry, concurrency: int, seconds: float) -> Load:
    async with file_store(telemetry) as store:
        stream = order_streams()
        await keep_busy(store, concurrency, stream, lambda begun: begun < _WARM_UP)
        end = perf_counter() + seconds
        load = await keep_busy(store, concurrency, stream, lambda _: perf_counter() < end)
        if (stored := await store.head_position()) != load.commands + _WARM_UP:
            raise RuntimeError(f"{load.commands + _WARM_UP} commands, but {stored} events")
        return load


def _row(name: str, series: Series, cpu: Series, ratios: tuple[float, float], accounts: list[str], has_target: bool) -> Row:
    ratio, cpu_ratio = ratios
    return Row(
        name,
        (
            f"{series.median:,.0f} ± {series.spread:.0%}",
            f"{ratio:.3f}",
            f"{cpu.median * 1e6:.1f} µs ± {cpu.spread:.0%}",
            f"{cpu_ratio:.3f}",
            accounts[-1] if accounts else "–",
        ),
        {"commands/s": series.median, "to off": ratio, "cpu": cpu.median, "cpu to off": cpu_ratio},
        (Target("commands/s to off", ratio, 0.9, at_most=False),) if has_target else (),
    )


def _hot_stream(rounds: int) -> Table:
    loads: list[Load] = []

    def turn() -> float:
        loads.append(asyncio.run(_one_stream()))
        return loads[-1].rate

    series = in_turns({"hot": turn}, rounds)["hot"]
    attempts, p99 = max(load.attempts for load in loads), median(load.latency(0.99) for load in loads)
    return Table(
        f"SQLite: 64 commands at once on one stream, from 0 to {_HOT_EVENTS:,} events",
        ("commands/s", "slowest round", "attempts, worst", "p99"),
        (
            Row(
                "64 at once",
                (
                    f"{series.median:,.0f} ± {series.spread:.0%}",
                    f"{min(series.values):,.0f}",
                    str(attempts),
                    f"{p99 * 1e3:.1f} ms",
                ),
                {"commands/s": series.median, "slowest": min(series.values), "attempts": attempts, "p99": p99},
                (
                    Target("commands/s", series.median, 5000, at_most=False),
                    Target("attempts", attempts, 5),
                ),
            ),
        ),
        notes=("Telemetry on, no exporter. Every round begins with an empty file, without a warm-up.",),
    )


async def _one_stream() -> Load:
    telemetry = Telemetry(config={}, exporters=[])
    async with telemetry, file_store(telemetry) as store:
        load = await keep_busy(store, 64, lambda: StreamId("order-hot"), lambda begun: begun < _HOT_EVENTS)
        if (stored := await store.head_position()) != _HOT_EVENTS:
            raise RuntimeError(f"{_HOT_EVENTS} commands, but {stored} events")
        return load
