"""Adds the metrics to an application's ``prometheus_client`` registry, as a custom collector."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import msgspec

from eventcore.exporting import CounterData, Exemplar, GaugeData, HistogramData, HistogramPoint, Labels, MetricData, NumberPoint
from eventcore_prometheus.naming import Kind
from eventcore_prometheus.page import Family, Page, sum_of
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


@final
class RegistryCollector:
    """The collector of all exporters of this process that add their metrics to one registry.

    It does not raise, because a collector that raises fails the registry's whole scrape: what an
    exporter cannot give in time is left out, logged, and counted as a failed scrape.

    The registry knows the names of the families that were on a page, so that it refuses a family of
    the application with the same name. A family whose name the application has already is left out.

    Args:
        registry: the application's registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        # All guarded by the lock: the exporters, the families that the registry knows, and the names that are not ours.
        self._sources: list[Source] = []
        self._claimed: dict[str, Kind] = {}
        self._owners: dict[str, str] = {}
        self._warned = threading.Event()

    @classmethod
    def of(cls, registry: Registry) -> RegistryCollector:
        """The one collector of this registry."""
        # In the registry itself, so that two exporters find the same one, and so that both are freed together.
        collector: RegistryCollector = vars(registry).setdefault("_eventcore_collector", cls(registry))
        return collector

    def join(self, source: Source) -> None:
        """Add an exporter. What is left of exporters that have ended goes."""
        with self._lock:
            joined = bool(self._sources)
            self._sources = [other for other in self._sources if not other.ended and other.is_of_this_process()]
            if not joined:
                self._claimed = {}
                self._registry.register(self)
            self._sources.append(source)

    def leave(self, source: Source) -> None:
        """An exporter has ended. Its last page stays in the registry, for a push after the end; without one it goes."""
        with self._lock:
            source.ended = True
            if source.page() is None and source in self._sources:
                self._sources.remove(source)
            if not self._sources:
                with contextlib.suppress(KeyError):  # the application has already removed it
                    self._registry.unregister(self)

    def leave_to_parent(self) -> None:
        """In a forked child, whose parent may have held the lock."""
        self._lock = threading.Lock()

    def claim(self, page: Page, source: Source) -> None:
        """Let the registry know the families of a page, and find out which of them the application has already."""
        families = {family.name.family: family for family in page.families}
        with self._lock:
            new = {name: family for name, family in families.items() if name not in self._claimed}
            if not new or source not in self._sources:
                return
            for name, family in new.items():
                owner = self._owner_of(family)
                if not owner:
                    self._owners.pop(name, None)
                    self._claimed[name] = family.kind
                elif self._owners.setdefault(name, owner) == owner and family.created:
                    # Under its name in code, as every other report.
                    instrument = family.values[0].name if family.values else family.name.sample
                    source.hide(instrument, f"the application's registry has this name already, from {owner}")
            if new.keys() & self._claimed.keys():
                with contextlib.suppress(KeyError):  # the application has removed it
                    # The registry asks for names only when a collector is registered.
                    self._registry.unregister(self)
                    self._registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """The families that the registry is to know, without samples."""
        from prometheus_client.metrics_core import Metric

        return [Metric(name, "", kind) for name, kind in self._claimed.items()]

    def collect(self) -> Iterator[Metric]:
        """The metric families of a new cycle of each exporter."""
        with self._lock:
            sources = list(self._sources)
        on_loop = _on_event_loop()
        if on_loop and sources and not self._warned.is_set():
            self._warned.set()
            sources[0].logger.warning(
                "the registry is collected on an event loop, which is blocked meanwhile; mount exporter.asgi_app() instead"
            )
        pages = [page for source in sources if (page := source.collect()) is not None]
        with self._lock:
            hidden = set(self._owners)
        slice_end = time.thread_time() + _SLICE
        for families in _by_name(pages):
            if families[0].name.family in hidden:
                continue
            yield _metric(families)
            if not on_loop and time.thread_time() > slice_end:
                time.sleep(_PAUSE)
                slice_end = time.thread_time() + _SLICE

    def _owner_of(self, family: Family) -> str:
        """What the application has under this name in its registry; empty if nothing."""
        probe = _Probe(family)
        try:
            self._registry.register(probe)
        except ValueError:
            # The registry does not say in public which collector has a name.
            owners: Mapping[str, object] = getattr(self._registry, "_names_to_collectors", {})
            name = next((name for name in probe.names() if name in owners), "")
            if owners.get(name) is self:
                return f"another instrument, which {name!r} belongs to"
            return f"the {type(owners[name]).__name__} {name!r}" if name else "another collector"
        self._registry.unregister(probe)
        return "" if family.created else self._standard_owner(family.name.family)

    def _standard_owner(self, name: str) -> str:
        """Which of prometheus_client's own collectors shows this family, of which a registry knows no names."""
        from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

        # The registry does not say in public which collectors it has.
        collectors: Mapping[Any, object] = getattr(self._registry, "_collector_to_names", {})
        standard = [one for one in collectors if isinstance(one, GCCollector | PlatformCollector | ProcessCollector)]
        owners = (type(one).__name__ for one in standard for metric in one.collect() if metric.name == name)
        return next(owners, "")


@final
@dataclass(eq=False)
class Source:
    """One exporter that adds its metrics to a registry.

    Attributes:
        scraper: makes its pages.
        timeout: seconds to wait for a page.
        page: returns its newest page; ``None`` while there is none.
        hide: reports an instrument that the registry cannot show, with the reason.
        logger: the exporter's logger.
        ended: whether the exporter has ended: its last page is shown.
        process: the process that it belongs to.
    """

    scraper: Scraper
    timeout: float
    page: Callable[[], Page | None]
    hide: Callable[[str, str], object]
    logger: logging.Logger
    ended: bool = False
    process: int = dataclasses.field(default_factory=os.getpid)

    def is_of_this_process(self) -> bool:
        """Whether it was not inherited through a fork."""
        return self.process == os.getpid()

    def collect(self) -> Page | None:
        """The page of a new cycle, or the last one of an exporter that has ended; ``None`` when there is none in time."""
        if self.ended:
            return self.page()
        if not self.is_of_this_process():
            return None
        try:
            return self.scraper.fresh(self.timeout, alone=True)
        except ScrapeError as error:
            if self.ended:
                return self.page()
            self.logger.warning("nothing for the registry: %s", error)
            return None


@final
class _Probe:
    """A collector that has a name and no values: registered for a moment, it shows whether the name is free."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def names(self) -> list[str]:
        """The names that may be in use."""
        suffixes = ("", "_total", "_bucket", "_sum", "_count", "_created", "_info")
        return [self._family.name.family + suffix for suffix in suffixes]

    def describe(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import Metric

        return [Metric(self._family.name.family, "", self._family.kind)]

    def collect(self) -> Iterable[Metric]:
        return ()


def _by_name(pages: Sequence[Page]) -> Iterable[list[Family]]:
    """The families of all pages, those of one name together."""
    found: dict[str, list[Family]] = {}
    for page in pages:
        for family in page.families:
            others = found.setdefault(family.name.family, [])
            # What a page says of itself and of its process has no place in the order of creation. It is there once.
            if not others or (family.created and family.kind == others[0].kind):
                others.append(family)
    return found.values()


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _metric(families: Sequence[Family]) -> Metric:
    # Imported here because importing the plugin must not load prometheus_client, which only a registry needs.
    from prometheus_client.metrics_core import Metric

    first = families[0]
    metric = Metric(first.name.family, first.help, first.kind, first.name.unit)
    values = first.values if len(families) == 1 else _each_series_once(families)
    for data in values:
        if isinstance(data, HistogramData):
            _add_histogram(metric, data, first.labels)
        else:
            _add_numbers(metric, data, first.name.sample, first.labels)
    return metric


def _each_series_once(families: Sequence[Family]) -> list[MetricData]:
    """The values of one family of several exporters: totals of one series are added, of gauges the first one counts."""
    points: dict[Labels, Any] = {}
    first = families[0].values[0]
    for family in families:
        for data in family.values:
            if data.label_names != first.label_names or getattr(data, "boundaries", ()) != getattr(first, "boundaries", ()):
                continue
            for point in data.points:
                other = points.get(point.labels)
                if other is None:
                    points[point.labels] = point
                elif not isinstance(data, GaugeData) or data.additive:
                    points[point.labels] = sum_of(other, point)
    return [msgspec.structs.replace(first, points=tuple(points.values()))]


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
