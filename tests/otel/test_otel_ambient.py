"""The current OpenTelemetry span, and the exporter's calls when gRPC is instrumented."""

from __future__ import annotations

import asyncio
import timeit
from collections.abc import Callable, Iterator
from contextvars import Token

import grpc
import pytest
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, get_current_span, use_span

from eventcore.exporting import TraceContext
from eventcore_otel import OpenTelemetryExporter
from eventcore_otel.ambient import OpenTelemetryContext
from tests.otel.receiver import Receiver
from tests.otel.values import Driver, span


@pytest.fixture
def ambient() -> Callable[[], TraceContext | None]:
    return OpenTelemetryContext().current


def test_without_a_span_there_is_no_ambient_context(ambient: Callable[[], TraceContext | None]) -> None:
    assert ambient() is None


def test_the_current_span_is_the_ambient_context(ambient: Callable[[], TraceContext | None]) -> None:
    with TracerProvider().get_tracer("application").start_as_current_span("request") as request:
        context = request.get_span_context()
        assert ambient() == TraceContext(context.trace_id, context.span_id, int(context.trace_flags), "")
    assert ambient() is None


def test_a_parent_from_another_process_keeps_its_tracestate_and_flags(ambient: Callable[[], TraceContext | None]) -> None:
    remote = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(0), trace_state=TraceState([("a", "1"), ("b", "2")]))
    with use_span(NonRecordingSpan(remote)):
        assert ambient() == TraceContext(5, 6, 0, "a=1,b=2")


def test_a_span_that_is_not_valid_is_none(ambient: Callable[[], TraceContext | None]) -> None:
    with use_span(NonRecordingSpan(SpanContext(0, 0, is_remote=False))):
        assert ambient() is None


@pytest.mark.parametrize("own_io", [False, True])
def test_a_span_of_eventcore_is_made_current_for_as_long_as_it_is_attached(own_io: bool) -> None:
    system = OpenTelemetryContext(always=True)
    outer = TraceContext(5, 6, 1, "a=1")
    with TracerProvider().get_tracer("application").start_as_current_span("request") as request:
        token = system.attach(outer, own_io)
        assert system.current() == outer
        assert get_current_span().get_span_context().span_id == 6
        assert bool(otel_context.get_value("suppress_instrumentation")) == own_io
        system.detach(token)
        assert get_current_span() is request
        assert not otel_context.get_value("suppress_instrumentation")


async def test_a_span_that_is_left_in_another_task_leaves_that_task_alone_and_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    system = OpenTelemetryContext(always=True)

    async def enter() -> Token[Context] | None:
        return system.attach(TraceContext(5, 6, 1), False)

    token = await asyncio.create_task(enter())
    system.detach(token)
    assert system.current() is None
    assert caplog.records == []


@pytest.mark.timing
@pytest.mark.no_cover
def test_asking_where_there_is_no_span_costs_less_than_a_microsecond(ambient: Callable[[], TraceContext | None]) -> None:
    best = min(timeit.repeat(ambient, number=2000, repeat=20)) / 2000
    assert best < 1e-6


@pytest.fixture
def instrumented_grpc() -> Iterator[None]:
    """Trace every gRPC call of this process, as auto-instrumentation does."""
    instrumentor = GrpcInstrumentorClient()  # type: ignore[no-untyped-call]  # not typed yet
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


@pytest.mark.usefixtures("instrumented_grpc")
def test_an_instrumented_grpc_leaves_our_own_calls_alone(receiver: Receiver) -> None:
    with use_span(NonRecordingSpan(SpanContext(5, 6, is_remote=False, trace_flags=TraceFlags(1)))):
        driver = Driver(OpenTelemetryExporter(endpoint=receiver.endpoint))
        assert driver.spans([span()]) is None
        driver.shutdown()
        # Other gRPC calls of the same process are traced, and send a trace context to the server.
        with grpc.insecure_channel(receiver.endpoint.removeprefix("http://")) as channel:
            TraceServiceStub(channel).Export(ExportTraceServiceRequest())  # type: ignore[no-untyped-call]  # generated code
    ours, other = receiver.metadata
    assert "traceparent" in other
    assert "traceparent" not in ours
