"""The cost of recording with 0 to 10 exporters, one of them stalled: it should not grow, as all share one aggregation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal

from benchmarks.measuring import Effort, Series, calibrated, in_turns, of_statements
from benchmarks.receivers import CountingExporter, StalledExporter
from benchmarks.record_path import SECONDS_RECORDED, spans
from benchmarks.results import Row, Table, Target
from eventcore.recording import SECONDS
from eventcore.telemetry import Telemetry

__all__ = ["exporter_count"]

_STALLED: Final = "10, one stalled"
_COUNTS: Final = ("0", "1", "5", "10", _STALLED)
_REPEATED: Final = 10
# Rounds differ by more than the target of three per cent, so many rounds are needed.
_TIMES_THE_ROUNDS: Final = 3

_METRICS: Final[Mapping[str, Callable[[Telemetry], tuple[list[str], dict[str, Any]]]]] = {
    "bound add": lambda telemetry: (
        ["series.add(1)"] * _REPEATED,
        {"series": telemetry.counter("orders.shipped", labels=("country", "kind")).labels("FR", "express")},
    ),
    "labelled add": lambda telemetry: (
        ['counter.labels("FR", "express").add(1)'] * _REPEATED,
        {"counter": telemetry.counter("orders.shipped", labels=("country", "kind"))},
    ),
    "histogram record": lambda telemetry: (
        [f"series.record({value})" for value in SECONDS_RECORDED],
        {"series": telemetry.histogram("order.duration", unit="s", boundaries=SECONDS).labels()},
    ),
}


def exporter_count(effort: Effort) -> Table:
    """The record path with 0, 1, 5 and 10 exporters, and with 10 of which one is stalled."""
    rounds = effort.rounds * (1 if effort.quick else _TIMES_THE_ROUNDS)
    # A round must be long enough to include the work of pipelines in the background, which look for work ten times a second.
    seconds = max(effort.seconds, 0.2) if not effort.quick else effort.seconds
    rows = [
        _row(name, in_turns({count: partial(_metric_turn, make, count, seconds) for count in _COUNTS}, rounds), "0")
        for name, make in _METRICS.items()
    ]
    cases: tuple[tuple[str, float | Literal["all"], tuple[str, ...]], ...] = (
        ("span, default sampling", 100, _COUNTS),
        ("span, all sampled", "all", _COUNTS[1:]),
    )
    for name, rate, counts in cases:
        turns = {count: partial(_span_turn, rate, count, seconds) for count in counts}
        rows.append(_row(name, in_turns(turns, effort.rounds), counts[0]))
    return Table(
        "Record path with several exporters: nanoseconds for one operation",
        (*(f"{count} exporters" for count in _COUNTS), "10 to none", "stalled to none"),
        tuple(rows),
        notes=(
            "Every exporter takes all four kinds of data through its own running pipeline, with a metrics cycle each "
            "second. Each turn has its own Telemetry, so that threads of other turns do not disturb it.",
            "one stalled: the tenth exporter hangs in its first hook, and its queue of spans is full.",
            "span, all sampled: without exporters no span is kept, so the comparison is with 1.",
        ),
    )


def _metric_turn(make: Callable[[Telemetry], tuple[list[str], dict[str, Any]]], exporters: str, seconds: float) -> float:
    telemetry = _telemetry(100, exporters)
    try:
        statements, names = make(telemetry)
        return calibrated(of_statements(statements, names), len(statements), seconds)()
    finally:
        telemetry.shutdown_blocking(5.0)


def _span_turn(rate: float | Literal["all"], exporters: str, seconds: float) -> float:
    telemetry = _telemetry(rate, exporters)
    try:
        # The stalled exporter does not answer; the others need much less time.
        patience = 0.1 if exporters == _STALLED else 5.0
        return spans(telemetry.span, lambda: telemetry.flush_blocking(patience), seconds)[0]()
    finally:
        telemetry.shutdown_blocking(5.0)


def _telemetry(rate: float | Literal["all"], exporters: str) -> Telemetry:
    telemetry = Telemetry(config={}, exporters=[], traces_per_second=rate)
    healthy = 9 if exporters == _STALLED else int(exporters)
    for number in range(healthy):
        telemetry.register_exporter(CountingExporter(), name=f"counting{number}")
    if not telemetry.flush_blocking(5.0):
        raise RuntimeError("an exporter did not start")
    if exporters == _STALLED:
        stalled = StalledExporter()
        telemetry.register_exporter(stalled, name="stalled")
        telemetry.counter("anything").add(1)
        if not stalled.stalled.wait(5.0):
            raise RuntimeError("the exporter did not stall")
    return telemetry


def _row(name: str, measured: Mapping[str, Series], against: str) -> Row:
    ratios = {count: measured[count].ratio(measured[against]) for count in ("10", _STALLED)}
    cells = [
        f"{measured[count].median * 1e9:,.0f} ± {measured[count].spread:.0%}" if count in measured else "–" for count in _COUNTS
    ]
    return Row(
        name,
        (*cells, *(f"{ratio:.3f}" for ratio in ratios.values())),
        {f"{count} exporters": series.median for count, series in measured.items()},
        tuple(Target(f"{count} exporters to {against}", ratio, 1.03) for count, ratio in ratios.items()),
    )
