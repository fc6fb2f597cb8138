"""What an application feels while a large collection is exported: the lag of its event loop, and its commands per second."""

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
# The exporter, and whether the application has called gc.freeze() once it had started.
_CASES: Final[dict[str, tuple[str, bool]]] = {
    _NONE: (_NONE, False),
    "otel": ("otel", False),
    "prometheus": ("prometheus", False),
    "otel, gc.freeze()": ("otel", True),
    "prometheus, gc.freeze()": ("prometheus", True),
}
# The oldest of the generations of the garbage collector.
_FULL: Final = 2


@dataclass(slots=True)
class _Felt:
    """What was seen in all turns of one contender."""

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
        """Take when the probe slept, when the garbage collector held everybody up and when the bystander was late (from, to),
        and the exports meanwhile.
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
    """A contender's way to export without a rest, and how often it has."""

    name: str
    telemetry: Telemetry
    endpoint: str

    @contextmanager
    def without_rest(self) -> Iterator[Callable[[], int]]:
        """Exports one after the other while the block runs; gives how many have been completed."""
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
    """When full garbage collections began and ended: every thread waits for them, whoever caused them."""
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
    """Lag and commands per second without an export, and during one by each exporter."""
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
            "again and again without a rest: over OTLP to a rotel collector, and in scrapes (gzip) of another "
            "process, both on the same cores.",
            f"lag: how much later than asked a sleep of {_PROBE * 1e3:.0f} ms ends; asyncio rounds it up to a "
            "whole millisecond.",
            f"busy: {_CONCURRENCY} commands at once on SQLite, synchronous=FULL, on the same loop; its own work is in the lag.",
            "worst: of all turns together. The rows without an export say what the machine and the commands do by themselves. "
            "of its own: without the time for which a process beside this one, which only sleeps, was woken late too.",
            "GC: full collections of Python's garbage collector, for which every thread waits, as long as it takes to "
            "visit every object of the process; commands bring them about, too. The rows with gc.freeze() are an "
            "application that has called it once it had started, so that what it consists of is not visited.",
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
            # The first export also imports and connects.
            wait_until(lambda: name == _NONE or completed(), _LONGEST, "an export is completed")
            # An application has long had its series: what making them has left must not fall on the measurement.
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
    """Watch for so long, and for at least so many exports; gives commands per second, 1 where there are none."""
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
