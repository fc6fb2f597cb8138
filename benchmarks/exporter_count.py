"""The cost of recording with 0 to 5 exporters. It should not grow, because values are aggregated once for all exporters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal

from benchmarks.measuring import Effort, Series, calibrated, in_turns, of_statements
from benchmarks.receivers import CountingExporter
from benchmarks.record_path import SECONDS_RECORDED, spans
from benchmarks.results import Row, Table, Target
from eventcore.recording import SECONDS
from eventcore.telemetry import Telemetry

__all__ = ["exporter_count"]

_COUNTS: Final = (0, 1, 2, 5)
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
    """The record path with 0, 1, 2 and 5 exporters."""
    rounds = effort.rounds * (1 if effort.quick else _TIMES_THE_ROUNDS)
    # A round must be long enough to include the work of pipelines in the background, which look for work ten times a second.
    seconds = max(effort.seconds, 0.2) if not effort.quick else effort.seconds
    rows = [
        _row(name, in_turns({str(count): partial(_metric_turn, make, count, seconds) for count in _COUNTS}, rounds), "0")
        for name, make in _METRICS.items()
    ]
    cases: tuple[tuple[str, float | Literal["all"], tuple[int, ...]], ...] = (
        ("span, default sampling", 100, _COUNTS),
        ("span, all sampled", "all", _COUNTS[1:]),
    )
    for name, rate, counts in cases:
        turns = {str(count): partial(_span_turn, rate, count, seconds) for count in counts}
        rows.append(_row(name, in_turns(turns, effort.rounds), str(counts[0])))
    return Table(
        "Record path with several exporters: nanoseconds for one operation",
        (*(f"{count} exporters" for count in _COUNTS), "5 to none"),
        tuple(rows),
        notes=(
            "Every exporter takes all four kinds of data through its own running pipeline, with a metrics cycle each "
            "second. Each turn has its own Telemetry, so that threads of other turns do not disturb it.",
            "span, all sampled: without exporters no span is kept, so the comparison is 5 to 1.",
        ),
    )


def _metric_turn(make: Callable[[Telemetry], tuple[list[str], dict[str, Any]]], exporters: int, seconds: float) -> float:
    telemetry = _telemetry(100, exporters)
    try:
        statements, names = make(telemetry)
        return calibrated(of_statements(statements, names), len(statements), seconds)()
    finally:
        telemetry.shutdown_blocking(5.0)


def _span_turn(rate: float | Literal["all"], exporters: int, seconds: float) -> float:
    telemetry = _telemetry(rate, exporters)
    try:
        return spans(telemetry.span, lambda: telemetry.flush_blocking(5.0), seconds)[0]()
    finally:
        telemetry.shutdown_blocking(5.0)


def _telemetry(rate: float | Literal["all"], exporters: int) -> Telemetry:
    telemetry = Telemetry(config={}, exporters=[], traces_per_second=rate)
    for number in range(exporters):
        telemetry.register_exporter(CountingExporter(), name=f"counting{number}")
    if not telemetry.flush_blocking(5.0):
        raise RuntimeError("an exporter did not start")
    return telemetry


def _row(name: str, measured: Mapping[str, Series], against: str) -> Row:
    ratio = measured["5"].ratio(measured[against])
    cells = [
        f"{measured[str(count)].median * 1e9:,.0f} ± {measured[str(count)].spread:.0%}" if str(count) in measured else "–"
        for count in _COUNTS
    ]
    return Row(
        name,
        (*cells, f"{ratio:.3f}"),
        {f"{count} exporters": series.median for count, series in measured.items()},
        (Target(f"5 exporters to {against}", ratio, 1.03),),
    )
