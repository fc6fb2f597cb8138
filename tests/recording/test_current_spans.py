"""The span of a command or an event is current where its code runs, also in a task or thread that serves many of them."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventcore.exporting import TraceContext, hookimpl
from eventcore.recording import Tracer
from eventcore.telemetry import Telemetry
from tests.recording.spans import Other, ended


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


class Named:
    """A system that has a current span, and attaches none."""

    def current(self) -> TraceContext:
        return TraceContext(1, 2, 1)


class Unused:
    """A system that is not in use."""

    attached = 0

    def current(self) -> None:
        return None

    def in_use(self) -> bool:
        return False

    def attach(self, context: TraceContext, own_io: bool) -> None:
        self.attached += 1

    def detach(self, token: None) -> None: ...


class Connecting:
    """An exporter that connects a system."""

    def __init__(self, system: object) -> None:
        self._system = system

    @hookimpl
    def ambient_context(self) -> object:
        return self._system

    @hookimpl
    def export_spans(self, spans: object) -> None: ...


def test_a_system_that_is_not_in_use_is_left_alone_where_another_one_names_the_parent() -> None:
    telemetry, unused = Telemetry(config=os.devnull, exporters=[]), Unused()
    telemetry.register_exporter(Connecting(Named()), name="named")
    telemetry.register_exporter(Connecting(unused), name="unused")
    assert telemetry.flush_blocking(10)
    with telemetry.span("execute") as span:
        span.connect()
        assert span.parent_span_id == 2
    telemetry.shutdown_blocking(10)
    assert unused.attached == 0
