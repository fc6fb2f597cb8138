"""Spans: parents, contexts, limits."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from eventcore.exporting.process.packed_spans import SpanUnpacker
from eventcore.exporting.process.packing import pack_spans
from eventcore.recording import IdGenerator, RateSampler, Scope, SilentTracer, TraceContext, Tracer
from eventcore.recording.attributes import SpanLimits
from eventcore.recording.values import SpanLink
from tests.recording.spans import Other, ended


def test_a_span_has_ids_times_attributes_and_a_root_has_no_parent(tracer: Tracer) -> None:
    with tracer.span("ship", kind="client", attributes={"a": 1}) as span:
        span.set_attribute("b", "x")
        odd: dict[str, Any] = {"c": [1, 2], "d": True, "e": object}
        span.set_attributes(odd)
    (data,) = ended(tracer)
    assert (data.name, data.kind, data.parent_span_id, data.status) == ("ship", "client", 0, "unset")
    assert data.context.valid
    assert data.context.sampled
    assert 0 <= data.end_time_ns - data.start_time_ns < 10**9
    assert data.attributes == (("a", 1), ("b", "x"), ("c", (1, 2)), ("d", True), ("e", "<class 'object'>"))


def test_a_span_is_the_child_of_the_one_around_it_and_inherits_correlation_and_causation(tracer: Tracer) -> None:
    with tracer.span("outer", correlation_id="c", causation_id="x"), tracer.span("inner"):
        pass
    with tracer.span("next"):
        pass
    inner, outer, following = ended(tracer)
    assert inner.parent_span_id == outer.context.span_id
    assert inner.context.trace_id == outer.context.trace_id != following.context.trace_id
    assert (inner.correlation_id, inner.causation_id) == ("c", "x")
    assert following.correlation_id is None


def test_a_remote_parent_is_followed_with_its_flags_and_state(tracer: Tracer) -> None:
    parent = TraceContext(5, 6, 1, "vendor=1")
    with tracer.span("child", parent=parent) as span:
        assert span.context.traceparent.startswith("00-" + "0" * 31 + "5-")
    (data,) = ended(tracer)
    assert (data.context.trace_id, data.parent_span_id, data.context.tracestate) == (5, 6, "vendor=1")
    with tracer.span("child of unsampled", parent=TraceContext(5, 6, 0)) as span:
        assert not span.recording
        assert span.context.trace_flags == 0
    assert ended(tracer) == []


def test_an_exception_is_kept_and_goes_on(tracer: Tracer) -> None:
    with pytest.raises(KeyError), tracer.span("fails"):
        raise KeyError("gone")
    (data,) = ended(tracer)
    assert (data.status, data.status_description) == ("error", "KeyError: 'gone'")
    assert data.events[0].name == "exception"
    assert dict(data.events[0].attributes)["exception.type"] == "KeyError"


def test_the_nearest_of_an_enclosing_span_and_the_ambient_trace_is_the_parent(tracer: Tracer) -> None:
    ambient: list[TraceContext | None] = [TraceContext(1, 1, 1)]
    tracer.ambient = (Other(lambda: ambient[0]),)
    with tracer.span("request") as request:
        with tracer.span("inside") as inside:
            assert inside.parent_span_id == request.span_id
        ambient[0] = TraceContext(1, 2, 1)
        with tracer.span("below another system's span") as below:
            assert below.parent_span_id == 2
    assert request.trace_id == 1
    assert request.parent_span_id == 1


def test_what_exceeds_the_limits_is_counted(tracer: Tracer) -> None:
    with tracer.span("x", links=[TraceContext(1, n + 1) for n in range(130)]) as span:
        for number in range(130):
            span.set_attribute(str(number), "v" * 5000)
            span.add_event("e")
    (data,) = ended(tracer)
    assert (len(data.attributes), data.dropped_attributes) == (128, 2)
    assert (len(data.events), data.dropped_events) == (128, 2)
    assert (len(data.links), data.dropped_links) == (128, 2)
    assert len(str(data.attributes[0][1])) == 4096


def test_a_full_ring_drops_the_newest_and_counts(tracer: Tracer) -> None:
    tracer.ring.capacity = 2
    for name in "abc":
        with tracer.span(name):
            pass
    assert [data.name for data in ended(tracer)] == ["a", "b"]
    assert tracer.ring.dropped == 1


def test_ending_twice_exports_once(tracer: Tracer) -> None:
    span = tracer.span("x")
    span.end()
    span.end()
    assert len(ended(tracer)) == 1


def test_nothing_is_kept_while_nobody_takes_spans_but_contexts_are_given(tracer: Tracer) -> None:
    tracer.wanted = False
    with tracer.span("x") as span:
        assert span.context.sampled
    assert ended(tracer) == []


def test_a_block_left_in_another_context_ends_without_raising(tracer: Tracer) -> None:
    span = tracer.span("x")
    contextvars.copy_context().run(span.__enter__)
    span.__exit__(None, None, None)
    assert len(ended(tracer)) == 1


async def test_tasks_have_spans_of_their_own(tracer: Tracer) -> None:
    async def work(name: str) -> tuple[int, int]:
        with tracer.span(name) as outer:
            await asyncio.sleep(0)
            with tracer.span("inner") as inner:
                await asyncio.sleep(0)
                return outer.span_id, inner.parent_span_id

    for outer, parent in await asyncio.gather(*(work(str(n)) for n in range(20))):
        assert outer == parent
    assert Tracer.current() is None


def test_a_silent_tracer_hands_a_trace_through_unchanged() -> None:
    tracer = SilentTracer(RateSampler("all"), IdGenerator())
    parent = TraceContext(1, 2, 1, "a=b")
    with tracer.span("x", parent=parent, correlation_id="c") as span:
        assert span.context == parent
        with tracer.span("y") as inner:
            assert inner.context == parent
            assert inner.correlation_id == "c"
    with tracer.span("z") as root:
        assert not root.context.valid
    assert tracer.ring.take_all() == []


def test_a_span_carries_the_scope_that_made_it(tracer: Tracer) -> None:
    scope = Scope("shop.orders", "1.2", "https://shop.example/schema")
    tracer.scoped(scope, "x", attributes={"a": 1}).end()
    tracer.span("y").end()
    tracer.scoped(Scope("shop.orders", "1.2", "https://shop.example/schema"), "z").end()
    named, plain, again = ended(tracer)
    assert named.scope == again.scope == scope
    assert plain.scope.name == "eventcore"


def test_attributes_that_are_given_away_are_those_that_are_set(tracer: Tracer) -> None:
    given: dict[str, Any] = {"a": 1, "b": "x" * 5000, "c": [1, 2]}
    with tracer.span("first") as span:
        span.take_attributes(given)
    with tracer.span("second", attributes={"a": 0, "z": 2.5}) as span:
        span.take_attributes({"a": 1})
    span.take_attributes({"late": 1})
    first, second = ended(tracer)
    assert dict(first.attributes) == {"a": 1, "b": "x" * 4095 + "…", "c": (1, 2)}
    assert dict(second.attributes) == {"a": 1, "z": 2.5}
    assert tracer.ring.ignored == 1


def test_links_to_spans_that_are_given_away_are_those_that_are_added_within_the_limit(tracer: Tracer) -> None:
    spans = [tracer.span("linked") for _ in range(129)]
    links = [SpanLink(span.context) for span in spans]
    with tracer.span("few") as span:
        span.take_links(spans[:2])
    with tracer.span("many") as span:
        span.take_links(spans)
    with tracer.span("before") as span:
        span.add_links(links[:1])
        span.take_links(spans[1:3])
    with tracer.span("behind") as span:
        span.take_links(spans[:2])
        span.add_links(links[2:3])
    span.take_links(spans)
    few, many, before, behind = ended(tracer)
    assert few.links == tuple(links[:2])
    assert (many.links, many.dropped_links) == (tuple(links[:128]), 1)
    assert before.links == behind.links == tuple(links[:3])


def test_a_span_that_is_linked_to_and_holds_nonsense_costs_only_its_link(tracer: Tracer) -> None:
    good, bad = tracer.span("good"), tracer.span("bad")
    with tracer.span("linking") as span:
        span.take_links([bad, good])
    bad.trace_id = "not an id"  # type: ignore[assignment]  # what an application may do
    [recorded] = tracer.ring.take_all()
    packed = pack_spans([recorded])
    assert recorded.data().links == (SpanLink(good.context),)
    assert SpanUnpacker(SpanLimits()).unpack(packed) == [recorded.data()]


def test_plain_attributes_that_are_given_away_are_kept_and_cut_at_the_limits_of_the_span(tracer: Tracer) -> None:
    given: dict[str, Any] = {"a": "x" * 20, "b": 1, "c": 0.5}
    with tracer.span("plain") as span:
        span.take_plain(given.copy())
    with tracer.span("more") as span:
        span.take_plain(given.copy())
        span.set_attribute("b", "y" * 5000)
        span.set_attribute(7, "a name that is no text")  # type: ignore[arg-type]  # what an application may do
    with tracer.span("behind") as span:
        span.set_attribute("z", 1)
        span.take_plain(given.copy())
    small = Tracer(RateSampler("all"), IdGenerator(), SpanLimits(attributes=2, text=10))
    small.wanted = True
    with small.span("small") as span:
        span.take_plain(given.copy())
    plain, more, behind = (dict(each.attributes) for each in ended(tracer))
    assert plain == given
    assert more == {"a": "x" * 20, "b": "y" * 4095 + "…", "c": 0.5, "7": "a name that is no text"}
    assert behind == {"z": 1, **given}
    [cut] = ended(small)
    assert (dict(cut.attributes), cut.dropped_attributes) == ({"a": "x" * 9 + "…", "b": 1}, 1)


def test_a_frozen_value_is_kept_for_several_exporters_only(tracer: Tracer) -> None:
    tracer.span("ship", attributes={"a": 1}).end()
    [span] = tracer.ring.take_all()
    assert span.data() == span.data()
    assert span.data() is not span.data()
    tracer.ring.is_shared = True
    assert span.data() is span.data()
