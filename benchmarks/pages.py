"""The page of the Prometheus exporter beside that of prometheus_client: rendering, scraping, stalls of the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server

from benchmarks.measuring import Effort, in_turns
from benchmarks.results import Row, Table, Target
from eventcore.recording import Collector, InstrumentRegistry
from eventcore.recording.values import Collection
from eventcore.telemetry import Telemetry
from eventcore_prometheus import PrometheusExporter
from eventcore_prometheus.naming import Names, check_renames
from eventcore_prometheus.page import Page, PageBuilder, load_families, put_together
from tests.real_parts.waiting import wait_until

__all__ = ["pages"]

_INSTRUMENTS: Final = 10
_BOUNDARIES: Final = tuple(index / 10 for index in range(1, 16))
# A counter is one line a series; a histogram is its buckets, the last one, sum and count.
_LINES_OF_A_PAIR: Final = 1 + len(_BOUNDARIES) + 3
_WORKERS: Final = 4
_PROBE: Final = 0.001


def pages(effort: Effort) -> list[Table]:
    """A table for each size of page."""
    return [_table(effort, lines) for lines in (10_000, 200_000)]


def _table(effort: Effort, lines: int) -> Table:
    series = lines // _LINES_OF_A_PAIR // _INSTRUMENTS
    rounds = max(3, effort.rounds // 2) if lines > 50_000 else effort.rounds
    registry, telemetry = _filled_registry(series), _filled_telemetry(series)
    instruments = InstrumentRegistry(series_limit=series, total_series_limit=10 * lines)
    _fill(instruments.counter, instruments.histogram, series)
    collection = Collector(instruments).collect(0.0, 60.0)
    render = in_turns(
        {
            "eventcore": lambda: _processor(lambda: b"".join(_rendered(collection, None).pieces(False))),
            "prometheus_client": lambda: _processor(lambda: generate_latest(registry)),
        },
        rounds,
    )
    parts = [_share(series, worker).dump() for worker in range(_WORKERS)]
    together = in_turns(
        {
            "one": lambda: _processor(lambda: b"".join(_rendered(collection, None).pieces(False))),
            "four": lambda: _processor(
                lambda: b"".join(put_together(f for part in parts for f in load_families(part)).pieces(False))
            ),
        },
        rounds,
    )
    ours, theirs = asyncio.run(_scraped(telemetry, registry, rounds))
    ratio, of_four = render["eventcore"].ratio(render["prometheus_client"]), together["four"].ratio(together["one"])
    return Table(
        f"A page of {lines:,} lines",
        ("render", "scrape", "processor time", "worst stall"),
        (
            Row(
                "eventcore",
                (_milliseconds(render["eventcore"].median), *ours.cells()),
                {"render": render["eventcore"].median, **ours.values()},
                (Target("render, share of prometheus_client's", ratio, 0.1), Target("stall, ms", ours.stall * 1000, 10.0)),
            ),
            Row(
                "prometheus_client",
                (_milliseconds(render["prometheus_client"].median), *theirs.cells()),
                {"render": render["prometheus_client"].median, **theirs.values()},
            ),
            Row(
                "four workers' pages put together",
                (_milliseconds(together["four"].median), "", "", ""),
                {"render": together["four"].median},
                (Target("share of one page of the same total", of_four, 2.0),),
            ),
        ),
        (
            "Render: processor time from values to the bytes of the page. Scrape: time until a client in another thread has "
            "the page, over HTTP and without compression; processor time is that of the process, with the client's.",
            "Stall: the 99.9th percentile of what a sleep of a millisecond on the event loop takes longer during scrapes, less "
            "what it takes longer without them. A noisy machine adds to it.",
        ),
    )


def _fill(counter: Callable[..., object], histogram: Callable[..., object], series: int, first: int = 0) -> None:
    for number in range(_INSTRUMENTS):
        orders = counter(f"orders.kind{number}", description="Orders.", labels=("country",))
        waits = histogram(f"wait.kind{number}", unit="s", description="Waits.", labels=("country",), boundaries=_BOUNDARIES)
        for index in range(first, first + series):
            orders.labels(f"C{index}").add(index)  # type: ignore[attr-defined]  # one of two creators of instruments
            waits.labels(f"C{index}").record(index % 20 / 10)  # type: ignore[attr-defined]  # as above


def _filled_telemetry(series: int) -> Telemetry:
    limits = {"series_limit": series, "total_series_limit": 100 * series * _INSTRUMENTS}
    telemetry = Telemetry(config={"telemetry": limits}, exporters=[])
    _fill(telemetry.counter, telemetry.histogram, series)
    return telemetry


def _filled_registry(series: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    for number in range(_INSTRUMENTS):
        orders = Counter(f"orders_kind{number}", "Orders.", ["country"], registry=registry)
        waits = Histogram(f"wait_kind{number}_seconds", "Waits.", ["country"], registry=registry, buckets=_BOUNDARIES)
        for index in range(series):
            orders.labels(f"C{index}").inc(index)
            waits.labels(f"C{index}").observe(index % 20 / 10)
    return registry


def _rendered(collection: Collection, worker: int | None) -> Page:
    builder = PageBuilder(Names(check_renames({})), lambda *_: None)
    builder.worker = worker
    builder.begin()
    builder.counters(collection.counters)
    builder.histograms(collection.histograms)
    return builder.finish()


def _share(series: int, worker: int) -> Page:
    instruments = InstrumentRegistry(series_limit=series, total_series_limit=100 * series * _INSTRUMENTS)
    share = series // _WORKERS
    _fill(instruments.counter, instruments.histogram, share, worker * share)
    return _rendered(Collector(instruments).collect(0.0, 60.0), worker)


def _processor(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


@dataclass(slots=True)
class _Scrapes:
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    quiet: float = 0.0

    @property
    def stall(self) -> float:
        """How much later the event loop runs during scrapes, apart from what the machine adds."""
        return max(_high(self.lags) - self.quiet, 0.0)

    def values(self) -> dict[str, float]:
        return {
            "scrape": median(self.seconds),
            "processor": median(self.processor),
            "stall": self.stall,
            "worst": max(self.lags),
        }

    def cells(self) -> tuple[str, str, str]:
        return _milliseconds(median(self.seconds)), _milliseconds(median(self.processor)), _milliseconds(self.stall)


def _high(lags: list[float]) -> float:
    return sorted(lags)[int(len(lags) * 0.999)] if lags else 0.0


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


async def _scraped(telemetry: Telemetry, registry: CollectorRegistry, rounds: int) -> tuple[_Scrapes, _Scrapes]:
    """Scrapes of both, in turns."""
    exporter = PrometheusExporter(port=0, scrape_timeout=60.0, process_metrics=False)
    server, thread = start_http_server(0, "127.0.0.1", registry=registry)
    try:
        async with telemetry:
            telemetry.register_exporter(exporter)
            await asyncio.to_thread(wait_until, lambda: exporter.url, 10.0, "the exporter listens")
            urls = (exporter.url or "", f"http://127.0.0.1:{server.server_port}/metrics")
            both = (_Scrapes(), _Scrapes())
            quiet = [await _lag() for _ in range(500)]
            for number in range(rounds + 1):
                for scrapes, url in zip(both, urls, strict=True):
                    scrapes.quiet = _high(quiet)
                    gc.collect()
                    await _scrape(url, scrapes if number else _Scrapes())
            return both
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join, 10)


async def _scrape(url: str, scrapes: _Scrapes) -> None:
    begun, used = time.perf_counter(), time.process_time()
    scraping = asyncio.create_task(asyncio.to_thread(_read, url))
    while not scraping.done():
        scrapes.lags.append(await _lag())
    await scraping
    scrapes.seconds.append(time.perf_counter() - begun)
    scrapes.processor.append(time.process_time() - used)


async def _lag() -> float:
    begun = time.perf_counter()
    await asyncio.sleep(_PROBE)
    return time.perf_counter() - begun - _PROBE


def _read(url: str) -> int:
    with urllib.request.urlopen(url, timeout=120) as answer:
        return len(answer.read())
