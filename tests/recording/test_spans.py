"""Spans: parents, sampling, contexts, limits."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections import Counter
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.errors import InvalidInput
from eventcore.recording import IdGenerator, RateSampler, SilentTracer, SpanData, TraceContext, Tracer


@pytest.fixture
def tracer() -> Tracer:
    tracer = Tracer(RateSampler("all"), IdGenerator())
    tracer.wanted = True
    return tracer


def ended(tracer: Tracer) -> list[SpanData]:
    return [span.data() for span in tracer.ring.take_all()]


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
    tracer.ambient = (lambda: ambient[0],)
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


def test_the_rate_cap_takes_a_seconds_worth_at_once_and_counts_the_rest() -> None:
    sampler = RateSampler(10)
    decisions = Counter(sampler.sample() for _ in range(1000))
    assert 10 <= decisions[True] <= 12
    assert sampler.unsampled == decisions[False]


@pytest.mark.parametrize(("rate", "taken"), [(0, 0), ("all", 100), (0.001, 1)])
def test_the_rate_cap_at_its_ends(rate: float | Literal["all"], taken: int) -> None:
    sampler = RateSampler(rate)
    assert sum(sampler.sample() for _ in range(100)) == taken


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


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_traceparent_can_be_read_back(trace_id: int, span_id: int, flags: int) -> None:
    context = TraceContext(trace_id, span_id, flags)
    assert TraceContext.from_traceparent(context.traceparent) == context


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-" + "٣" * 32 + "-00f067aa0ba902b7-01",
        "x" * 10_000,
    ],
)
def test_a_malformed_traceparent_is_ignored(header: str) -> None:
    assert TraceContext.from_traceparent(header) is None


def test_a_future_version_of_traceparent_is_read_as_far_as_it_is_known() -> None:
    context = TraceContext.from_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", "k=v\x00")
    assert context is not None
    assert context.sampled
    assert context.tracestate == ""


@given(st.text(max_size=80))
def test_no_text_makes_reading_a_traceparent_raise(text: str) -> None:
    assert TraceContext.from_traceparent(text) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_ids_of_its_own() -> None:
    ids = IdGenerator()
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, ids.hex32().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() != ids.hex32()


@pytest.mark.parametrize(("trace_id", "span_id", "flags"), [(1 << 128, 1, 0), (-1, 1, 0), (1, 1 << 64, 0), (1, 1, 256)])
def test_an_identity_that_no_header_could_carry_is_refused(trace_id: int, span_id: int, flags: int) -> None:
    with pytest.raises(InvalidInput, match="128, 64 and 8 bits"):
        TraceContext(trace_id, span_id, flags)
