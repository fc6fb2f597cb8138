"""What a page says about itself: its scrapes, what it leaves out, its process and its resource."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from eventcore.exporting import (
    CounterData,
    GaugeData,
    HiddenKind,
    HistogramData,
    HistogramPoint,
    MetricData,
    NumberPoint,
    Resource,
    canonical_name,
)
from eventcore_prometheus.scraping import DURATIONS, Scraper

# Core counts for every exporter what it does not show. A collection is older than the page that is made of it, so the page puts
# its own count into the place of core's.
_HIDDEN: Final = "eventcore.exporters.instruments.hidden"
_HIDDEN_HELP: Final = (
    "Instruments that the exporter does not show: name in use, not fit for the backend, or left out by configuration."
)
# So many hidden instruments are named on the page; all of them are counted and logged.
_MOST_NAMES: Final = 100
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_]")
# Longer values of resource attributes are cut to so many characters.
_LONGEST_VALUE: Final = 1024


class About:
    """Makes the metrics of a page about itself. Only the pipeline's worker thread uses it.

    Args:
        exporter: the exporter's name.
        resource: becomes the labels of ``target_info``.
        scraper: counts the scrapes.
        hidden: the instruments that the page leaves out, by the kind of the reason.
        logger: the exporter's logger.
        process_metrics: whether the page has the metrics of the process and of Python.
    """

    def __init__(
        self,
        exporter: str,
        resource: Resource,
        scraper: Scraper,
        hidden: Callable[[], Mapping[str, HiddenKind]],
        logger: logging.Logger,
        *,
        process_metrics: bool,
    ) -> None:
        self._exporter = exporter
        self._info = _target_info(resource)
        self._scraper = scraper
        self._hidden = hidden
        self._logger = logger
        self._started = time.time_ns()
        self._collect_process = _process_collector() if process_metrics else None
        self._hidden_elsewhere: list[NumberPoint] = []
        self._counted_by_core: dict[str, int] = {}

    def begin(self) -> None:
        """A page begins."""
        self._hidden_elsewhere, self._counted_by_core = [], {}

    def take(self, gauges: Sequence[GaugeData]) -> Sequence[GaugeData]:
        """The gauges without core's count of hidden instruments, which is kept for ``metrics``."""
        counts = [data for data in gauges if data.name == _HIDDEN]
        if not counts:
            return gauges
        for point in (point for data in counts for point in data.points):
            labels = dict(point.labels)
            if labels.get("exporter") == self._exporter:
                self._counted_by_core[labels.get("reason", "")] = int(point.value)
            else:
                self._hidden_elsewhere.append(point)
        return [data for data in gauges if data.name != _HIDDEN]

    @property
    def info(self) -> GaugeData | None:
        """The family ``target_info``; ``None`` for a resource without attributes."""
        return self._info

    def metrics(self, page_size: int | None) -> Iterable[MetricData]:
        """Everything else, with the size in bytes of the page before, if there was one."""
        now, scrapes = time.time_ns(), self._scraper.scrapes
        yield CounterData(
            "eventcore.prometheus.scrapes",
            "{scrape}",
            "Scrapes by outcome: served, failed because no cycle succeeded in time, refused.",
            ("outcome",),
            tuple(
                NumberPoint((("outcome", outcome),), count, self._started, now)
                for outcome, count in (("served", scrapes.served), ("failed", scrapes.failed), ("refused", scrapes.refused))
            ),
        )
        counts, total = self._scraper.durations
        duration = HistogramPoint((), sum(counts), total, None, None, tuple(counts), self._started, now)
        yield HistogramData(
            "eventcore.prometheus.scrape.duration",
            "s",
            "Time until a scrape had the page of a new cycle.",
            (),
            DURATIONS,
            (duration,),
        )
        if page_size is not None:
            yield GaugeData(
                "eventcore.prometheus.page.size",
                "By",
                "Size of the page before this one, in the text format and not compressed.",
                (),
                (NumberPoint((), page_size, self._started, now),),
            )
        yield self._hidden_here(now)
        if names := list(self._hidden().items())[:_MOST_NAMES]:
            yield GaugeData(
                "eventcore.exporters.instrument.hidden.info",
                "",
                "The names of instruments that the page does not show, which 'eventcore plugins prometheus' prints.",
                ("exporter", "instrument", "reason"),
                tuple(
                    NumberPoint((("exporter", self._exporter), ("instrument", name), ("reason", kind)), 1, self._started, now)
                    for name, kind in names
                ),
            )
        if self._collect_process is not None:
            try:
                yield from self._collect_process(now)
            except Exception:
                # What /proc does not give today must not fail the page.
                self._collect_process = None
                self._logger.exception("the metrics of the process are left out from now on")

    def _hidden_here(self, now: int) -> GaugeData:
        here: list[str] = list(self._hidden().values())
        counts = {"collision": 0, "invalid": 0, **self._counted_by_core}
        points = [
            NumberPoint(
                (("exporter", self._exporter), ("reason", reason)), max(counted, here.count(reason)), self._started, now
            )
            for reason, counted in counts.items()
        ]
        return GaugeData(
            _HIDDEN, "{instrument}", _HIDDEN_HELP, ("exporter", "reason"), (*points, *self._hidden_elsewhere), additive=True
        )


def _target_info(resource: Resource) -> GaugeData | None:
    labels: dict[str, str] = {}
    for key, value in resource.attributes:
        name = _FOREIGN.sub("_", canonical_name(key)) or "_"
        # Two leading underscores belong to Prometheus itself, and a name begins with no digit.
        name = f"_{name.lstrip('_')}" if name.startswith("__") else f"_{name}" if name[0].isdigit() else name
        text = _attribute_text(value)[:_LONGEST_VALUE]
        # As OpenTelemetry's rules for Prometheus say it: attributes whose names become equal share one label.
        labels[name] = f"{labels[name]};{text}" if name in labels else text
    if not labels:
        return None
    pairs = tuple(sorted(labels.items()))
    help_text = "What produces these metrics: the attributes of its resource."
    return GaugeData("target.info", "", help_text, tuple(sorted(labels)), (NumberPoint(pairs, 1, 0, 0),))


def _attribute_text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _process_collector() -> Callable[[int], Iterable[MetricData]]:
    """A function that collects the metrics of the process and of Python; its argument is the time in nanoseconds."""
    # Imported here, in the pipeline's thread, because importing the plugin must not load prometheus_client.
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

    registry = CollectorRegistry()
    PlatformCollector(registry=registry)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)

    def collect(now: int) -> Iterable[MetricData]:
        for metric in registry.collect():
            names = tuple(metric.samples[0].labels) if metric.samples else ()
            points = tuple(
                NumberPoint(tuple((name, sample.labels[name]) for name in names), _number(sample.value), 0, now)
                for sample in metric.samples
                if not sample.name.endswith("_created")
            )
            kind: Any = CounterData if metric.type == "counter" else GaugeData
            # Another instrument may be `process.start.time`: the unit stands in the name.
            yield kind(metric.name, "", metric.documentation, names, points)

    return collect


def _number(value: float) -> int | float:
    return int(value) if isinstance(value, float) and value.is_integer() else value
