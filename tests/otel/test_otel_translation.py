"""The OTLP messages that are made from core's values."""

from __future__ import annotations

import msgspec
import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from eventcore import __version__ as eventcore_version
from eventcore.exporting import (
    Exemplar,
    HistogramData,
    HistogramPoint,
    Scope,
    SpanEvent,
    SpanKind,
    SpanLink,
    TraceContext,
)
from tests.otel.encoded import metric_in, metrics_request, span_in, trace_request
from tests.otel.receiver import values
from tests.otel.values import NOW, START, counter, gauge, histogram, span

DELTA = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


@pytest.mark.conforms("OTLP", "Sums have temporality, monotonicity and start time.")
def test_a_counter_becomes_a_monotonic_cumulative_sum() -> None:
    metric = metric_in(counter("orders.total", {"a": 3, "b": 2.5}))
    assert (metric.name, metric.unit, metric.description) == ("orders.total", "{order}", "about orders.total")
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == CUMULATIVE
    first, second = metric.sum.data_points
    assert (first.start_time_unix_nano, first.time_unix_nano) == (START, NOW)
    assert values(first.attributes) == {"kind": "a"}
    assert (first.WhichOneof("value"), first.as_int) == ("as_int", 3)
    assert (second.WhichOneof("value"), second.as_double) == ("as_double", 2.5)


def test_a_whole_number_that_is_a_float_stays_a_float() -> None:
    [point] = metric_in(counter("c", {"a": 3.0})).sum.data_points
    assert (point.WhichOneof("value"), point.as_double) == ("as_double", 3.0)


def test_a_gauge_becomes_a_gauge() -> None:
    metric = metric_in(gauge("lag", -1.5))
    assert metric.WhichOneof("data") == "gauge"
    [point] = metric.gauge.data_points
    assert (point.as_double, point.time_unix_nano) == (-1.5, NOW)


@pytest.mark.conforms("OTLP", "Sums have temporality, monotonicity and start time.")
def test_an_additive_gauge_becomes_a_sum_that_is_not_monotonic() -> None:
    metric = metric_in(gauge("active", -2, additive=True))
    assert metric.WhichOneof("data") == "sum"
    assert not metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == CUMULATIVE
    [point] = metric.sum.data_points
    assert (point.as_int, point.start_time_unix_nano) == (-2, START)


@pytest.mark.conforms("OTLP", "Histograms have bounds, counts, sum, minimum and maximum.")
def test_a_histogram_keeps_its_bounds_counts_sum_and_extremes() -> None:
    metric = metric_in(histogram("duration"))
    assert metric.histogram.aggregation_temporality == CUMULATIVE
    [point] = metric.histogram.data_points
    assert list(point.explicit_bounds) == [0.1, 1.0]
    assert list(point.bucket_counts) == [1, 2, 3]
    assert (point.count, point.sum, point.min, point.max) == (6, 7.5, 0.01, 5.0)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (START, NOW)


def test_an_empty_histogram_has_no_extremes() -> None:
    data = HistogramData("h", "s", "", (), (1.0,), (HistogramPoint((), 0, 0.0, None, None, (0, 0), START, NOW),))
    [point] = metric_in(data).histogram.data_points
    assert (point.count, point.HasField("sum")) == (0, True)
    assert not point.HasField("min")
    assert not point.HasField("max")


@pytest.mark.conforms("OTLP", "Tracestate, events, links, status and dropped counts of a span are sent.")
def test_a_span_keeps_everything_it_has() -> None:
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
    found = span_in(data)
    assert found.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (found.span_id.hex(), found.parent_span_id.hex()) == ("0000000000000def", "0000000000000077")
    assert (found.trace_state, found.flags & 0xFF) == ("vendor=1,other=2", 1)
    assert (found.name, found.kind) == ("append events", trace_pb2.Span.SPAN_KIND_CLIENT)
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (START, NOW)
    assert values(found.attributes) == {"n": 3, "ratio": 0.5, "on": True, "names": ["x", "y"], "text": "t"}
    [event] = found.events
    assert (event.name, event.time_unix_nano, values(event.attributes)) == ("retry", START + 5, {"reason": "version"})
    [link] = found.links
    assert (int(link.trace_id.hex(), 16), int(link.span_id.hex(), 16)) == (5, 6)
    assert (link.trace_state, link.flags & 0xFF, values(link.attributes)) == ("z=1", 1, {"why": "cause"})
    assert (found.status.code, found.status.message) == (trace_pb2.Status.STATUS_CODE_ERROR, "boom")
    dropped = (found.dropped_attributes_count, found.dropped_events_count, found.dropped_links_count)
    assert dropped == (1, 2, 3)


def test_the_root_of_a_trace_has_no_parent() -> None:
    assert span_in(span()).parent_span_id == b""


@pytest.mark.conforms("OTLP", "Each kind of span.")
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
def test_every_kind_of_span_has_its_otlp_kind(kind: SpanKind, expected: int) -> None:
    assert span_in(span(kind=kind)).kind == expected


def test_correlation_and_causation_become_attributes() -> None:
    found = span_in(span(correlation_id="c-1", causation_id="c-2"))
    assert values(found.attributes) == {"eventcore.correlation_id": "c-1", "eventcore.causation_id": "c-2"}


def test_a_correlation_id_that_is_an_attribute_already_is_not_added_again() -> None:
    data = span(correlation_id="c-1", attributes=(("eventcore.correlation_id", "own"),))
    found = span_in(data)
    assert [(a.key, a.value.string_value) for a in found.attributes] == [("eventcore.correlation_id", "own")]


def test_a_chunk_is_not_lost_for_a_value_that_protobuf_refuses() -> None:
    strange = span(1, name="half \ud83d", attributes=(("big", 2**70), ("text", "\udc00"), ("texts", ("a", "\ud800"))))
    request = trace_request([strange, span(2)])
    first, second = request.resource_spans[0].scope_spans[0].spans
    assert first.name == "half \\ud83d"
    assert values(first.attributes) == {"big": str(2**70), "text": "\\udc00", "texts": ["a", "\\ud800"]}
    assert second.name == "span 2"


def test_a_gauge_beyond_64_bits_becomes_a_float() -> None:
    [point] = metric_in(gauge("g", 2**70)).gauge.data_points
    assert point.as_double == float(2**70)


@pytest.mark.conforms("OTLP", "Items are grouped by resource and by scope, with schema URLs.")
def test_a_request_has_the_resource_once_and_each_scope_once() -> None:
    other = Scope("shop", "2.0", "https://opentelemetry.io/schemas/1.30.0")
    resource = (("service.name", "shop"), ("hosts", ("a", "b")))
    request = trace_request([span(1), span(2, scope=other)], [span(3, scope=other), span(4)], resource=resource)
    [block] = request.resource_spans
    assert values(block.resource.attributes) == {"service.name": "shop", "hosts": ["a", "b"]}
    own, shop = block.scope_spans
    assert (own.scope.name, own.scope.version, own.schema_url) == ("eventcore", eventcore_version, "")
    assert (shop.scope.name, shop.scope.version, shop.schema_url) == ("shop", "2.0", "https://opentelemetry.io/schemas/1.30.0")
    assert [[found.name for found in scope.spans] for scope in (own, shop)] == [["span 1", "span 4"], ["span 2", "span 3"]]


def test_the_points_of_one_instrument_are_one_metric_however_many_chunks_bring_them() -> None:
    request = metrics_request([counter("c", {"a": 1})], [gauge("g", 1.0)], [counter("c", {"b": 2})])
    [block] = request.resource_metrics
    [scope] = block.scope_metrics
    assert [metric.name for metric in scope.metrics] == ["c", "g"]
    assert {values(p.attributes)["kind"]: p.as_int for p in scope.metrics[0].sum.data_points} == {"a": 1, "b": 2}


@pytest.mark.conforms("OTLP", "Flags say whether the parent, or a linked span, is remote.")
@pytest.mark.parametrize("parent_is_remote", [False, True])
def test_a_span_says_whether_its_parent_is_in_another_process(parent_is_remote: bool) -> None:
    found = span_in(span(parent_span_id=7, parent_is_remote=parent_is_remote))
    assert found.flags & 0xFF == 1
    assert bool(found.flags & trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
    assert bool(found.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK) == parent_is_remote


@pytest.mark.conforms("OTLP", "Flags say whether the parent, or a linked span, is remote.")
def test_a_link_says_whether_its_span_is_in_another_process() -> None:
    links = tuple(SpanLink(TraceContext(5, 6, 1, is_remote=remote)) for remote in (False, True))
    found = span_in(span(links=links)).links
    assert [bool(link.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK) for link in found] == [False, True]
    assert all(link.flags & trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK for link in found)


@pytest.mark.conforms("OTLP", "Sums have temporality, monotonicity and start time.")
def test_differences_say_so_and_additive_gauges_stay_cumulative() -> None:
    deltas = msgspec.structs.replace(counter("c", {"a": 3}), temporality="delta")
    assert metric_in(deltas).sum.aggregation_temporality == DELTA
    assert metric_in(msgspec.structs.replace(histogram("h"), temporality="delta")).histogram.aggregation_temporality == DELTA
    assert metric_in(gauge("g", 1.0, additive=True)).sum.aggregation_temporality == CUMULATIVE


@pytest.mark.conforms("OTLP", "Exemplars have value, time, trace id and span id.")
def test_exemplars_lead_from_a_point_to_its_trace() -> None:
    exemplars = (Exemplar(0.5, NOW, 0xABC, 0xDEF), Exemplar(2, NOW + 1, 5, 6))
    data = msgspec.structs.replace(
        histogram("h"), points=(msgspec.structs.replace(histogram("h").points[0], exemplars=exemplars),)
    )
    [point] = metric_in(data).histogram.data_points
    first, second = point.exemplars
    assert (first.as_double, first.time_unix_nano) == (0.5, NOW)
    assert (first.trace_id.hex(), first.span_id.hex()) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert (second.WhichOneof("value"), second.as_int) == ("as_int", 2)
