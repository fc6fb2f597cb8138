"""How a large export affects an application: the lag of its event loop, and its commands per second."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Final

from benchmarks.bystander import Late, apart_from, bystander
from benchmarks.measuring import Effort, Series, in_turns
from benchmarks.results import Row, Table, Target
from benchmarks.surroundings import collector, scraped
from benchmarks.workload import file_store, keep_busy, order_streams
from eventcore.telemetry import Telemetry
from eventcore_otel import OpenTelemetryExporter
from eventcore_prometheus import PrometheusExporter
from tests.real_parts.waiting import wait_until

__all__ = ["export_lag"]

_SERIES: Final = 10_000
_INSTRUMENTS: Final = 10
_CONCURRENCY: Final = 64
_PROBE: Final = 0.002
_LONGEST: Final = 60.0
_NONE: Final = "no export"
# The exporter, and whether the application called gc.freeze() after it had started.
_CASES: Final[dict[str, tuple[str, bool]]] = {
    _NONE: (_NONE, False),
    "otel": ("otel", False),
    "prometheus": ("prometheus", False),
    "otel, gc.freeze()": ("otel", True),
    "prometheus, gc.freeze()": ("prometheus", True),
}
# The oldest generation of the garbage collector: a collection of it visits every object.
_FULL: Final = 2


@dataclass(slots=True)
class _Felt:
    """The measurements of all turns of one contender."""

    lags: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    besides_gc: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    exports: int = 0
    seconds: float = 0.0

    def add(
        self,
        sleeps: list[tuple[float, float]],
        pauses: list[tuple[float, float]],
        late: list[Late],
        exports: int,
        seconds: float,
    ) -> None:
        """Add the sleeps of the probe, the full garbage collections and the late wake-ups of the bystander, each as (from, to),
        and the number of exports.
        """
        own = [apart_from(late, start + _PROBE, end) for start, end in sleeps]
        self.lags += [end - start - _PROBE for start, end in sleeps]
        self.own += own
        self.besides_gc += [
            lag
            for lag, (start, end) in zip(own, sleeps, strict=True)
            if not any(begun < end and ended > start for begun, ended in pauses)
        ]
        self.pauses += [ended - begun for begun, ended in pauses]
        self.exports += exports
        self.seconds += seconds

    def lag(self, share: float) -> float:
        return sorted(self.lags)[min(int(len(self.lags) * share), len(self.lags) - 1)]


@dataclass(slots=True)
class _Exports:
    """Exports again and again in the way of one contender, and counts."""

    name: str
    telemetry: Telemetry
    endpoint: str

    @contextmanager
    def without_rest(self) -> Iterator[Callable[[], int]]:
        """Export again and again during the block; yields a function that returns the number of completed exports."""
        if self.name == _NONE:
            yield lambda: 0
        elif self.name == "otel":
            self.telemetry.register_exporter(OpenTelemetryExporter(endpoint=self.endpoint, insecure=True), name="otel")
            with self._flushed() as completed:
                yield completed
        else:
            exporter = PrometheusExporter(port=0, scrape_timeout=60.0)
            self.telemetry.register_exporter(exporter, name="prometheus")
            with scraped(wait_until(lambda: exporter.url, 10.0, "the exporter listens") or "", 0.0) as account:
                yield lambda: exporter.scrapes.served
            if account["failures"]:
                raise RuntimeError(f"scrapes failed: {account}")

    @contextmanager
    def _flushed(self) -> Iterator[Callable[[], int]]:
        stop, completed = threading.Event(), 0
        failures: list[str] = []

        def flush() -> None:
            nonlocal completed
            while not stop.is_set() and not failures:
                if report := self.telemetry.flush_blocking(_LONGEST):
                    completed += 1
                else:
                    failures.append(str(report))

        thread = threading.Thread(target=flush, name="benchmark-flush", daemon=True)
        thread.start()
        yield lambda: completed
        stop.set()
        thread.join(_LONGEST)
        if failures:
            raise RuntimeError(failures[0])


@contextmanager
def _full_collections() -> Iterator[list[tuple[float, float]]]:
    """The begin and end of each full garbage collection. All threads wait during one, whichever thread has caused it."""
    pauses: list[tuple[float, float]] = []
    begun = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal begun
        if info["generation"] == _FULL:
            if phase == "start":
                begun = perf_counter()
            else:
                pauses.append((begun, perf_counter()))

    gc.callbacks.append(note)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(note)


def export_lag(effort: Effort) -> Table:
    """Lag and commands per second, without an export and during exports of each exporter."""
    rounds, seconds = (5, 1.0) if effort.quick else (5, 3.0)
    rows = []
    with collector() as endpoint:
        for busy in (False, True):
            felt = {case: _Felt() for case in _CASES}
            turns = {
                case: partial(_turn, exporter, endpoint, busy, frozen, seconds, felt[case])
                for case, (exporter, frozen) in _CASES.items()
            }
            measured = in_turns(turns, rounds, warm_up=False)
            rows += [_row(case, busy, felt[case], measured[case], measured[_NONE]) for case in _CASES]
    return Table(
        f"While {_SERIES:,} histogram series are exported: lag of the event loop, and SQLite commands per second",
        (
            "lag p50",
            "p99",
            "worst",
            "of its own",
            "apart from GC",
            "longest GC",
            "commands/s",
            "to no export",
            "exports",
            "each",
        ),
        tuple(rows),
        notes=(
            f"{_INSTRUMENTS} histograms of {_SERIES // _INSTRUMENTS:,} series with 15 boundaries each, exported "
            "again and again without a pause: over OTLP to a rotel collector, or scraped (gzip) by another "
            "process. Both run on the same cores.",
            f"lag: how much too late a sleep of {_PROBE * 1e3:.0f} ms ends; asyncio rounds it up to a whole millisecond.",
            f"busy: {_CONCURRENCY} commands at once on SQLite, synchronous=FULL, on the same loop: their work is in the lag.",
            "worst: of all turns together. The rows without an export show the lag that the machine and the commands cause. "
            "of its own: without the time for which another process, which only sleeps, was woken late, too.",
            "GC: full collections of Python's garbage collector. All threads wait while it visits every object of the process. "
            "Commands cause them, too. In the rows with gc.freeze(), the application called that after it had started, so that "
            "the objects from before are not visited.",
        ),
    )


def _turn(name: str, endpoint: str, busy: bool, frozen: bool, seconds: float, felt: _Felt) -> float:
    telemetry = Telemetry(config={}, exporters=[], series_limit=_SERIES)
    for instrument in range(_INSTRUMENTS):
        histogram = telemetry.histogram(f"order.duration{instrument}", unit="s", labels=("country", "item"))
        for number in range(_SERIES // _INSTRUMENTS):
            series = histogram.labels(f"country{number % 20}", f"item{number}")
            for value in range(1, 20):
                series.record(value * 0.0137 * (number + 1) % 11)
    try:
        with _Exports(name, telemetry, endpoint).without_rest() as completed:
            # Not measured: the first export also imports modules and connects.
            wait_until(lambda: name == _NONE or completed(), _LONGEST, "an export is completed")
            # Collect the garbage from creating the series. An application would have done that long ago.
            gc.collect()
            if frozen:
                gc.freeze()
            return asyncio.run(_observe(telemetry, completed, 0 if name == _NONE else 2, busy, seconds, felt))
    finally:
        gc.unfreeze()
        report = telemetry.shutdown_blocking(10.0)
        for exporter in report.exporters:
            if exporter.points_exported < _SERIES:
                raise RuntimeError(f"fewer than {_SERIES} series were exported: {exporter}")


async def _observe(
    telemetry: Telemetry, completed: Callable[[], int], exports: int, busy: bool, seconds: float, felt: _Felt
) -> float:
    """Measure for some seconds, and for a number of exports at least; returns commands per second, 1 when none are executed."""
    async with file_store(telemetry) as store:
        stream = order_streams()
        if busy:
            await keep_busy(store, _CONCURRENCY, stream, lambda begun: begun < 500)
        before, begun = completed(), perf_counter()

        def go_on(_: int = 0) -> bool:
            passed = perf_counter() - begun
            return passed < seconds or (completed() - before < exports and passed < _LONGEST)

        with _full_collections() as pauses, bystander() as late:
            probe = asyncio.create_task(_probe(go_on))
            rate = (await keep_busy(store, _CONCURRENCY, stream, go_on)).rate if busy else 1.0
            sleeps = await probe
            exported, passed = completed() - before, perf_counter() - begun
        felt.add(sleeps, pauses, late, exported, passed)
        return rate


async def _probe(go_on: Callable[[], bool]) -> list[tuple[float, float]]:
    sleeps: list[tuple[float, float]] = []
    while go_on():
        asked = perf_counter()
        await asyncio.sleep(_PROBE)
        sleeps.append((asked, perf_counter()))
    return sleeps


def _row(name: str, busy: bool, felt: _Felt, rates: Series, without: Series) -> Row:
    worst, own, besides = max(felt.lags), max(felt.own), max(felt.besides_gc)
    longest = max(felt.pauses, default=0.0)
    ratio = rates.ratio(without)
    exporting = name != _NONE
    targets: list[Target] = []
    if exporting:
        targets = [Target("worst lag in ms", worst * 1e3, 10), Target("worst lag of its own in ms", own * 1e3, 10)]
    if exporting and busy:
        targets.append(Target("commands/s to no export", ratio, 0.75, at_most=False))
    cells = (
        _ms(felt.lag(0.5)),
        _ms(felt.lag(0.99)),
        _ms(worst),
        _ms(own),
        _ms(besides),
        _ms(longest) if felt.pauses else "–",
        f"{rates.median:,.0f} ± {rates.spread:.0%}" if busy else "–",
        f"{ratio:.3f}" if busy and exporting else "–",
        str(felt.exports) if exporting else "–",
        f"{felt.seconds / felt.exports:.2f} s" if felt.exports else "–",
    )
    values = {
        "p50": felt.lag(0.5),
        "p99": felt.lag(0.99),
        "worst": worst,
        "worst of its own": own,
        "worst apart from gc": besides,
        "longest gc": longest,
    }
    if busy:
        values |= {"commands/s": rates.median, "to no export": ratio}
    return Row(f"{'busy' if busy else 'idle'} loop, {name}", cells, values, tuple(targets))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
