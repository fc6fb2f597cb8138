"""The encoder's bytes are what protobuf makes of the same values, for everything that hypothesis finds."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventcore.exporting import (
    CounterData,
    Exemplar,
    GaugeData,
    HistogramData,
    HistogramPoint,
    MetricData,
    NumberPoint,
    Scope,
    SpanData,
    SpanEvent,
    SpanLink,
    TraceContext,
)
from eventcore_otel import encoding
from eventcore_otel.encoding import DUPLICATE, OVERFLOWN, Encoder
from tests.otel import encoded, reference
from tests.otel.receiver import values
from tests.otel.values import NOW, START, counter, span

int64 = st.integers(-(2**63), 2**63 - 1)
uint64 = st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats(allow_nan=False)
scalars = st.one_of(texts, st.booleans(), int64, floats, st.sampled_from([0, 1, True, False, 0.0, -0.0, 1.0]))
sequences = st.one_of(*(st.lists(kind, max_size=3).map(tuple) for kind in (texts, st.booleans(), int64, floats)))
attributes = st.lists(st.tuples(texts, st.one_of(scalars, sequences)), max_size=4).map(tuple)
contexts = st.builds(
    TraceContext,
    trace_id=st.integers(0, 2**128 - 1),
    span_id=uint64,
    trace_flags=st.integers(0, 255),
    tracestate=st.sampled_from(["", "a=1", "vendor=x,other=y"]),
    is_remote=st.booleans(),
)
scopes = st.builds(Scope, texts, texts, texts)
events = st.builds(SpanEvent, texts, uint64, attributes, uint32)
links = st.builds(SpanLink, contexts, attributes, uint32)
spans = st.builds(
    SpanData,
    name=texts,
    kind=st.sampled_from(list(reference.KINDS)),
    context=contexts,
    parent_span_id=uint64,
    start_time_ns=uint64,
    end_time_ns=uint64,
    attributes=attributes,
    events=st.lists(events, max_size=2).map(tuple),
    links=st.lists(links, max_size=2).map(tuple),
    status=st.sampled_from(["unset", "ok", "error"]),
    status_description=texts,
    correlation_id=st.none() | texts,
    causation_id=st.none() | texts,
    dropped_attributes=uint32,
    dropped_events=uint32,
    dropped_links=uint32,
    scope=scopes,
    parent_is_remote=st.booleans(),
)
exemplars = st.lists(st.builds(Exemplar, int64 | floats, uint64, st.integers(0, 2**128 - 1), uint64), max_size=2).map(tuple)
labels = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.builds(NumberPoint, labels, int64 | finite, uint64, uint64, exemplars)
both: tuple[Literal["cumulative", "delta"], ...] = ("cumulative", "delta")
temporalities = st.sampled_from(both)


def points(kind: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(kind, max_size=3, unique_by=lambda point: point.labels).map(tuple)


@st.composite
def histograms(draw: st.DrawFn) -> HistogramData:
    bounds = tuple(sorted(draw(st.sets(finite, max_size=4))))
    buckets = st.lists(uint64, min_size=len(bounds) + 1, max_size=len(bounds) + 1).map(tuple)
    extreme = st.none() | floats
    point = st.builds(HistogramPoint, labels, uint64, finite, extreme, extreme, buckets, uint64, uint64, exemplars)
    return HistogramData(
        *(draw(texts), draw(texts), draw(texts), (), bounds, draw(points(point)), draw(scopes)), temporality=draw(temporalities)
    )


counters = st.builds(CounterData, texts, texts, texts, st.just(()), points(numbers), scopes, temporality=temporalities)
gauges = st.builds(GaugeData, texts, texts, texts, st.just(()), points(numbers), st.booleans(), scopes)
metrics = st.lists(
    st.one_of(counters, gauges, histograms()), min_size=1, max_size=4, unique_by=lambda data: (type(data).__name__, data.name)
)

# One encoder for all examples: what it has kept of earlier ones must not change later ones.
kept = Encoder()


@pytest.mark.conforms("OTLP", "Requests are what protobuf makes of the same values.")
@pytest.mark.once
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(spans, min_size=1, max_size=3), attributes)
def test_encoded_spans_are_what_protobuf_makes_of_them(given_spans: list[SpanData], resource: Any) -> None:
    expected = reference.trace_request(resource, given_spans)
    assert encoded.trace_request(given_spans, resource=resource, encoder=kept) == expected
    # Once more, now that the encoder knows all of it.
    assert encoded.trace_request(given_spans, resource=resource, encoder=kept) == expected


@pytest.mark.conforms("OTLP", "Requests are what protobuf makes of the same values.")
@pytest.mark.once
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(metrics, attributes)
def test_encoded_points_are_what_protobuf_makes_of_them(given_metrics: list[MetricData], resource: Any) -> None:
    with_points = [data for data in given_metrics if data.points]
    if not with_points:
        return
    expected = reference.metrics_request(resource, with_points)
    chunks = [[data] for data in given_metrics]
    assert encoded.metrics_request(*chunks, resource=resource, encoder=kept) == expected
    assert encoded.metrics_request(*chunks, resource=resource, encoder=kept) == expected


def test_equal_values_of_different_types_stay_apart() -> None:
    found: list[Any] = []
    for _ in range(2):
        for value in (True, 1, 1.0, False, 0, 0.0, -0.0, (True,), (1,), (1.0,)):
            request = encoded.trace_request([span(attributes=(("n", value),))], encoder=kept)
            [attribute] = request.resource_spans[0].scope_spans[0].spans[0].attributes
            found.append((attribute.value.WhichOneof("value"), values([attribute])["n"]))
    one, two = found[:10], found[10:]
    assert repr(one) == repr(two)
    kinds = ["bool_value", "int_value", "double_value"]
    assert [kind for kind, _ in one] == [*kinds, *kinds, "double_value", *["array_value"] * 3]
    assert math.copysign(1, one[6][1]) == -1
    assert [type(value[0]) for _, value in one[7:]] == [bool, int, float]


def test_what_the_encoder_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_MOST_ATTRIBUTES", 300)
    monkeypatch.setattr(encoding, "_MOST_VALUES", 20)
    monkeypatch.setattr(encoding, "_MOST_LABELS", 100)
    encoder = Encoder()
    for n in range(2000):
        odd = (f"{n}" + "x" * 200, 0.5)
        attributes = (
            ("stream", f"s{n}"),
            (f"name{n}", "v"),
            ("n", n),
            ("long", "x" * 1000 + str(n)),
            (f"ratio{n}", n / 7),
            odd,
        )
        assert encoder.spans([span(n + 1, attributes=attributes)])
        assert encoder.counters([counter("c", {f"k{n}": n})])
        encoder.begin_metrics()
        bounds = tuple(float(b) for b in range(n % 50))
        point = HistogramPoint((("kind", f"k{n}"),), 0, 0.0, None, None, (0,) * (len(bounds) + 1), START, NOW)
        assert encoder.histograms([HistogramData("h", "", "", (), bounds, (point,))])
    known: dict[str, Any] = {name: value for name, value in vars(encoder).items() if isinstance(value, dict)}
    sizes = [sum(map(len, value.values())) if name == "_attributes" else len(value) for name, value in known.items()]
    assert len(sizes) >= 6
    assert max(sizes) <= 301
    assert all(sys.getsizeof(text) < 400 for known in encoder._attributes.values() for text in known.values())


def test_a_value_that_changes_each_time_does_not_drive_out_those_that_stay() -> None:
    encoder = Encoder()
    for n in range(5000):
        encoder.spans([span(1, attributes=(("stream", f"s{n}"), ("outcome", "committed")))])
    assert ("outcome", "committed") in encoder._attributes[str]
    assert len(encoder._attributes[str]) < 300


def test_times_that_otlp_cannot_express_are_the_nearest_that_it_can() -> None:
    odd = span(start_time_ns=-5, end_time_ns=2**70, events=(SpanEvent("e", -1),))
    found = encoded.span_in(odd)
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (0, 2**64 - 1)
    assert found.events[0].time_unix_nano == 0


@pytest.mark.conforms("OTLP", "A number that OTLP cannot express is left out.")
@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**2000, float("inf"), float("nan")])
def test_a_sum_that_overflows_is_left_out_and_counted(value: float) -> None:
    encoder = Encoder()
    request = encoded.metrics_request([counter("c", {"a": value, "b": 2**63 - 1})], encoder=encoder)
    [point] = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
    assert point.as_int == 2**63 - 1
    assert encoder.left_out == {OVERFLOWN: 1}


def test_a_histogram_whose_sum_overflows_keeps_its_buckets() -> None:
    encoder = Encoder()
    point = HistogramPoint((), 2, float("inf"), 1e308, 1e308, (0, 2), START, NOW)
    request = encoded.metrics_request([HistogramData("h", "s", "", (), (1.0,), (point,))], encoder=encoder)
    [found] = request.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points
    assert not found.HasField("sum")
    assert (found.count, list(found.bucket_counts)) == (2, [0, 2])
    assert encoder.without_sum == {"h"}


def test_two_points_with_the_same_attributes_become_one_and_the_other_is_counted() -> None:
    encoder = Encoder()
    twice = CounterData("c", "", "", (), tuple(NumberPoint((("a", "x"),), n, START, NOW) for n in (1, 2)))
    request = encoded.metrics_request([twice], [twice], encoder=encoder)
    [metric] = request.resource_metrics[0].scope_metrics[0].metrics
    assert [point.as_int for point in metric.sum.data_points] == [1]
    assert encoder.left_out == {DUPLICATE: 3}
    # In the next cycle it is the same again, and no more.
    encoded.metrics_request([twice], encoder=encoder)
    assert encoder.left_out == {DUPLICATE: 1}


def test_labels_that_differ_only_in_what_utf_8_cannot_express_stay_apart() -> None:
    odd = [chr(0xD800), chr(0xDC00)]
    request = encoded.metrics_request([counter("c", dict(zip(odd, (1, 2), strict=True)))])
    found = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
    assert {values(point.attributes)["kind"]: point.as_int for point in found} == {"\\ud800": 1, "\\udc00": 2}


def test_exemplars_can_be_switched_off() -> None:
    point = NumberPoint((), 1, START, NOW, (Exemplar(1, NOW, 5, 6),))
    data = CounterData("c", "", "", (), (point,))
    for exemplars_wanted in (True, False):
        request = encoded.metrics_request([data], encoder=Encoder(exemplars=exemplars_wanted))
        [found] = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
        assert len(found.exemplars) == exemplars_wanted


@pytest.mark.timing
@pytest.mark.once
def test_an_attribute_takes_no_longer_to_encode_when_the_encoder_has_kept_many() -> None:
    def seconds(encoder: Encoder, names: range) -> float:
        spans = [span(attributes=((f"name {number}", "v"),)) for number in names]
        begun = time.perf_counter()
        encoder.spans(spans)
        return time.perf_counter() - begun

    few: list[float] = []
    many: list[float] = []
    for _ in range(10):
        encoder = Encoder()
        few.append(seconds(encoder, range(200)))
        seconds(encoder, range(200, 3800))
        many.append(seconds(encoder, range(3800, 4000)))
    assert min(many) < 3 * min(few), (min(few), min(many))
