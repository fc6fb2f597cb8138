"""End to end: recorded in an application, exported by a pipeline, received by a real collector."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import TracerProvider

from eventcore.errors import ConfigurationError
from eventcore.exporting import TraceContext
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver, receiving
from tests.real_parts import DdapmTestAgent, Rotel, wait_until

Connect = Callable[..., Telemetry]


@pytest_asyncio.fixture
async def telemetry() -> AsyncIterator[Telemetry]:
    """A telemetry that samples every trace, exports metrics only on flush, and retries after a tenth of a second."""
    pipeline = {"interval": 3600, "span_interval": 0.05, "backoff": 0.1, "max_backoff": 0.2}
    config = {
        "telemetry": {"service_name": "shop", "traces_per_second": "all"},
        "exporters": {"enabled": [], "otel": {"pipeline": pipeline}},
    }
    async with Telemetry(config=config) as running:
        yield running


@pytest.fixture
def connect(telemetry: Telemetry) -> Connect:
    """Register an exporter for an endpoint and wait until it has started."""

    def connect(endpoint: str, **settings: object) -> Telemetry:
        exporter = OpenTelemetryExporter(endpoint=endpoint, **settings)  # type: ignore[arg-type]  # each test gives right ones
        assert telemetry.register_exporter(exporter, name="otel") == "otel"
        [pipeline] = telemetry.exporters()
        assert isinstance(pipeline, Pipeline)
        assert pipeline.started.wait(10)
        return telemetry

    return connect


@pytest.fixture(params=["rotel", "ddapm"])
def collector(request: pytest.FixtureRequest) -> Rotel | DdapmTestAgent:
    """Each real receiver."""
    part: Rotel | DdapmTestAgent = request.getfixturevalue(request.param)
    return part


async def test_what_an_application_records_arrives_at_a_collector(collector: Rotel | DdapmTestAgent, connect: Connect) -> None:
    telemetry = connect(collector.grpc_endpoint)
    orders = telemetry.counter("orders.total", unit="{order}", description="orders taken", labels=("country",))
    orders.labels("FR").add(3)
    orders.labels("DE").add(4)
    in_use = telemetry.up_down_counter("orders.active", labels=())
    in_use.labels().add(5)
    in_use.labels().add(-7)
    telemetry.gauge("stock.level", callback=lambda: 2.5)
    duration = telemetry.histogram("order.duration", unit="s", boundaries=(0.1, 1.0)).labels()
    for seconds in (0.05, 0.1, 0.5, 3.0):
        duration.record(seconds)
    report = await telemetry.flush(10)
    assert report, str(report)
    wait_until(lambda: len(collector.points()) == report["otel"].points_exported)
    totals = collector.points("orders.total")
    assert {point.attributes["country"]: point.value for point in totals} == {"FR": 3, "DE": 4}
    total = totals[0]
    assert (total.kind, total.monotonic, total.temporality) == ("sum", True, "cumulative")
    assert (total.unit, total.description) == ("{order}", "orders taken")
    assert 0 < total.start_time_ns <= total.time_ns <= time.time_ns()
    [active] = collector.points("orders.active")
    assert (active.kind, active.value, active.monotonic) == ("sum", -2, False)
    [level] = collector.points("stock.level")
    assert (level.kind, level.value) == ("gauge", 2.5)
    [durations] = collector.points("order.duration")
    assert (durations.count, durations.buckets, durations.bounds) == (4, (2, 1, 1), (0.1, 1.0))
    assert durations.sum == pytest.approx(3.65)
    assert (durations.min, durations.max) == (0.05, 3.0)
    assert durations.resource["service.name"] == "shop"
    assert durations.resource["service.instance.id"] == telemetry.resource.get("service.instance.id")


@pytest.mark.conforms("OTLP", "Cumulative points keep the start time of their series.")
async def test_totals_go_on_growing_from_cycle_to_cycle(ddapm: DdapmTestAgent, connect: Connect) -> None:
    telemetry = connect(ddapm.grpc_endpoint)
    orders = telemetry.counter("orders.total").labels()
    for expected in (1, 2, 3):
        orders.add(1)
        assert await telemetry.flush(10)
        assert [point.value for point in ddapm.points("orders.total")] == list(range(1, expected + 1))
    assert len({point.start_time_ns for point in ddapm.points("orders.total")}) == 1


async def test_many_series_arrive_to_the_last_one(collector: Rotel | DdapmTestAgent, connect: Connect) -> None:
    telemetry = connect(collector.grpc_endpoint)
    orders = telemetry.counter("orders.total", labels=("customer",))
    for number in range(1500):
        orders.labels(f"c{number}").add(number)
    report = await telemetry.flush(20)
    assert report, str(report)
    wait_until(lambda: len(collector.points()) == report["otel"].points_exported)
    assert {p.attributes["customer"]: p.value for p in collector.points("orders.total")} == {f"c{n}": n for n in range(1500)}


async def test_spans_arrive_as_the_tree_that_they_were(collector: Rotel | DdapmTestAgent, connect: Connect) -> None:
    telemetry = connect(collector.grpc_endpoint)
    cause = TraceContext(5, 6, 1)
    with telemetry.span("outer", correlation_id="c-1", attributes={"n": 1}) as outer:
        with telemetry.span("inner", kind="client", links=[cause]) as inner:
            inner.add_event("retry", {"reason": "version"})
        with pytest.raises(ValueError, match="boom"), telemetry.span("broken"):
            raise ValueError("boom")
    report = await telemetry.flush(10)
    assert report, str(report)
    wait_until(lambda: len(collector.spans()) == 3)
    found = {span.name: span for span in collector.spans()}
    assert set(found) == {"outer", "inner", "broken"}
    assert {span.trace_id for span in found.values()} == {f"{outer.context.trace_id:032x}"}
    assert found["outer"].parent_id == ""
    assert found["outer"].attributes == {"n": 1, "eventcore.correlation_id": "c-1"}
    assert found["inner"].parent_id == found["broken"].parent_id == f"{outer.context.span_id:016x}"
    assert found["inner"].kind == "client"
    assert [(link.trace_id, link.span_id) for link in found["inner"].links] == [(f"{5:032x}", f"{6:016x}")]
    assert [event.name for event in found["inner"].events] == ["retry"]
    assert (found["broken"].status, found["broken"].status_message) == ("error", "ValueError: boom")
    assert found["broken"].events[0].attributes["exception.message"] == "boom"
    assert report["otel"].spans_exported == 3


async def test_a_span_in_a_traced_request_is_the_requests_child(ddapm: DdapmTestAgent, connect: Connect) -> None:
    telemetry = connect(ddapm.grpc_endpoint)
    with TracerProvider().get_tracer("web").start_as_current_span("GET /orders") as request, telemetry.span("execute"):
        pass
    assert await telemetry.flush(10)
    [found] = ddapm.spans("execute")
    context = request.get_span_context()
    assert (found.trace_id, found.parent_id) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")


async def test_a_collector_that_is_down_makes_flush_say_so_in_time(connect: Connect) -> None:
    with receiving() as gone:
        endpoint = gone.endpoint
    telemetry = connect(endpoint)
    with telemetry.span("kept"):
        pass
    begun = time.monotonic()
    report = await telemetry.flush(2.0)
    assert time.monotonic() - begun < 2.3
    assert not report
    assert report["otel"].spans_pending == 1
    assert "UNAVAILABLE" in report["otel"].reason


async def test_pending_spans_arrive_when_the_collector_is_back(rotel: Rotel, connect: Connect) -> None:
    telemetry = connect(rotel.grpc_endpoint)
    with telemetry.span("before"):
        pass
    assert await telemetry.flush(10)
    rotel.stop()
    for number in range(3):
        with telemetry.span(f"during {number}"):
            pass
    assert not await telemetry.flush(1.0)
    rotel.start()
    back = time.monotonic()
    wait_until(lambda: len(rotel.spans()) >= 4, 10)
    assert time.monotonic() - back < 6
    assert sorted(span.name for span in rotel.spans()) == ["before", "during 0", "during 1", "during 2"]
    report = await telemetry.flush(5)
    assert (report["otel"].spans_recorded, report["otel"].spans_exported) == (4, 4)


async def test_what_a_receiver_refuses_is_counted_and_reported(receiver: Receiver, connect: Connect) -> None:
    telemetry = connect(receiver.endpoint)
    receiver.answers.append(receiver.refuse(2, "too old"))
    for _ in range(5):
        with telemetry.span("s"):
            pass
    report = await telemetry.flush(10)
    assert not report
    assert "too old" in report["otel"].reason
    assert (report["otel"].spans_exported, report["otel"].spans_dropped["rejected"]) == (3, 2)


async def test_a_rejected_call_is_counted_as_a_drop_of_everything_in_it(receiver: Receiver, connect: Connect) -> None:
    telemetry = connect(receiver.endpoint, headers={"authorization": "s3cr3t"})
    receiver.answers.append(receiver.fail(grpc.StatusCode.UNAUTHENTICATED, "no such token: s3cr3t"))
    with telemetry.span("s"):
        pass
    report = await telemetry.flush(10)
    assert report["otel"].spans_dropped["rejected"] == 1
    assert "UNAUTHENTICATED: no such token: ***" in report["otel"].reason


@pytest.mark.conforms("OTLP", "The delay of `RetryInfo` is followed.")
async def test_a_hint_when_to_come_back_is_followed(receiver: Receiver, connect: Connect) -> None:
    telemetry = connect(receiver.endpoint)
    receiver.answers.append(receiver.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", retry_after=0.1))
    with telemetry.span("s"):
        pass
    wait_until(lambda: len(receiver.spans()) == 1)
    report = await telemetry.flush(10)
    assert (report["otel"].spans_exported, report["otel"].spans_recorded) == (1, 1)


async def test_shutdown_during_a_hanging_call_returns_in_time_and_says_what_is_unknown(
    receiver: Receiver, connect: Connect
) -> None:
    telemetry = connect(receiver.endpoint)
    receiver.answers.extend([receiver.hang()] * 20)
    with telemetry.span("s"):
        pass
    wait_until(lambda: receiver.calls > 0)
    begun = time.monotonic()
    report = await telemetry.shutdown(1.5)
    assert time.monotonic() - begun < 2.0
    assert not report
    found = report["otel"]
    assert (found.spans_recorded, found.spans_exported, found.spans_unknown, found.spans_pending) == (1, 0, 1, 0)
    assert sum(found.spans_dropped.values()) == 0


async def test_an_unregistered_exporter_delivers_what_it_has_first(receiver: Receiver, connect: Connect) -> None:
    telemetry = connect(receiver.endpoint)
    telemetry.counter("orders.total").labels().add(7)
    with telemetry.span("last"):
        pass
    report = await telemetry.unregister_exporter("otel", 5.0)
    assert report.delivered, str(report)
    assert [span.name for span in receiver.spans()] == ["last"]
    assert [metric.sum.data_points[0].as_int for metric in receiver.metrics() if metric.name == "orders.total"] == [7]


async def test_configuration_and_environment_make_the_exporter_through_its_entry_point(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTCORE_EXPORTERS__OTEL__HEADERS", '{ authorization = "s3cr3t" }')
    monkeypatch.setenv("EVENTCORE_EXPORTERS__OTEL__TIMEOUT", "2.5")
    settings = {"endpoint": receiver.endpoint, "compression": "gzip", "resource_attributes": {"replicas": 3, "team": "a"}}
    async with Telemetry(config={"exporters": {"enabled": ["otel"], "otel": settings}}) as telemetry:
        telemetry.counter("orders.total").labels().add(1)
        assert await telemetry.flush(10)
    assert receiver.metadata[0]["authorization"] == "s3cr3t"
    assert (receiver.resources()[0]["replicas"], receiver.resources()[0]["team"]) == (3, "a")


async def test_an_exporter_that_refuses_its_settings_says_all_that_is_wrong_and_no_secret() -> None:
    settings = {"endpoint": "http://collector:4318/v1/traces", "headers": {"authorization": "s3cr3t\n"}}
    with pytest.raises(ConfigurationError) as raised:
        async with Telemetry(config={"exporters": {"enabled": ["otel"], "otel": settings}}):
            pass
    [fault] = raised.value.faults
    assert (fault.where, fault.key) == ("arguments", "exporters.otel")
    assert "gRPC takes no path" in fault.problem
    assert "the value of 'authorization' has characters" in fault.problem
    assert "s3cr3t" not in str(raised.value)
