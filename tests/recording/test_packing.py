"""What another process gets of spans and metrics is what an exporter in this process would get."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventcore.exporting.process.packed_spans import SpanUnpacker
from eventcore.exporting.process.packing import pack_metrics, pack_spans, unpack_metrics
from eventcore.recording import IdGenerator, RateSampler, Scope, Span, SpanData, Tracer
from eventcore.recording.attributes import SpanLimits
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import CounterData, Exemplar, GaugeData, HistogramData, HistogramPoint, NumberPoint

# What is packed does not depend on the interpreter.
pytestmark = pytest.mark.once

LIMITS = SpanLimits(attributes=3, events=2, links=2, event_attributes=2, link_attributes=2, text=12)
# With lone surrogates, which UTF-8 cannot hold.
texts = st.text(st.characters(), max_size=20)
plain = st.one_of(texts, st.booleans(), st.integers(), st.floats(allow_nan=False), st.none(), st.binary(max_size=5))
values = st.one_of(plain, st.lists(plain, max_size=4), st.tuples(st.integers(), st.integers()))
attributes = st.dictionaries(texts, values, max_size=5)
ids = st.integers(1, 2**64 - 1)
contexts = st.builds(
    TraceContext, st.integers(1, 2**128 - 1), ids, st.integers(0, 255), st.sampled_from(["", "a=1"]), st.booleans()
)
# Names of scopes and of labels are not repaired: in either process, an exporter that cannot write them refuses them.
words = st.text(max_size=5)
kinds = st.sampled_from(["internal", "server", "CLIENT", "nonsense"])
spans = st.fixed_dictionaries(
    {
        "name": st.one_of(texts, st.integers()),
        "kind": kinds,
        "attributes": attributes,
        "links": st.lists(contexts, max_size=3),
        "parent": st.one_of(st.none(), contexts),
        "correlation_id": st.one_of(st.none(), texts),
        "causation_id": st.one_of(st.none(), texts),
        "events": st.lists(st.tuples(texts, attributes), max_size=3),
        "status": st.sampled_from(["", "unset", "ok", "error"]),
        "fails": st.booleans(),
        "scope": st.one_of(st.none(), st.builds(Scope, words, words, words)),
    }
)


def ended(tracer: Tracer, drawn: dict[str, Any]) -> None:
    scope = drawn["scope"]
    options = {name: drawn[name] for name in ("kind", "attributes", "links", "parent", "correlation_id", "causation_id")}
    span = tracer.span(drawn["name"], **options) if scope is None else tracer.scoped(scope, drawn["name"], **options)
    for name, of_event in drawn["events"]:
        span.add_event(name, of_event)
    if drawn["fails"]:
        span.record_exception(ValueError("no such order"))
    if drawn["status"]:
        span.set_status(drawn["status"], "because")
    span.end()


class Field(str, enum.Enum):  # noqa: UP042  # the text of a member of a `StrEnum` is its value
    ORDER = "order"


def test_a_name_that_is_a_member_of_an_enumeration_has_its_value_in_both_processes() -> None:
    tracer = Tracer(RateSampler("all"), IdGenerator())
    tracer.wanted = True
    with tracer.span("ship", attributes={Field.ORDER: Field.ORDER}) as span:
        span.add_event("packed", {Field.ORDER: 1})
    [there] = SpanUnpacker(SpanLimits()).unpack(pack_spans([span]))
    assert there == span.data()
    assert (there.attributes, there.events[0].attributes) == ((("order", "order"),), (("order", 1),))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(spans, max_size=4), st.sampled_from([LIMITS, SpanLimits()]))
def test_spans_are_the_same_in_another_process(drawn: list[dict[str, Any]], limits: SpanLimits) -> None:
    tracer = Tracer(RateSampler("all"), IdGenerator(), limits)
    tracer.sampler.follows_parent = False
    tracer.wanted = True
    for each in drawn:
        ended(tracer, each)
    recorded = tracer.ring.take_all()
    # Before `data` freezes them here, too.
    packed = pack_spans(recorded)
    unpacked = SpanUnpacker(limits).unpack(packed)
    # Not `==`, for which `True`, `1` and `1.0` are the same.
    assert repr(unpacked) == repr([span.data() for span in recorded])


def test_only_spans_that_something_is_cut_of_are_frozen_in_the_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = Tracer(RateSampler("all"), IdGenerator(), LIMITS)
    tracer.wanted = True
    outer = tracer.span("outer", kind="client", attributes={"a": True, "b": 1, "c": -0.5}, correlation_id="order-7")
    with outer, tracer.span("inner", links=[TraceContext(5, 6, 1)]) as inner:
        inner.add_event("retry", {"reason": "version", "numbers": (1, 2)})
        inner.set_status("error", "because")
    tracer.span("cut", attributes={"a": "x" * 13}).end()
    recorded = tracer.ring.take_all()
    packed = pack_spans(recorded)
    frozen: list[str] = []
    data = Span.data

    def noted(span: Span) -> SpanData:
        frozen.append(span.name)
        return data(span)

    monkeypatch.setattr(Span, "data", noted)
    unpacked = SpanUnpacker(LIMITS).unpack(packed)
    assert frozen == ["cut"]
    monkeypatch.undo()
    assert repr(unpacked) == repr([span.data() for span in recorded])


def test_a_span_that_holds_nonsense_costs_only_itself() -> None:
    tracer = Tracer(RateSampler("all"), IdGenerator())
    tracer.wanted = True
    tracer.span("first").end()
    broken = tracer.span("second", attributes={"a": 1})
    broken.end()
    tracer.span("third").end()
    broken.trace_id = "not an id"  # type: ignore[assignment]  # what an application may do
    recorded = tracer.ring.take_all()
    unpacked = SpanUnpacker(SpanLimits()).unpack(pack_spans(recorded))
    assert [span.name for span in unpacked] == ["first", "second", "third"]
    assert unpacked == [span.data() for span in recorded]


# Also integers that MessagePack does not have.
numbers = st.one_of(st.integers(), st.sampled_from([2**64, -(2**63) - 1]), st.floats(allow_nan=False))
exemplars = st.lists(st.builds(Exemplar, numbers, ids, st.integers(1, 2**128 - 1), ids), max_size=2).map(tuple)
labels = st.lists(st.tuples(words, words), max_size=2).map(tuple)
number_points = st.lists(st.builds(NumberPoint, labels, numbers, ids, ids, exemplars), max_size=2).map(tuple)
optional = st.one_of(st.none(), numbers)
counts = st.lists(st.integers(0, 2**63), max_size=3).map(tuple)
histogram_points = st.lists(
    st.builds(
        HistogramPoint,
        labels,
        st.integers(0, 2**63),
        st.floats(allow_nan=False),
        optional,
        optional,
        counts,
        ids,
        ids,
        exemplars,
    ),
    max_size=2,
).map(tuple)
names = st.lists(words, max_size=2).map(tuple)
scopes = st.builds(Scope, words, words, words)
head = words, words, words, names
temporalities = st.sampled_from(["cumulative", "delta"])
boundaries = st.lists(st.floats(allow_nan=False), max_size=3).map(tuple)
metrics = st.tuples(
    st.lists(st.builds(CounterData, *head, number_points, scopes, ids, temporalities, st.booleans()), max_size=2),
    st.lists(st.builds(GaugeData, *head, number_points, st.booleans(), scopes, ids), max_size=2),
    st.lists(st.builds(HistogramData, *head, boundaries, histogram_points, scopes, ids, temporalities), max_size=2),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(metrics)
def test_metrics_are_the_same_in_another_process(drawn: tuple[list[Any], list[Any], list[Any]]) -> None:
    for kind, values in zip(("counters", "gauges", "histograms"), drawn, strict=True):
        unpacked = unpack_metrics(kind, pack_metrics(values))
        assert repr(unpacked) == repr(values)
        assert [msgspec.structs.astuple(data) for data in unpacked] == [msgspec.structs.astuple(data) for data in values]
