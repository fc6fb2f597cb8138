"""Core's frozen values as the data classes of OpenTelemetry's SDK, which every exporter of the SDK's world takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.metrics import Exemplar as SdkExemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from eventcore.exporting import (
    Attributes,
    CounterData,
    Exemplar,
    HistogramData,
    HistogramPoint,
    MetricData,
    NumberPoint,
    Scope,
    SpanData,
    TraceContext,
)

_TEMPORALITIES: Final = {
    "cumulative": AggregationTemporality.CUMULATIVE,
    "delta": AggregationTemporality.DELTA,
}


Gathered: TypeAlias = dict[tuple[Scope, str], tuple[MetricData, list[Any]]]
"""By scope and name, an instrument and its points in the SDK's classes."""


class _Span(ReadableSpan):
    """A finished span, with the counts of what core has dropped. The SDK counts only what its own collections dropped."""

    def __init__(self, span: SpanData, **fields: Any) -> None:
        super().__init__(**fields)
        self._span = span

    @property
    def dropped_attributes(self) -> int:
        return self._span.dropped_attributes

    @property
    def dropped_events(self) -> int:
        return self._span.dropped_events

    @property
    def dropped_links(self) -> int:
        return self._span.dropped_links


class Translator:
    """Makes the SDK's data classes for one resource.

    Args:
        resource: the attributes of the process that produces the telemetry.
    """

    def __init__(self, resource: Attributes) -> None:
        self._resource = Resource(dict(resource))
        self._scopes: dict[Scope, InstrumentationScope] = {}

    def span(self, span: SpanData) -> ReadableSpan:
        """A finished span."""
        context, parent = span.context, None
        if span.parent_span_id:
            remote = span.parent_is_remote
            parent = SpanContext(context.trace_id, span.parent_span_id, remote, TraceFlags(context.trace_flags))
        attributes = dict(span.attributes)
        for name, value in (("correlation_id", span.correlation_id), ("causation_id", span.causation_id)):
            if value is not None:
                attributes.setdefault(f"eventcore.{name}", value)
        return _Span(
            span,
            name=span.name,
            context=_context(context),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            events=[
                Event(event.name, _attributes(event.attributes, event.dropped_attributes), event.time_ns, limit=None)
                for event in span.events
            ],
            links=[Link(_context(link.context), _attributes(link.attributes, link.dropped_attributes)) for link in span.links],
            kind=SpanKind[span.kind.upper()],
            status=Status(StatusCode[span.status.upper()], span.status_description or None),
            start_time=span.start_time_ns,
            end_time=span.end_time_ns,
            instrumentation_scope=self._scope(span.scope),
        )

    def gather(self, metrics: Iterable[MetricData], into: Gathered | None = None) -> Gathered:
        """Add the points of a chunk to those of earlier chunks, ``into``, by instrument."""
        gathered: Gathered = {} if into is None else into
        for data in metrics:
            _, points = gathered.setdefault((data.scope, data.name), (data, []))
            if isinstance(data, HistogramData):
                points += [_histogram_point(data, point) for point in data.points]
            else:
                points += [_number_point(point) for point in data.points]
        return gathered

    def metrics(self, gathered: Gathered) -> MetricsData:
        """Everything that was gathered, in the classes that a metric exporter takes."""
        by_scope: dict[Scope, list[Metric]] = {}
        for (scope, _), (data, points) in gathered.items():
            by_scope.setdefault(scope, []).append(Metric(data.name, data.description, data.unit, _aggregate(data, points)))
        scopes = [ScopeMetrics(self._scope(scope), metrics, scope.schema_url) for scope, metrics in by_scope.items()]
        return MetricsData([ResourceMetrics(self._resource, scopes, self._resource.schema_url)])

    def _scope(self, scope: Scope) -> InstrumentationScope:
        if (found := self._scopes.get(scope)) is None:
            found = self._scopes[scope] = InstrumentationScope(scope.name, scope.version, scope.schema_url)
        return found


def _aggregate(data: MetricData, points: list[Any]) -> Sum | Gauge | Histogram:
    if isinstance(data, HistogramData):
        return Histogram(points, _TEMPORALITIES[data.temporality])
    if isinstance(data, CounterData):
        return Sum(points, _TEMPORALITIES[data.temporality], is_monotonic=True)
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=False) if data.additive else Gauge(points)


def _number_point(point: NumberPoint) -> NumberDataPoint:
    exemplars = [_exemplar(exemplar) for exemplar in point.exemplars]
    return NumberDataPoint(dict(point.labels), point.start_time_ns, point.time_ns, point.value, exemplars)


def _histogram_point(data: HistogramData, point: HistogramPoint) -> HistogramDataPoint:
    lowest: Any = point.min
    highest: Any = point.max
    return HistogramDataPoint(
        attributes=dict(point.labels),
        start_time_unix_nano=point.start_time_ns,
        time_unix_nano=point.time_ns,
        count=point.count,
        sum=point.sum,
        bucket_counts=point.buckets,
        explicit_bounds=data.boundaries,
        # Not known of differences. The SDK's type has no absent value, but its OTLP encoder leaves `None` out.
        min=lowest,
        max=highest,
        exemplars=[_exemplar(exemplar) for exemplar in point.exemplars],
    )


def _exemplar(exemplar: Exemplar) -> SdkExemplar:
    return SdkExemplar({}, exemplar.value, exemplar.time_ns, exemplar.span_id, exemplar.trace_id)


def _context(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, TraceFlags(context.trace_flags), state)


def _attributes(attributes: Attributes, dropped: int) -> BoundedAttributes:
    bounded = BoundedAttributes(attributes=dict(attributes))
    bounded.dropped = dropped
    return bounded
