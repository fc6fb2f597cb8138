"""OTLP messages made with protobuf's own objects, field by field: what the encoder's bytes must be equal to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, AGGREGATION_TEMPORALITY_DELTA
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from eventcore.exporting import (
    Attributes,
    AttributeValue,
    CounterData,
    Exemplar,
    GaugeData,
    HistogramData,
    HistogramPoint,
    MetricData,
    NumberPoint,
    Scope,
    SpanData,
    TraceContext,
)

Fields = dict[str, Any]

KINDS = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
STATUS = {"ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}
TEMPORALITY = {"cumulative": AGGREGATION_TEMPORALITY_CUMULATIVE, "delta": AGGREGATION_TEMPORALITY_DELTA}


def trace_request(resource: Attributes, spans: Sequence[SpanData]) -> ExportTraceServiceRequest:
    """One request with these spans."""
    scopes: dict[Scope, list[Fields]] = {}
    for span in spans:
        scopes.setdefault(span.scope, []).append(_span(span))
    blocks = [{**_scope(scope), "spans": found} for scope, found in scopes.items()]
    return ExportTraceServiceRequest(
        resource_spans=[{"resource": {"attributes": _attributes(resource)}, "scope_spans": blocks}]  # type: ignore[list-item]  # stubs know no dict
    )


def metrics_request(resource: Attributes, metrics: Iterable[MetricData]) -> ExportMetricsServiceRequest:
    """One request with these instruments, each of them given once."""
    scopes: dict[Scope, list[Fields]] = {}
    for data in metrics:
        scopes.setdefault(data.scope, []).append(_metric(data))
    blocks = [{**_scope(scope), "metrics": found} for scope, found in scopes.items()]
    return ExportMetricsServiceRequest(
        resource_metrics=[{"resource": {"attributes": _attributes(resource)}, "scope_metrics": blocks}]  # type: ignore[list-item]  # as above
    )


def _scope(scope: Scope) -> Fields:
    return {"scope": {"name": scope.name, "version": scope.version}, "schema_url": scope.schema_url}


def _remote(context: TraceContext | None, flags: int, *, is_remote: bool = False) -> int:
    remote = context.is_remote if context is not None else is_remote
    return flags | 0x100 | (0x200 if remote else 0)


def _span(span: SpanData) -> Fields:
    context = span.context
    return {
        "trace_id": context.trace_id.to_bytes(16, "big"),
        "span_id": context.span_id.to_bytes(8, "big"),
        "trace_state": context.tracestate,
        "parent_span_id": span.parent_span_id.to_bytes(8, "big") if span.parent_span_id else b"",
        "flags": _remote(None, context.trace_flags, is_remote=span.parent_is_remote),
        "name": span.name,
        "kind": KINDS[span.kind],
        "start_time_unix_nano": span.start_time_ns,
        "end_time_unix_nano": span.end_time_ns,
        "attributes": _attributes((*span.attributes, *_ids(span))),
        "dropped_attributes_count": span.dropped_attributes,
        "events": [
            {
                "time_unix_nano": event.time_ns,
                "name": event.name,
                "attributes": _attributes(event.attributes),
                "dropped_attributes_count": event.dropped_attributes,
            }
            for event in span.events
        ],
        "dropped_events_count": span.dropped_events,
        "links": [
            {
                "trace_id": link.context.trace_id.to_bytes(16, "big"),
                "span_id": link.context.span_id.to_bytes(8, "big"),
                "trace_state": link.context.tracestate,
                "attributes": _attributes(link.attributes),
                "dropped_attributes_count": link.dropped_attributes,
                "flags": _remote(link.context, link.context.trace_flags),
            }
            for link in span.links
        ],
        "dropped_links_count": span.dropped_links,
        "status": None if span.status == "unset" else {"code": STATUS[span.status], "message": span.status_description},
    }


def _ids(span: SpanData) -> Attributes:
    given = [name for name, _ in span.attributes]
    ids = (("eventcore.correlation_id", span.correlation_id), ("eventcore.causation_id", span.causation_id))
    return tuple((name, value) for name, value in ids if value is not None and name not in given)


def _metric(data: MetricData) -> Fields:
    fields: Fields = {"name": data.name, "description": data.description, "unit": data.unit}
    if isinstance(data, CounterData):
        points = [_number(point, start=True) for point in data.points]
        temporality = TEMPORALITY[data.temporality]
        fields["sum"] = {"data_points": points, "aggregation_temporality": temporality, "is_monotonic": True}
    elif isinstance(data, GaugeData) and data.additive:
        points = [_number(point, start=True) for point in data.points]
        fields["sum"] = {"data_points": points, "aggregation_temporality": TEMPORALITY["cumulative"], "is_monotonic": False}
    elif isinstance(data, GaugeData):
        fields["gauge"] = {"data_points": [_number(point, start=False) for point in data.points]}
    else:
        found = [_histogram(point, data) for point in data.points]
        fields["histogram"] = {"data_points": found, "aggregation_temporality": TEMPORALITY[data.temporality]}
    return fields


def _number(point: NumberPoint, *, start: bool) -> Fields:
    return {
        "attributes": _attributes(point.labels),
        "start_time_unix_nano": point.start_time_ns if start else 0,
        "time_unix_nano": point.time_ns,
        "as_int" if isinstance(point.value, int) else "as_double": point.value,
        "exemplars": [_exemplar(exemplar) for exemplar in point.exemplars],
    }


def _histogram(point: HistogramPoint, data: HistogramData) -> Fields:
    return {
        "attributes": _attributes(point.labels),
        "start_time_unix_nano": point.start_time_ns,
        "time_unix_nano": point.time_ns,
        "count": point.count,
        "sum": point.sum,
        "bucket_counts": point.buckets,
        "explicit_bounds": data.boundaries,
        "exemplars": [_exemplar(exemplar) for exemplar in point.exemplars],
        **({} if point.min is None else {"min": point.min}),
        **({} if point.max is None else {"max": point.max}),
    }


def _exemplar(exemplar: Exemplar) -> Fields:
    return {
        "time_unix_nano": exemplar.time_ns,
        "as_int" if isinstance(exemplar.value, int) else "as_double": exemplar.value,
        "span_id": exemplar.span_id.to_bytes(8, "big"),
        "trace_id": exemplar.trace_id.to_bytes(16, "big"),
    }


def _attributes(attributes: Iterable[tuple[str, AttributeValue]]) -> list[Fields]:
    return [{"key": name, "value": _value(value)} for name, value in attributes]


def _value(value: AttributeValue) -> Fields:
    if isinstance(value, str):
        return {"string_value": value}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        return {"int_value": value}
    if isinstance(value, float):
        return {"double_value": value}
    return {"array_value": {"values": [_value(item) for item in value]}}
