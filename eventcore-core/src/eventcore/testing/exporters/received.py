"""What a backend got, as plain values: ``ExporterSetup.received`` returns it, and the contract compares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import msgspec

from eventcore.exporting import Scope, SpanKind, SpanStatus


@final
class ReceivedExemplar(msgspec.Struct, frozen=True, kw_only=True):
    """An exemplar of a point; ids are hexadecimal, of 32 and 16 digits. Without ``time_ns``, its time is not compared."""

    value: float
    trace_id: str
    span_id: str
    time_ns: int | None = None


@final
class ReceivedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One series of one metric, at one time.

    A field that is ``None`` says that the backend does not keep it: declare that in ``ExporterSetup.cannot``.

    Attributes:
        name: as the backend shows it; the contract expects ``ExporterSetup.metric_name``.
        labels: as the backend shows them, without those that the exporter adds to every point. One with an empty text may be
            missing.
        value: of a counter or gauge.
        count, sum, min, max: of a histogram.
        buckets: of a histogram: by the upper bound of each bucket (``math.inf`` for the last), how many values are in it. Not
            cumulative over the buckets.
        kind: ``"counter"``, ``"gauge"`` (an up-down counter, too) or ``"histogram"``.
        unit, description: of the metric.
        start_time_ns, time_ns: when the series began, and when it had this value.
        scope: which part of the program recorded it.
        exemplars: in any order.
        quantiles: of a histogram: estimates by the quantile from 0 to 1; see ``ExporterSetup.quantiles``.
        rate: of a counter: its increase per second since the point before; see ``ExporterSetup.has_rates``.
    """

    name: str
    labels: Mapping[str, str] = {}
    value: float | None = None
    count: int | None = None
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    buckets: Mapping[float, int] | None = None
    kind: str | None = None
    unit: str | None = None
    description: str | None = None
    start_time_ns: int | None = None
    time_ns: int | None = None
    scope: Scope | None = None
    exemplars: Sequence[ReceivedExemplar] | None = None
    quantiles: Mapping[float, float] | None = None
    rate: float | None = None


@final
class ReceivedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a span."""

    name: str
    time_ns: int | None = None
    attributes: Mapping[str, Any] = {}


@final
class ReceivedLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link of a span; ids are hexadecimal, of 32 and 16 digits."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any] = {}


@final
class ReceivedSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One span. A field that is ``None`` says that the backend does not keep it: declare that in ``ExporterSetup.cannot``.

    Attributes:
        name: the contract gives each of its spans another name, and counts by it.
        trace_id, span_id, parent_id: hexadecimal, of 32 and 16 digits; ``parent_id`` is empty for a root.
        kind, status, status_description: as in ``SpanData``.
        start_time_ns, end_time_ns: nanoseconds since the Unix epoch.
        attributes: by name; sequences are tuples. Further ones, which the exporter adds, are allowed.
        events, links: in the order of the span.
        scope: which part of the program recorded it.
        tracestate: what other systems along the trace have noted.
    """

    name: str
    trace_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    kind: SpanKind | None = None
    start_time_ns: int | None = None
    end_time_ns: int | None = None
    attributes: Mapping[str, Any] | None = None
    events: Sequence[ReceivedEvent] | None = None
    links: Sequence[ReceivedLink] | None = None
    status: SpanStatus | None = None
    status_description: str | None = None
    scope: Scope | None = None
    tracestate: str | None = None


@final
class Received(msgspec.Struct, frozen=True):
    """Everything that the backend has got until now, oldest first.

    A backend that keeps only the newest point of each series returns that one. One that stores every point returns all of them:
    of cumulative points the contract looks at the newest one of each series, and adds up differences.

    >>> Received(points=[ReceivedPoint(name="orders.shipped", labels={"country": "FR"}, value=2)]).points[0].value
    2

    Attributes:
        points: the points of metrics.
        spans: the spans.
        resource: the attributes of what sent the newest of them, such as ``service.name``. Further ones, which the exporter
            adds, are allowed.
    """

    points: Sequence[ReceivedPoint] = ()
    spans: Sequence[ReceivedSpan] = ()
    resource: Mapping[str, Any] | None = None
