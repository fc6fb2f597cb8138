"""Adds the metrics to an application's ``prometheus_client`` registry, as a custom collector."""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol

from eventcore.exporting import CounterData, Exemplar, GaugeData, HistogramData, HistogramPoint, NumberPoint
from eventcore_prometheus.page import Family
from eventcore_prometheus.rendering import go_float
from eventcore_prometheus.scraping import ScrapeError, Scraper

if TYPE_CHECKING:
    import logging

    from prometheus_client.metrics_core import Metric

# Converting holds the GIL: after this many seconds of processor time, pause for as many, so that other threads run.
_SLICE: Final = 0.001
_PAUSE: Final = 0.001


class Registry(Protocol):
    """The methods of ``prometheus_client.CollectorRegistry`` that the exporter calls."""

    def register(self, collector: Any) -> None:
        """Add a collector."""
        ...

    def unregister(self, collector: Any) -> None:
        """Remove a collector."""
        ...


class RegistryCollector:
    """A collector that does not raise, because a collector that raises fails the registry's whole scrape.

    When no cycle succeeds within the timeout, it yields nothing, logs the reason and counts a
    failed scrape.

    Args:
        current_scraper: returns the scraper of the exporter, or ``None`` while the exporter does
            not run.
        timeout: seconds to wait for a cycle.
        logger: the exporter's logger.
    """

    def __init__(self, current_scraper: Callable[[], Scraper | None], timeout: float, logger: logging.Logger) -> None:
        self._current_scraper = current_scraper
        self._timeout = timeout
        self._logger = logger
        self._warned = threading.Event()

    def describe(self) -> Iterable[Metric]:
        """No metrics. Without this method a registry would call ``collect`` when the collector is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metric families of a new cycle."""
        scraper = self._current_scraper()
        if scraper is None:
            return
        on_loop = _on_event_loop()
        if on_loop and not self._warned.is_set():
            self._warned.set()
            self._logger.warning(
                "the registry is collected on an event loop, which is blocked meanwhile; mount exporter.asgi_app() instead"
            )
        try:
            page = scraper.fresh(self._timeout, alone=True)
        except ScrapeError as error:
            self._logger.warning("nothing for the registry: %s", error)
            return
        slice_end = time.thread_time() + _SLICE
        for family in page.families:
            yield _metric(family)
            if not on_loop and time.thread_time() > slice_end:
                time.sleep(_PAUSE)
                slice_end = time.thread_time() + _SLICE


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _metric(family: Family) -> Metric:
    # Imported here because importing the plugin must not load prometheus_client, which only a registry needs.
    from prometheus_client.metrics_core import Metric

    metric = Metric(family.name.family, family.help, family.kind, family.name.unit)
    for data in family.values:
        if isinstance(data, HistogramData):
            _add_histogram(metric, data, family.labels)
        else:
            _add_numbers(metric, data, family.name.sample, family.labels)
    return metric


def _labels(names: tuple[str, ...], point: NumberPoint | HistogramPoint) -> dict[str, str]:
    return dict(zip(names, (value for _, value in point.labels), strict=True))


def _add_numbers(metric: Metric, data: CounterData | GaugeData, sample: str, names: tuple[str, ...]) -> None:
    for point in data.points:
        exemplar = _exemplar(point.exemplars[-1]) if point.exemplars and metric.type == "counter" else None
        metric.add_sample(sample, _labels(names, point), float(point.value), exemplar=exemplar)


def _add_histogram(metric: Metric, data: HistogramData, names: tuple[str, ...]) -> None:
    limits = [*map(go_float, data.boundaries), "+Inf"]
    for point in data.points:
        labels = _labels(names, point)
        exemplars = {bisect_left(data.boundaries, each.value): _exemplar(each) for each in point.exemplars}
        for bucket, (limit, count) in enumerate(zip(limits, accumulate(point.buckets), strict=True)):
            metric.add_sample(f"{metric.name}_bucket", {**labels, "le": limit}, float(count), exemplar=exemplars.get(bucket))
        # As on the page: OpenMetrics allows no sum where values may be negative.
        if point.sum >= 0 and not (data.boundaries and data.boundaries[0] < 0):
            metric.add_sample(f"{metric.name}_sum", labels, point.sum)
            metric.add_sample(f"{metric.name}_count", labels, float(point.count))


def _exemplar(exemplar: Exemplar) -> Any:
    from prometheus_client.samples import Exemplar as ClientExemplar

    ids = {"trace_id": f"{exemplar.trace_id:032x}", "span_id": f"{exemplar.span_id:016x}"}
    return ClientExemplar(ids, float(exemplar.value), exemplar.time_ns / 1e9)
