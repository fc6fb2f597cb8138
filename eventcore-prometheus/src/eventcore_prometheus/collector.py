"""The values as a custom collector of ``prometheus_client``, for an application that has a registry of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol

from eventcore.exporting import CounterData, GaugeData, HistogramData
from eventcore_prometheus.page import Family
from eventcore_prometheus.rendering import go_float
from eventcore_prometheus.scraping import ScrapeError, Scraper

if TYPE_CHECKING:
    import logging

    from prometheus_client.metrics_core import Metric

# The interpreter is shared: after so much converting in one go, whoever waits for it gets its turn.
_SLICE: Final = 0.001
_REST: Final = 0.001


class Registry(Protocol):
    """What is needed of a ``prometheus_client.CollectorRegistry``."""

    def register(self, collector: Any) -> None:
        """Add a collector."""
        ...

    def unregister(self, collector: Any) -> None:
        """Take a collector away."""
        ...


class RegistryCollector:
    """A collector that never raises, so that it cannot fail what the registry collects besides it.

    Without a fresh cycle it yields nothing; the reason is logged, and the scrape is counted as failed.

    Args:
        current: gives the scraper of the running exporter, ``None`` while it does not run.
        limit: seconds to wait for a cycle.
        logger: where to say what went wrong.
    """

    def __init__(self, current: Callable[[], Scraper | None], limit: float, logger: logging.Logger) -> None:
        self._current = current
        self._limit = limit
        self._logger = logger
        self._warned = threading.Event()

    def describe(self) -> Iterable[Metric]:
        """Nothing: without this a registry would collect once when it is registered, before there is anything."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of a fresh cycle."""
        scraper = self._current()
        if scraper is None:
            return
        on_loop = _on_event_loop()
        if on_loop and not self._warned.is_set():
            self._warned.set()
            self._logger.warning(
                "the registry is collected on an event loop, which waits meanwhile; mount exporter.asgi_app() instead"
            )
        try:
            page = scraper.fresh(self._limit)
        except ScrapeError as error:
            self._logger.warning("nothing for the registry: %s", error)
            return
        slice_end = time.thread_time() + _SLICE
        for family in page.families:
            yield _metric(family)
            if not on_loop and time.thread_time() > slice_end:
                time.sleep(_REST)
                slice_end = time.thread_time() + _SLICE


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _metric(family: Family) -> Metric:
    # Here, because importing the plugin must not import it, and only a registry needs it.
    from prometheus_client.metrics_core import Metric

    layout = family.layout
    metric = Metric(layout.name.family, layout.help, layout.kind, layout.name.unit)
    for data in family.values:
        if isinstance(data, HistogramData):
            _add_histogram(metric, data, layout.labels)
        else:
            _add_numbers(metric, data, layout.name.sample, layout.labels)
    return metric


def _add_numbers(metric: Metric, data: CounterData | GaugeData, sample: str, names: tuple[str, ...]) -> None:
    for point in data.points:
        labels = dict(zip(names, (value for _, value in point.labels), strict=True))
        metric.add_sample(sample, labels, float(point.value))


def _add_histogram(metric: Metric, data: HistogramData, names: tuple[str, ...]) -> None:
    limits = [*map(go_float, data.boundaries), "+Inf"]
    for point in data.points:
        labels = dict(zip(names, (value for _, value in point.labels), strict=True))
        for limit, count in zip(limits, accumulate(point.buckets), strict=True):
            metric.add_sample(f"{metric.name}_bucket", {**labels, "le": limit}, float(count))
        # As on the page: OpenMetrics has no sum where values may be negative.
        if point.sum >= 0 and not (data.boundaries and data.boundaries[0] < 0):
            metric.add_sample(f"{metric.name}_sum", labels, point.sum)
            metric.add_sample(f"{metric.name}_count", labels, float(point.count))
