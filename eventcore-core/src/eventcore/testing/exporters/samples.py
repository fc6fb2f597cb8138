"""Sample data of every kind, as core gives it to exporters, and an ``ExporterContext`` in one call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import accumulate
from typing import Any, Final, TypeAlias

from eventcore.exporting import (
    CounterData,
    ExporterContext,
    GaugeData,
    HiddenKind,
    HistogramData,
    HistogramPoint,
    NumberPoint,
    Resource,
    Scope,
    SpanData,
    SpanEvent,
    SpanLink,
    TraceContext,
)
from eventcore.recording import Collection, IdGenerator

BOUNDARIES: Final = (0.005, 0.05, 0.5, 5.0)
"""The bucket boundaries of a sample histogram."""

SCOPES: Final = (
    Scope("shop", "1.2", "https://shop.example/schema/1"),
    Scope("shop", "1.3", "https://shop.example/schema/1"),
    Scope("shop.orders"),
)
"""Parts of a program that record something."""

_MINUTE: Final = 60 * 10**9

# The key type of a Mapping is invariant: a dict whose keys are pairs would not fit a mapping of tuples of any length.
LabelValues: TypeAlias = Any


def sample_counter(
    name: str = "orders.shipped",
    values: Mapping[LabelValues, int | float] | None = None,
    *,
    labels: Sequence[str] = ("country",),
    unit: str = "{order}",
    description: str = "Orders that were shipped.",
    start_time_ns: int | None = None,
    time_ns: int | None = None,
) -> CounterData:
    """A counter with one point for each series.

    Args:
        name: the name of the metric.
        values: the totals, by the values of the labels as a tuple.
        labels: the names of the labels.
        unit, description: of the metric.
        start_time_ns: when the series began; by default a minute before ``time_ns``.
        time_ns: the time of the points; by default now.

    >>> counter = sample_counter(values={("FR",): 2})
    >>> [(dict(point.labels), point.value) for point in counter.points]
    [({'country': 'FR'}, 2)]
    """
    points = _numbers(values if values is not None else {("FR",): 3, ("DE",): 2.5}, labels, start_time_ns, time_ns)
    return CounterData(name, unit, description, tuple(labels), points)


def sample_gauge(
    name: str = "queue.length",
    values: Mapping[LabelValues, int | float] | None = None,
    *,
    labels: Sequence[str] = ("queue",),
    unit: str = "{job}",
    description: str = "Jobs that wait.",
    additive: bool = False,
    start_time_ns: int | None = None,
    time_ns: int | None = None,
) -> GaugeData:
    """A gauge, or with ``additive`` an up-down counter. Other arguments as for ``sample_counter``."""
    points = _numbers(values if values is not None else {("mail",): 7, ("print",): -1.5}, labels, start_time_ns, time_ns)
    return GaugeData(name, unit, description, tuple(labels), points, additive)


def sample_histogram(
    name: str = "request.duration",
    values: Mapping[LabelValues, Sequence[float]] | None = None,
    *,
    labels: Sequence[str] = ("route",),
    unit: str = "s",
    description: str = "How long requests took.",
    boundaries: Sequence[float] = BOUNDARIES,
    start_time_ns: int | None = None,
    time_ns: int | None = None,
) -> HistogramData:
    """A histogram of the measured ``values``, by the values of the labels. Other arguments as for ``sample_counter``.

    >>> point = sample_histogram(values={("/",): [0.25, 0.25, 8.0]}).points[0]
    >>> point.count, point.sum, point.buckets
    (3, 8.5, (0, 0, 2, 0, 1))
    """
    time_ns, start_time_ns = _times(start_time_ns, time_ns)
    given = values if values is not None else {("/",): (0.001, 0.0625, 0.0625, 0.75, 8.0), ("/cart",): (0.25,)}
    points = tuple(
        _histogram_point(tuple(zip(labels, series, strict=True)), measured, boundaries, start_time_ns, time_ns)
        for series, measured in given.items()
    )
    return HistogramData(name, unit, description, tuple(labels), tuple(boundaries), points)


def sample_span(name: str = "ship order", **fields: Any) -> SpanData:
    """A span with something in every field. Each call gives it new ids, so that it is another span.

    Args:
        name: the name of the span.
        fields: other fields of ``SpanData``, which replace those of the sample.

    >>> sample_span(status="ok", status_description="").status
    'ok'
    """
    end = time.time_ns()
    ids = IdGenerator()
    context = TraceContext(ids.bits(128) or 1, ids.bits(64) or 1, 1, "vendor=1")
    values: dict[str, Any] = {
        "kind": "producer",
        "context": context,
        "parent_span_id": ids.bits(64) or 1,
        "start_time_ns": end - 1_234_567,
        "end_time_ns": end,
        "attributes": (("order.id", "o-17"), ("items", 3), ("weight", 1.5), ("express", True), ("tags", ("a", "b"))),
        "events": (SpanEvent("packed", end - 1_000, (("shelf", 4),)),),
        "links": (SpanLink(TraceContext(ids.bits(128) or 1, ids.bits(64) or 1, 1), (("why", "cause"),)),),
        "status": "error",
        "status_description": "the carrier is on strike",
        "correlation_id": "c-1",
        "causation_id": "c-2",
    }
    return SpanData(name=name, **(values | fields))


def sample_spans(count: int = 3, prefix: str = "ship order") -> tuple[SpanData, ...]:
    """``count`` spans, each with another name: the prefix and a number.

    >>> [span.name for span in sample_spans(2)]
    ['ship order 0', 'ship order 1']
    """
    return tuple(sample_span(f"{prefix} {number}") for number in range(count))


def sample_collection(*, start_time_ns: int | None = None, time_ns: int | None = None) -> Collection:
    """A metric of each kind: a counter, a gauge, an up-down counter and a histogram, with two series each.

    >>> [type(data).__name__ for data in sample_collection()]
    ['CounterData', 'GaugeData', 'GaugeData', 'HistogramData']
    """
    time_ns, start_time_ns = _times(start_time_ns, time_ns)
    times: dict[str, Any] = {"start_time_ns": start_time_ns, "time_ns": time_ns}
    jobs = sample_gauge("jobs.active", {("mail",): 4, ("print",): -2}, description="Jobs that run.", additive=True, **times)
    return Collection(time_ns, (sample_counter(**times),), (sample_gauge(**times), jobs), (sample_histogram(**times),))


def exporter_context(
    name: str = "tested",
    *,
    resource: Mapping[str, str | bool | int | float] | None = None,
    settings: Mapping[str, Any] | None = None,
    export_now: Callable[[float], Future[None]] | None = None,
    stopping: threading.Event | None = None,
    hidden: dict[str, str] | None = None,
) -> ExporterContext:
    """An ``ExporterContext``, to call the hook ``start`` of an exporter by hand.

    Args:
        name: the exporter's name.
        resource: attributes of the resource, added to ``service.name`` and ``service.instance.id``.
        settings: the plugin's settings as the exporter sees them.
        export_now: what ``context.export_now(timeout)`` returns; by default a future that is done.
        stopping: what the exporter sees as ``context.stopping``; set it as a shutdown does.
        hidden: gets what the exporter reports by ``context.report_hidden``: reasons, by instrument.

    >>> context = exporter_context(resource={"service.name": "shop"})
    >>> context.name, context.resource.get("service.name"), context.stopping.is_set()
    ('tested', 'shop', False)
    """

    def done(_: float) -> Future[None]:
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def hide(instrument: str, reason: str, _kind: HiddenKind) -> None:
        found[instrument] = reason

    attributes = {"service.name": "tests", "service.instance.id": "tests-1", **(resource or {})}
    found = hidden if hidden is not None else {}
    return ExporterContext(
        name=name,
        resource=Resource(tuple(attributes.items())),
        settings=dict(settings or {}),
        logger=logging.getLogger(f"eventcore.exporters.{name}"),
        stopping=stopping if stopping is not None else threading.Event(),
        export_now=export_now or done,
        report_hidden=hide,
    )


def _times(start_time_ns: int | None, time_ns: int | None) -> tuple[int, int]:
    now = time.time_ns() if time_ns is None else time_ns
    return now, now - _MINUTE if start_time_ns is None else start_time_ns


def _numbers(
    values: Mapping[LabelValues, int | float], labels: Sequence[str], start_time_ns: int | None, time_ns: int | None
) -> tuple[NumberPoint, ...]:
    now, start = _times(start_time_ns, time_ns)
    return tuple(NumberPoint(tuple(zip(labels, series, strict=True)), value, start, now) for series, value in values.items())


def _histogram_point(
    labels: tuple[tuple[str, str], ...], measured: Sequence[float], boundaries: Sequence[float], start: int, now: int
) -> HistogramPoint:
    below = [sum(value <= bound for value in measured) for bound in (*boundaries, float("inf"))]
    buckets = tuple(now - before for now, before in zip(below, (0, *below[:-1]), strict=True))
    assert list(accumulate(buckets)) == below
    low, high = (min(measured), max(measured)) if measured else (None, None)
    return HistogramPoint(labels, len(measured), float(sum(measured)), low, high, buckets, start, now)
