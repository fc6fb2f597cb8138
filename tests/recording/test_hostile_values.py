"""Whatever an application gives to a span, nothing raises, and what an exporter gets is plain and bounded."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from eventcore.recording import IdGenerator, RateSampler, TraceContext, Tracer
from eventcore.recording.attributes import SpanLimits
from eventcore.recording.values import SpanLink
from tests.recording.spans import ended


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
