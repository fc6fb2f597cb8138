"""The OTLP messages that are made from core's values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from eventcore.exporting import (
    CounterData,
    HistogramData,
    HistogramPoint,
    NumberPoint,
    SpanEvent,
    SpanKind,
    SpanLink,
    TraceContext,
)
from eventcore_otel.encoding import Encoder
from tests.otel.receiver import values
from tests.otel.values import NOW, START, counter, gauge, histogram, span

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder((("service.name", "shop"), ("hosts", ("a", "b"))), "1.2.3")


def metric_in(encoded: bytes) -> metrics_pb2.Metric:
    [resource] = ExportMetricsServiceRequest.FromString(encoded).resource_metrics
    [metric] = resource.scope_metrics[0].metrics
    return metric


def span_in(encoded: bytes) -> trace_pb2.Span:
    [resource] = ExportTraceServiceRequest.FromString(encoded).resource_spans
    [found] = resource.scope_spans[0].spans
    return found


def test_a_counter_becomes_a_monotonic_cumulative_sum(encoder: Encoder) -> None:
    metric = metric_in(encoder.counters([counter("orders.total", {"a": 3, "b": 2.5})]))
    assert (metric.name, metric.unit, metric.description) == ("orders.total", "{order}", "about orders.total")
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == CUMULATIVE
    first, second = metric.sum.data_points
    assert (first.start_time_unix_nano, first.time_unix_nano) == (START, NOW)
    assert values(first.attributes) == {"kind": "a"}
    assert (first.WhichOneof("value"), first.as_int) == ("as_int", 3)
    assert (second.WhichOneof("value"), second.as_double) == ("as_double", 2.5)


def test_a_whole_number_that_is_a_float_stays_a_float(encoder: Encoder) -> None:
    [point] = metric_in(encoder.counters([counter("c", {"a": 3.0})])).sum.data_points
    assert (point.WhichOneof("value"), point.as_double) == ("as_double", 3.0)


def test_a_gauge_becomes_a_gauge(encoder: Encoder) -> None:
    metric = metric_in(encoder.gauges([gauge("lag", -1.5)]))
    assert metric.WhichOneof("data") == "gauge"
    [point] = metric.gauge.data_points
    assert (point.as_double, point.time_unix_nano) == (-1.5, NOW)


def test_an_additive_gauge_becomes_a_sum_that_is_not_monotonic(encoder: Encoder) -> None:
    metric = metric_in(encoder.gauges([gauge("active", -2, additive=True)]))
    assert metric.WhichOneof("data") == "sum"
    assert not metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == CUMULATIVE
    [point] = metric.sum.data_points
    assert (point.as_int, point.start_time_unix_nano) == (-2, START)


def test_a_histogram_keeps_its_bounds_counts_sum_and_extremes(encoder: Encoder) -> None:
    metric = metric_in(encoder.histograms([histogram("duration")]))
    assert metric.histogram.aggregation_temporality == CUMULATIVE
    [point] = metric.histogram.data_points
    assert list(point.explicit_bounds) == [0.1, 1.0]
    assert list(point.bucket_counts) == [1, 2, 3]
    assert (point.count, point.sum, point.min, point.max) == (6, 7.5, 0.01, 5.0)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (START, NOW)


def test_an_empty_histogram_has_no_extremes(encoder: Encoder) -> None:
    data = HistogramData("h", "s", "", (), (1.0,), (HistogramPoint((), 0, 0.0, None, None, (0, 0), START, NOW),))
    [point] = metric_in(encoder.histograms([data])).histogram.data_points
    assert (point.count, point.HasField("sum")) == (0, True)
    assert not point.HasField("min")
    assert not point.HasField("max")


def test_a_span_keeps_everything_it_has(encoder: Encoder) -> None:
    data = span(
        0xDEF,
        name="append events",
        kind="client",
        context=TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0xDEF, 1, "vendor=1,other=2"),
        parent_span_id=0x77,
        attributes=(("n", 3), ("ratio", 0.5), ("on", True), ("names", ("x", "y")), ("text", "t")),
        events=(SpanEvent("retry", START + 5, (("reason", "version"),)),),
        links=(SpanLink(TraceContext(5, 6, 1, "z=1"), (("why", "cause"),)),),
        status="error",
        status_description="boom",
        dropped_attributes=1,
        dropped_events=2,
        dropped_links=3,
    )
    found = span_in(encoder.spans([data]))
    assert found.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (found.span_id.hex(), found.parent_span_id.hex()) == ("0000000000000def", "0000000000000077")
    assert (found.trace_state, found.flags) == ("vendor=1,other=2", 1)
    assert (found.name, found.kind) == ("append events", trace_pb2.Span.SPAN_KIND_CLIENT)
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (START, NOW)
    assert values(found.attributes) == {"n": 3, "ratio": 0.5, "on": True, "names": ["x", "y"], "text": "t"}
    [event] = found.events
    assert (event.name, event.time_unix_nano, values(event.attributes)) == ("retry", START + 5, {"reason": "version"})
    [link] = found.links
    assert (int(link.trace_id.hex(), 16), int(link.span_id.hex(), 16)) == (5, 6)
    assert (link.trace_state, link.flags, values(link.attributes)) == ("z=1", 1, {"why": "cause"})
    assert (found.status.code, found.status.message) == (trace_pb2.Status.STATUS_CODE_ERROR, "boom")
    dropped = (found.dropped_attributes_count, found.dropped_events_count, found.dropped_links_count)
    assert dropped == (1, 2, 3)


def test_the_root_of_a_trace_has_no_parent(encoder: Encoder) -> None:
    assert span_in(encoder.spans([span()])).parent_span_id == b""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("internal", trace_pb2.Span.SPAN_KIND_INTERNAL),
        ("server", trace_pb2.Span.SPAN_KIND_SERVER),
        ("client", trace_pb2.Span.SPAN_KIND_CLIENT),
        ("producer", trace_pb2.Span.SPAN_KIND_PRODUCER),
        ("consumer", trace_pb2.Span.SPAN_KIND_CONSUMER),
    ],
)
def test_every_kind_of_span_has_its_otlp_kind(encoder: Encoder, kind: SpanKind, expected: int) -> None:
    assert span_in(encoder.spans([span(kind=kind)])).kind == expected


def test_correlation_and_causation_become_attributes(encoder: Encoder) -> None:
    found = span_in(encoder.spans([span(correlation_id="c-1", causation_id="c-2")]))
    assert values(found.attributes) == {"eventcore.correlation_id": "c-1", "eventcore.causation_id": "c-2"}


def test_a_correlation_id_that_is_an_attribute_already_is_not_added_again(encoder: Encoder) -> None:
    data = span(correlation_id="c-1", attributes=(("eventcore.correlation_id", "own"),))
    found = span_in(encoder.spans([data]))
    assert [(a.key, a.value.string_value) for a in found.attributes] == [("eventcore.correlation_id", "own")]


def test_a_chunk_is_not_lost_for_a_value_that_protobuf_refuses(encoder: Encoder) -> None:
    strange = span(1, name="half \ud83d", attributes=(("big", 2**70), ("text", "\udc00"), ("texts", ("a", "\ud800"))))
    request = ExportTraceServiceRequest.FromString(encoder.spans([strange, span(2)]))
    first, second = request.resource_spans[0].scope_spans[0].spans
    assert first.name == "half ?"
    assert values(first.attributes) == {"big": str(2**70), "text": "?", "texts": ["a", "?"]}
    assert second.name == "span 2"


def test_a_total_beyond_64_bits_becomes_a_float(encoder: Encoder) -> None:
    [point] = metric_in(encoder.counters([counter("c", {"a": 2**70})])).sum.data_points
    assert point.as_double == float(2**70)


def test_the_scope_is_eventcore_and_the_resource_goes_along(encoder: Encoder) -> None:
    [resource] = ExportTraceServiceRequest.FromString(encoder.spans([span()])).resource_spans
    assert values(resource.resource.attributes) == {"service.name": "shop", "hosts": ["a", "b"]}
    scope = resource.scope_spans[0].scope
    assert (scope.name, scope.version) == ("eventcore", "1.2.3")


@given(st.lists(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), min_size=1, max_size=5))
def test_encoded_chunks_put_end_to_end_are_one_request_with_every_point(chunks: list[list[int]]) -> None:
    encoder = Encoder((), "1")
    encoded = b"".join(
        encoder.counters([CounterData("c", "", "", (), tuple(NumberPoint((), n, START, NOW) for n in chunk))])
        for chunk in chunks
    )
    request = ExportMetricsServiceRequest.FromString(encoded)
    found = [
        point.as_int
        for resource in request.resource_metrics
        for metric in resource.scope_metrics[0].metrics
        for point in metric.sum.data_points
    ]
    assert found == [number for chunk in chunks for number in chunk]
