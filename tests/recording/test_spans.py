"""Spans: parents, sampling, contexts, limits."""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.errors import InvalidInput
from eventcore.recording import IdGenerator, RateSampler, RatioSampler, Scope, SilentTracer, SpanData, TraceContext, Tracer
from eventcore.recording.attributes import SpanLimits
from eventcore.recording.values import SpanLink


@pytest.fixture
def tracer() -> Tracer:
    tracer = Tracer(RateSampler("all"), IdGenerator())
    tracer.wanted = True
    return tracer


class Other:
    """Another tracing system, with the current context that ``asked`` gives."""

    may_be_unused = True

    def __init__(self, asked: Callable[[], TraceContext | None] = lambda: None) -> None:
        self.current = asked
        self.attached: list[tuple[TraceContext, bool]] = []

        self.used = True

    def in_use(self) -> bool:
        return self.used

    def attach(self, context: TraceContext, own_io: bool) -> int:
        self.attached.append((context, own_io))
        return len(self.attached)

    def detach(self, token: int) -> None:
        assert len(self.attached) == token
        self.attached.pop()


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


# Whatever an application gives


def raises(*_: Any) -> NoReturn:
    raise SystemExit("from inside")


def hostile(base: type = object, **methods: Any) -> Any:
    return type("Hostile", (base,), methods)


class PlainError(Exception):
    pass


RAISING_TEXT: Any = hostile(PlainError, __str__=raises, __repr__=raises)
RAISING_CAUSE: Any = hostile(PlainError, __cause__=property(raises), __context__=property(raises))


@pytest.mark.parametrize("error", [RAISING_TEXT("x"), RAISING_CAUSE("x"), PlainError("é" * 20_000_000)])
def test_an_exception_that_cannot_be_shown_reaches_the_caller_and_the_span_ends(tracer: Tracer, error: Exception) -> None:
    with pytest.raises(PlainError) as caught, tracer.span("fails"):
        raise error
    assert caught.value is error
    assert Tracer.current() is None
    (data,) = ended(tracer)
    assert data.status == "error"
    assert len(data.status_description) <= 4096
    attributes = dict(data.events[0].attributes)
    assert set(attributes) == {"exception.type", "exception.message", "exception.stacktrace"}
    assert all(len(str(value)) <= 4096 for value in attributes.values())


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError(), SystemExit(0), SystemExit(None)])
def test_the_end_of_a_generator_a_task_or_the_process_is_no_error(tracer: Tracer, error: BaseException) -> None:
    with pytest.raises(type(error)), tracer.span("stops"):
        raise error
    (data,) = ended(tracer)
    assert (data.status, data.events) == ("unset", ())


@pytest.mark.parametrize("error", [SystemExit(1), SystemExit("why"), SystemExit(False), KeyboardInterrupt()])
def test_an_interruption_and_a_failing_exit_are_errors(tracer: Tracer, error: BaseException) -> None:
    with pytest.raises(type(error)), tracer.span("stops"):
        raise error
    assert ended(tracer)[0].status == "error"


BAD_VALUES: list[Any] = [
    uuid.uuid4(),
    None,
    17,
    b"x" * 10_000_000,
    "x" * 10_000_000,
    "\udfff",
    "\0\n",
    2**70,
    10**5000,
    float("nan"),
    object(),
    {"a": 1},
    dict.fromkeys(range(100_000)),
    ["a", 1, None, ["nested"] * 10],
    [1] * 100_000,
    {1, 2},
    RAISING_TEXT("x"),
    hostile(__str__=raises, __repr__=raises, __hash__=raises, __eq__=raises, __bool__=raises, __len__=raises)(),
    hostile(__class__=property(raises), __str__=raises)(),
    hostile(str, __len__=raises, __str__=raises, __getitem__=raises, __hash__=raises, __eq__=raises)("x"),
    hostile(int, __str__=raises, __int__=raises, __lt__=raises)(3),
    hostile(float, __str__=raises, __float__=raises)(3.0),
    hostile(list, __iter__=raises, __len__=raises, __getitem__=raises)([1, 2]),
    hostile(dict, items=raises, __len__=raises, keys=raises)(a=1),
]


def ends_of(value: object) -> Iterator[object]:
    if isinstance(value, tuple):
        for item in value:
            yield from ends_of(item)
    else:
        yield value


# By number: some of the values break pytest, too.
@pytest.mark.parametrize("number", range(len(BAD_VALUES)))
def test_no_value_makes_a_span_raise_or_reaches_an_exporter_unrepaired(tracer: Tracer, number: int) -> None:
    bad = BAD_VALUES[number]
    begun = time.monotonic()
    with (
        tracer.span(bad, kind=bad, attributes=bad, links=bad, parent=bad, correlation_id=bad, causation_id=bad) as span,
        tracer.span("child"),
    ):
        span.set_attribute(bad, bad)
        span.set_attribute("key", bad)
        span.set_attributes(bad)
        span.set_attributes({"more": bad})
        span.add_event(bad, bad)
        span.add_event("event", {"key": bad})
        span.add_links(bad)
        span.add_links([bad, TraceContext(1, 2), SpanLink(bad), SpanLink(TraceContext(3, 4), bad)])
        span.set_status(bad, bad)
        span.set_status("error", bad)
    child, data = ended(tracer)
    assert child.parent_span_id == data.context.span_id
    assert data.kind == "internal"
    assert data.status == "error"
    assert data.parent_span_id == 0
    assert TraceContext(3, 4) in [link.context for link in data.links]
    assert {type(key) for key, _ in data.attributes} <= {str}
    for text in (data.name, data.status_description, data.correlation_id or "", data.causation_id or ""):
        assert type(text) is str
        text.encode()
    everything = [data.attributes, *(event.attributes for event in data.events), *(link.attributes for link in data.links)]
    for value in ends_of(tuple(everything)):
        assert type(value) in (str, bool, int, float)
        if type(value) is str:
            assert len(value.encode()) <= 3 * 4096
        if type(value) is int:
            assert -(2**63) <= value < 2**63
    assert all(len(value) <= 4096 for _, value in data.attributes if isinstance(value, tuple))
    assert time.monotonic() - begun < 5


def test_whatever_is_assigned_to_a_span_its_frozen_value_is_plain(tracer: Tracer) -> None:
    names = ("name", "kind", "trace_id", "span_id", "trace_flags", "tracestate", "parent_span_id", "correlation_id")
    for bad in BAD_VALUES:
        span: Any = tracer.span("x", attributes={"kept": 1})
        for name in names:
            setattr(span, name, bad)
        span.end()
        (data,) = ended(tracer)
        assert data.attributes == (("kept", 1),)
        assert type(data.context.trace_id) is type(data.parent_span_id) is int
        assert data.context.traceparent


def test_attributes_and_links_that_never_end_are_cut(tracer: Tracer) -> None:
    class Endless(dict[str, Any]):
        def items(self) -> Any:
            number = 0
            while True:
                yield str(number), number
                number += 1

    with tracer.span("x", attributes=Endless()) as span:
        span.add_event("endless", Endless())
        span.add_links(TraceContext(1, 2) for _ in iter(int, 1))
    (data,) = ended(tracer)
    assert len(data.attributes) == len(data.links) == len(data.events[0].attributes) == 128
    assert data.dropped_attributes
    assert data.dropped_links
    assert data.events[0].dropped_attributes


def test_what_is_set_after_the_end_is_ignored_and_counted(tracer: Tracer) -> None:
    with tracer.span("x") as span:
        span.set_attribute("a", 1)
    assert not span.recording
    span.set_attribute("b", 2)
    span.set_attributes({"c": 3})
    span.add_event("late")
    span.add_links([TraceContext(1, 2)])
    span.set_status("error")
    span.record_exception(ValueError())
    (data,) = ended(tracer)
    assert (data.attributes, data.events, data.links, data.status) == ((("a", 1),), (), (), "unset")
    assert tracer.ring.ignored == 6


def test_kinds_and_statuses_are_understood_in_upper_case(tracer: Tracer) -> None:
    kind: Any = "CLIENT"
    status: Any = "OK"
    with tracer.span("x", kind=kind) as span:
        span.set_status(status)
    (data,) = ended(tracer)
    assert (data.kind, data.status) == ("client", "ok")


def test_a_link_or_a_parent_with_a_zero_id_is_refused_and_a_span_is_a_good_parent(tracer: Tracer) -> None:
    zeros = [TraceContext(0, 0), TraceContext(1, 0), TraceContext(0, 1)]
    for zero in zeros:
        with tracer.span("x", parent=zero, links=zeros) as span:
            assert span.parent_span_id == 0
            assert span.trace_id > 1
            below: Any = tracer.span("below", parent=span)
            below.end()
        child, data = ended(tracer)
        assert child.parent_span_id == data.context.span_id
        assert (data.links, data.dropped_links) == ((), 3)


def test_a_parent_that_is_no_context_is_ignored_and_logged_once(tracer: Tracer, caplog: pytest.LogCaptureFixture) -> None:
    header: Any = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for _ in range(3):
        tracer.span("x", parent=header).end()
    assert [data.parent_span_id for data in ended(tracer)] == [0, 0, 0]
    assert [record.getMessage() for record in caplog.records] == [
        "a span was begun with a parent of type str, which is ignored; expected a TraceContext"
    ]


def test_a_block_inside_a_block_of_the_same_span_leaves_nothing_current(tracer: Tracer) -> None:
    span = tracer.span("x")
    with span, span:
        pass
    assert Tracer.current() is None
    assert len(ended(tracer)) == 1


def test_limits_hold_for_spans_events_and_links() -> None:
    limits = SpanLimits(attributes=2, events=1, links=1, event_attributes=1, link_attributes=1, text=10)
    tracer = Tracer(RateSampler("all"), IdGenerator(), limits)
    tracer.wanted = True
    many: dict[str, Any] = {"a": "x" * 100, "b": 2, "c": 3}
    with tracer.span("x" * 100, attributes=many) as span:
        span.add_event("e", many)
        span.add_event("e")
        span.add_links([SpanLink(TraceContext(1, 2), tuple(many.items())), TraceContext(3, 4)])
    (data,) = ended(tracer)
    assert data.name == "x" * 100
    assert len(str(dict(data.attributes)["a"])) == 10
    assert (len(data.attributes), data.dropped_attributes) == (2, 1)
    assert (len(data.events), data.dropped_events, len(data.events[0].attributes)) == (1, 1, 1)
    assert (len(data.links), data.dropped_links, len(data.links[0].attributes)) == (1, 1, 1)
    assert data.events[0].dropped_attributes == data.links[0].dropped_attributes == 2


# Identity


def test_a_parent_from_headers_is_remote_and_one_of_this_process_is_not(tracer: Tracer) -> None:
    remote = TraceContext.from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert remote is not None
    assert remote.is_remote
    with tracer.span("request", parent=remote) as request, tracer.span("inside"):
        assert not request.context.is_remote
        tracer.span("explicit", parent=request.context).end()
    assert [data.parent_is_remote for data in ended(tracer)] == [False, False, True]


def test_a_context_names_a_span_whether_it_is_remote_or_not() -> None:
    here, there = TraceContext(1, 2, 1, "a=b"), TraceContext(1, 2, 1, "a=b", is_remote=True)
    assert here == there
    assert len({here, there}) == 1
    assert here != TraceContext(1, 3, 1, "a=b")
    assert here != "no context"


def test_a_state_that_no_header_can_carry_is_dropped() -> None:
    assert TraceContext(1, 2, 1, "x" * 513).tracestate == ""
    assert TraceContext(1, 2, 1, "é").tracestate == ""


@pytest.mark.parametrize("bad", [1.5, "1", None, True, object()])
def test_an_identity_of_other_types_is_refused(bad: Any) -> None:
    for arguments in ((bad, 1), (1, bad), (1, 1, bad), (1, 1, 1, bad if not isinstance(bad, str) else b"x")):
        if arguments[-1] is None:
            continue
        with pytest.raises(InvalidInput):
            TraceContext(*arguments)


def test_a_span_carries_the_scope_that_made_it(tracer: Tracer) -> None:
    scope = Scope("shop.orders", "1.2", "https://shop.example/schema")
    tracer.scoped(scope, "x", attributes={"a": 1}).end()
    tracer.span("y").end()
    tracer.scoped(Scope("shop.orders", "1.2", "https://shop.example/schema"), "z").end()
    named, plain, again = ended(tracer)
    assert named.scope == again.scope == scope
    assert plain.scope.name == "eventcore"


# Sampling that OpenTelemetry's variables ask for


def test_a_ratio_samples_by_trace_id_so_that_processes_agree() -> None:
    ids = [IdGenerator().bits(128) for _ in range(2000)]
    first, second = RatioSampler(0.25), RatioSampler(0.25)
    chosen = [first.sample(trace_id) for trace_id in ids]
    assert chosen == [second.sample(trace_id) for trace_id in ids]
    assert 350 < sum(chosen) < 650
    assert first.unsampled == chosen.count(False)
    assert all(map(RatioSampler(1).sample, ids))
    assert not any(map(RatioSampler(0).sample, ids))


def test_a_sampler_that_is_not_parent_based_decides_for_each_span_anew() -> None:
    always = Tracer(RatioSampler(1, follows_parent=False), IdGenerator())
    never = Tracer(RatioSampler(0, follows_parent=False), IdGenerator())
    follows = Tracer(RatioSampler(0), IdGenerator())
    assert always.span("x", parent=TraceContext(1, 2, 0)).trace_flags == 1
    assert never.span("x", parent=TraceContext(1, 2, 1)).trace_flags == 0
    assert follows.span("x", parent=TraceContext(1, 2, 1)).trace_flags == 1


# The span of a command or an event in a task or thread that serves many of them


def test_a_span_that_is_entered_is_current_here_and_in_other_systems_until_it_is_left(tracer: Tracer) -> None:
    other = Other()
    tracer.ring.attached = (other,)
    span = tracer.span("execute")
    entered = span.enter()
    assert Tracer.current() is span
    assert other.attached == [(span.context, False)]
    span.leave(entered)
    assert Tracer.current() is None
    assert other.attached == []
    assert span.recording


@pytest.mark.parametrize("systems", [1, 2])
@pytest.mark.parametrize("own_io", [False, True])
def test_a_span_that_is_connected_is_current_in_other_systems_until_its_block_ends(
    tracer: Tracer, own_io: bool, systems: int
) -> None:
    others = tuple(Other() for _ in range(systems))
    tracer.ring.attached = others
    with tracer.span("execute") as span:
        span.connect(own_io)
        span.connect(own_io)
        assert [other.attached for other in others] == [[(span.context, own_io)]] * systems
    assert [other.attached for other in others] == [[]] * systems
    assert Tracer.current() is None


def test_a_connected_span_whose_block_ends_in_another_context_undoes_nothing_there(tracer: Tracer) -> None:
    other = Other()
    tracer.ring.attached = (other,)

    def block() -> Generator[None]:
        with tracer.span("execute") as span:
            span.connect()
            yield

    begun = block()
    contextvars.copy_context().run(next, begun)
    with tracer.span("here") as here:
        begun.close()
        assert Tracer.current() is here
    assert len(other.attached) == 1
    assert len(ended(tracer)) == 2


def test_nothing_is_attached_to_a_system_that_is_not_in_use(tracer: Tracer) -> None:
    used, unused = Other(), Other()
    unused.used = False
    for systems in ((unused,), (unused, used)):
        tracer.ring.attached = systems
        span = tracer.span("execute")
        entered = span.enter()
        with tracer.ring.own_io():
            assert unused.attached == []
            assert len(used.attached) == (2 if used in systems else 0)
        span.leave(entered)
    assert used.attached == []


def test_own_calls_without_a_span_are_marked_too(tracer: Tracer) -> None:
    other = Other()
    with tracer.ring.own_io():
        assert other.attached == []
    tracer.ring.attached = (other,)
    with tracer.ring.own_io():
        [(context, own_io)] = other.attached
        assert (context.valid, own_io) == (False, True)
    with tracer.span("execute") as span, tracer.ring.own_io():
        assert other.attached[-1] == (span.context, True)
    assert other.attached == []


def test_a_thread_that_serves_many_spans_sees_each_while_it_is_entered(tracer: Tracer) -> None:
    spans = [tracer.span(str(number)) for number in range(3)]

    def serve() -> list[bool]:
        seen = []
        for span in spans:
            entered = span.enter()
            seen.append(Tracer.current() is span)
            span.leave(entered)
        return [*seen, Tracer.current() is None]

    with ThreadPoolExecutor(1) as pool:
        assert all(pool.submit(serve).result())
