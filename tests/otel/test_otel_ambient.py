"""The current OpenTelemetry span, and the exporter's calls when gRPC is instrumented."""

from __future__ import annotations

import asyncio
import logging
import timeit
from collections.abc import Callable, Iterator
from contextvars import Token
from typing import Any, ClassVar

import grpc
import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, get_current_span, use_span

from eventcore import Command, Event, EventStore, StreamId, open_store
from eventcore.exporting import TraceContext
from eventcore.logs import TraceContextFilter, add_trace_context
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

    async def enter() -> Token[Context]:
        return system.attach(TraceContext(5, 6, 1), False)

    token = await asyncio.create_task(enter())
    system.detach(token)
    assert system.current() is None
    assert caplog.records == []


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """A provider that is set for the whole process, as auto-instrumentation does."""
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider


def current_id() -> int:
    return get_current_span().get_span_context().span_id


def test_where_opentelemetry_is_not_in_use_nothing_is_attached() -> None:
    assert not OpenTelemetryContext().in_use()
    assert OpenTelemetryContext(always=True).in_use()


@pytest.mark.usefixtures("provider")
def test_a_provider_for_the_whole_process_says_that_opentelemetry_is_in_use() -> None:
    assert OpenTelemetryContext().in_use()


def test_baggage_that_is_current_says_that_opentelemetry_is_in_use() -> None:
    outer = otel_context.attach(baggage.set_baggage("tenant", "a"))
    system = OpenTelemetryContext()
    assert system.in_use()
    token = system.attach(TraceContext(5, 6, 1), own_io=False)
    assert (current_id(), baggage.get_baggage("tenant")) == (6, "a")
    system.detach(token)
    otel_context.detach(outer)


def test_when_it_is_never_activated_eventcores_spans_still_have_parents_there() -> None:
    found = OpenTelemetryExporter(activate="never").ambient_context()
    assert callable(found)
    with TracerProvider().get_tracer("application").start_as_current_span("request") as request:
        parent = found()
        assert parent is not None
        assert parent.span_id == request.get_span_context().span_id


def test_an_activation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="activate='sometimes': expected 'auto', 'always' or 'never'"):
        OpenTelemetryExporter(activate="sometimes")  # type: ignore[arg-type]  # what is tested


def test_the_application_is_traced_within_the_stores_own_calls_and_these_are_not() -> None:
    system = OpenTelemetryContext(always=True)
    outer = system.attach(TraceContext(5, 6, 1), own_io=True)
    assert not is_instrumentation_enabled()
    inner = system.attach(TraceContext(5, 7, 1), own_io=False)
    assert is_instrumentation_enabled()
    assert current_id() == 7
    system.detach(inner)
    assert not is_instrumentation_enabled()
    system.detach(outer)
    assert is_instrumentation_enabled()


def test_what_the_application_suppresses_stays_suppressed() -> None:
    system = OpenTelemetryContext(always=True)
    with suppress_instrumentation():
        outer = system.attach(TraceContext(5, 6, 1), own_io=True)
        inner = system.attach(TraceContext(5, 7, 1), own_io=False)
        assert not is_instrumentation_enabled()
        system.detach(inner)
        system.detach(outer)


def test_own_calls_without_a_span_leave_the_current_span_as_it_is() -> None:
    system = OpenTelemetryContext()
    with TracerProvider().get_tracer("application").start_as_current_span("request") as request:
        token = system.attach(TraceContext(0, 0), own_io=True)
        assert get_current_span() is request
        assert not is_instrumentation_enabled()
        system.detach(token)


def test_own_calls_can_be_traced_by_the_driver_too() -> None:
    system = OpenTelemetryContext(always=True, trace_own_io=True)
    token = system.attach(TraceContext(5, 6, 1), own_io=True)
    assert is_instrumentation_enabled()
    assert current_id() == 6
    system.detach(token)


class Look(Command[None]):
    """Looks at OpenTelemetry's current span in ``handle``, and begins a span of the SDK there."""

    account: StreamId
    seen: ClassVar[list[dict[str, str]]] = []

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        self.seen.append(headers)
        with trace.get_tracer("application").start_as_current_span("decide"):
            yield from ()


async def connected(store: EventStore) -> None:
    """Wait until the exporter has started, and the store knows the current span of OpenTelemetry."""
    async with asyncio.timeout(10):
        with use_span(NonRecordingSpan(SpanContext(7, 8, is_remote=True))):
            while store.telemetry.current_context() is None:
                await asyncio.sleep(0.01)


@pytest.mark.conforms("Traces", "The current span is propagated through the context, with its sampling decision.")
@pytest.mark.parametrize("sampled", [True, False])
async def test_spans_of_the_sdk_inside_a_command_are_its_children_and_as_sampled_as_their_parent(
    sampled: bool, provider: TracerProvider
) -> None:
    theirs, ours = InMemorySpanExporter(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    Look.seen.clear()
    async with open_store("memory:", exporters=[]) as store:
        name = store.register_exporter(OpenTelemetryExporter(span_exporter=ours, metric_exporter="none"))
        await connected(store)
        remote = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(int(sampled)))
        with use_span(NonRecordingSpan(remote)), trace.get_tracer("application").start_as_current_span("request") as request:
            await store.execute(Look(account=StreamId("account-1")))
            await store.telemetry.flush(5)
    [headers] = Look.seen
    assert headers["traceparent"].startswith(f"00-{5:032x}-")
    assert headers["traceparent"].endswith("-01" if sampled else "-00")
    if not sampled:
        assert (theirs.get_finished_spans(), ours.get_finished_spans(), name) == ((), (), "otel")
        return
    [decide, _] = theirs.get_finished_spans()
    [execute] = [span for span in ours.get_finished_spans() if span.name == "execute Look"]
    assert execute.context is not None
    assert decide.parent is not None
    assert execute.parent is not None
    assert headers["traceparent"].split("-")[2] == f"{execute.context.span_id:016x}"
    assert decide.parent.span_id == execute.context.span_id
    assert execute.parent.span_id == request.get_span_context().span_id


class LogInTheirSpan(Command[None]):
    """Logs in a span of the SDK and, around it, in the command's own."""

    account: StreamId

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        logging.getLogger("tests.ambient").warning("command")
        with trace.get_tracer("application").start_as_current_span("decide"):
            logging.getLogger("tests.ambient").warning("decide")
        yield from ()


@pytest.mark.parametrize("given", [True, False])
async def test_a_log_line_names_the_innermost_span_of_both_systems(
    given: bool, provider: TracerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, ours = InMemorySpanExporter(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    logger = logging.getLogger("tests.ambient")
    async with open_store("memory:", exporters=[]) as store:
        store.register_exporter(OpenTelemetryExporter(span_exporter=ours, metric_exporter="none"))
        await connected(store)
        telemetry = store.telemetry if given else None
        caplog.handler.addFilter(fields := TraceContextFilter(telemetry))
        try:
            with trace.get_tracer("application").start_as_current_span("request"):
                logger.warning("request")
                line = add_trace_context(None, "info", {}, telemetry=telemetry)
                await store.execute(LogInTheirSpan(account=StreamId("account-1")))
                with store.telemetry.span("ours"):
                    logger.warning("ours")
                    with trace.get_tracer("application").start_as_current_span("theirs"):
                        logger.warning("theirs")
                        with store.telemetry.span("ours again"):
                            logger.warning("ours again")
            logger.warning("outside")
        finally:
            caplog.handler.removeFilter(fields)
        await store.telemetry.flush(5)
    ids: dict[str, Any] = {"outside": ""}
    for ended in (*theirs.get_finished_spans(), *ours.get_finished_spans()):
        assert ended.context is not None
        ids[ended.name.removeprefix("execute ")] = f"{ended.context.span_id:016x}"
    ids["command"] = ids["LogInTheirSpan"]
    if not given:
        # Outside of eventcore's spans, nothing says whose telemetry to ask.
        assert line == {}
        ids["request"] = ""
    else:
        assert line["span_id"] == ids["request"]
    logged = {record.getMessage(): vars(record) for record in caplog.records if record.name == logger.name}
    assert {name: fields["span_id"] for name, fields in logged.items()} == {name: ids[name] for name in logged}
    assert list(logged) == ["request", "command", "decide", "ours", "theirs", "ours again", "outside"]
    assert len({fields["trace_id"] for fields in logged.values() if fields["span_id"]}) == 1


@pytest.mark.timing
@pytest.mark.no_cover
def test_asking_where_there_is_no_span_costs_less_than_a_microsecond(ambient: Callable[[], TraceContext | None]) -> None:
    best = min(timeit.repeat(ambient, number=2000, repeat=20)) / 2000
    assert best < 1e-6


@pytest.mark.timing
@pytest.mark.no_cover
@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("own_io", [False, True])
def test_making_a_span_current_and_undoing_it_costs_less_than_two_microseconds(own_io: bool) -> None:
    system, context = OpenTelemetryContext(), TraceContext(5, 6, 1)

    def around() -> None:
        system.detach(system.attach(context, own_io))

    assert min(timeit.repeat(around, number=2000, repeat=50)) / 2000 < 2e-6


@pytest.mark.timing
@pytest.mark.no_cover
def test_where_opentelemetry_is_not_in_use_finding_this_out_costs_a_quarter_of_a_microsecond() -> None:
    best = min(timeit.repeat(OpenTelemetryContext().in_use, number=2000, repeat=20)) / 2000
    assert best < 0.25e-6


@pytest.fixture
def instrumented_grpc() -> Iterator[None]:
    """Trace every gRPC call of this process, as auto-instrumentation does."""
    instrumentor = GrpcInstrumentorClient()  # type: ignore[no-untyped-call]  # not typed yet
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


@pytest.mark.conforms("SDK", "What exporters send is not traced.")
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
