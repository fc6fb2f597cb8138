"""Exporters of OpenTelemetry's SDK: named, found through entry points, or given as objects; and what they do wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry import context as otel_context
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eventcore.errors import ConfigurationError
from eventcore.exporting import Exemplar, Rejected, Resource, Scope, SpanEvent, SpanLink, TraceContext
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_otel import OpenTelemetryExporter
from tests.otel.conftest import Drive
from tests.otel.values import NOW, START, counter, gauge, histogram, span
from tests.real_parts import DdapmTestAgent, wait_until

RESOURCE = Resource((("service.name", "shop"), ("replicas", 3)))
RICH_SPAN = span(
    name="append events",
    kind="client",
    context=TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0xDEF, 1, "vendor=1"),
    parent_span_id=0x77,
    parent_is_remote=True,
    attributes=(("n", 3), ("ratio", 0.5), ("on", True), ("names", ("x", "y"))),
    events=(SpanEvent("retry", START + 5, (("reason", "version"),), 2),),
    links=(SpanLink(TraceContext(5, 6, 1, "z=1"), (("why", "cause"),), 1),),
    status="error",
    status_description="boom",
    correlation_id="c-1",
    dropped_attributes=4,
    dropped_events=5,
    dropped_links=6,
    scope=Scope("shop.orders", "1.2", "https://example.com/schema"),
)


class Metrics(MetricExporter):
    """Keeps what it gets, and answers as it is told."""

    def __init__(self, answer: object = MetricExportResult.SUCCESS, **preferences: Any) -> None:
        super().__init__(**preferences)
        self.answer = answer
        self.got: list[MetricsData] = []
        self.timeouts: list[float] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10000, **_: Any) -> Any:
        self.got.append(metrics_data)
        self.timeouts.append(timeout_millis)
        return self.answer

    def force_flush(self, timeout_millis: float = 10000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30000, **_: Any) -> None:
        pass

    def by_name(self) -> dict[str, Any]:
        [data] = self.got
        [resource] = data.resource_metrics
        return {metric.name: metric.data for scope in resource.scope_metrics for metric in scope.metrics}


class Spans(SpanExporter):
    """Answers, or raises, what it is told."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.got: list[list[str]] = []

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        self.got.append([each.name for each in spans])
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.mark.conforms("SDK", "A span exporter gets spans with context, parent, resource, scope, and dropped counts.")
def test_a_span_exporter_gets_the_sdks_own_class_with_every_field(drive: Drive) -> None:
    exporter = InMemorySpanExporter()
    drive(RESOURCE, span_exporter=exporter, metric_exporter="none").spans([RICH_SPAN])
    [found] = exporter.get_finished_spans()
    context = found.get_span_context()
    assert context is not None
    assert (context.trace_id, context.span_id, context.trace_flags) == (RICH_SPAN.context.trace_id, 0xDEF, 1)
    assert context.trace_state.to_header() == "vendor=1"
    assert found.parent is not None
    assert (found.parent.span_id, found.parent.is_remote) == (0x77, True)
    assert (found.name, found.kind.name, found.start_time, found.end_time) == ("append events", "CLIENT", START, NOW)
    assert found.attributes == {"n": 3, "ratio": 0.5, "on": True, "names": ("x", "y"), "eventcore.correlation_id": "c-1"}
    assert (found.status.status_code.name, found.status.description) == ("ERROR", "boom")
    assert (found.dropped_attributes, found.dropped_events, found.dropped_links) == (4, 5, 6)
    [event], [link] = found.events, found.links
    assert (event.name, event.timestamp, event.attributes, event.dropped_attributes) == (
        "retry",
        START + 5,
        {"reason": "version"},
        2,
    )
    assert (link.context.span_id, link.attributes, link.dropped_attributes) == (6, {"why": "cause"}, 1)
    assert found.resource.attributes["replicas"] == 3
    scope = found.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version, scope.schema_url) == ("shop.orders", "1.2", "https://example.com/schema")
    assert json.loads(found.to_json())["name"] == "append events"


@pytest.mark.conforms("SDK", "A metric exporter gets sums, gauges and histograms, with temporality and exemplars.")
def test_a_metric_exporter_gets_the_sdks_own_classes_with_every_value(drive: Drive) -> None:
    exporter = Metrics()
    driver = drive(RESOURCE, metric_exporter=exporter, span_exporter="none")
    exemplar = (Exemplar(0.5, NOW - 5, 7, 8),)
    timed = histogram("duration")
    timed = replace(timed, points=(replace(timed.points[0], exemplars=exemplar),))
    driver.metrics(
        [counter("orders.total", {"a": 3})],
        [counter("orders.total", {"b": 2.5})],
        [gauge("lag", -1.5), gauge("active", -2, additive=True)],
        [timed],
        timeout=5.0,
    )
    found = exporter.by_name()
    assert {name: type(data).__name__ for name, data in found.items()} == {
        "orders.total": "Sum",
        "lag": "Gauge",
        "active": "Sum",
        "duration": "Histogram",
    }
    total, active, duration = found["orders.total"], found["active"], found["duration"]
    assert {point.attributes["kind"]: point.value for point in total.data_points} == {"a": 3, "b": 2.5}
    assert (total.is_monotonic, total.aggregation_temporality) == (True, AggregationTemporality.CUMULATIVE)
    assert (active.is_monotonic, active.data_points[0].value) == (False, -2)
    [point] = duration.data_points
    assert (point.count, point.sum, point.min, point.max) == (6, 7.5, 0.01, 5.0)
    assert (point.explicit_bounds, point.bucket_counts) == ((0.1, 1.0), (1, 2, 3))
    assert (point.start_time_unix_nano, point.time_unix_nano) == (START, NOW)
    [shown] = point.exemplars
    assert (shown.value, shown.trace_id, shown.span_id) == (0.5, 7, 8)
    assert 0 < exporter.timeouts[0] <= 5000
    assert json.loads(exporter.got[0].to_json())


@pytest.mark.parametrize("signal", ["spans", "metrics"])
def test_what_arrives_by_the_sdks_exporter_is_what_arrives_by_our_own(
    signal: str, ddapm: DdapmTestAgent, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arrived(**settings: Any) -> list[Any]:
        ddapm.clear()
        driver = drive(RESOURCE, **settings)
        if signal == "spans":
            # The SDK's encoder leaves out the tracestate of a link.
            link = SpanLink(TraceContext(5, 6, 1), (("why", "cause"),))
            driver.spans([replace(RICH_SPAN, scope=span().scope, links=(link,)), span(2, status="ok")])
            return sorted(wait_until(ddapm.spans), key=lambda each: each.span_id)
        driver.metrics(
            [counter("orders.total", {"a": 3, "b": 2.5})],
            [gauge("lag", -1.5), gauge("active", -2, additive=True)],
            [histogram("duration")],
        )
        return sorted(wait_until(ddapm.points), key=lambda each: (each.name, str(each.attributes)))

    own = arrived(endpoint=ddapm.grpc_endpoint)
    assert len(own) == (2 if signal == "spans" else 5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ddapm.http_endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP")
    assert arrived() == own
    monkeypatch.undo()
    assert arrived(endpoint=ddapm.http_endpoint, protocol="http/protobuf") == own


@pytest.mark.once
def test_the_console_of_the_sdk_is_found_by_its_variables() -> None:
    program = """
import asyncio
from eventcore import Telemetry

async def main():
    async with Telemetry(exporters=["otel"], traces_per_second="all") as telemetry:
        telemetry.counter("orders.shipped").add(3)
        with telemetry.span("ship order"):
            pass

asyncio.run(main())
"""
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"name": "ship order"' in done.stdout
    assert '"name": "orders.shipped"' in done.stdout


@pytest.fixture
def zipkin(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A server in place of Zipkin, which cannot be had here; the spans that it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that `http.server` calls
            received.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        monkeypatch.setenv("OTEL_EXPORTER_ZIPKIN_ENDPOINT", f"http://127.0.0.1:{server.server_port}/api/v2/spans")
        yield received
        server.shutdown()
        serving.join(5)


@pytest.mark.conforms("SDK", "Exporters are found by their names in the entry-point groups.")
def test_spans_go_to_zipkin_by_the_exporter_of_another_distribution(zipkin: list[dict[str, Any]], drive: Drive) -> None:
    drive(RESOURCE, span_exporter="zipkin_json", metric_exporter="none").spans([RICH_SPAN])
    [found] = zipkin
    assert found["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (found["id"], found["parentId"]) == ("0000000000000def", "0000000000000077")
    assert (found["name"], found["kind"]) == ("append events", "CLIENT")
    assert found["localEndpoint"]["serviceName"] == "shop"
    assert found["tags"]["otel.dropped_attributes_count"] == "4"


@pytest.mark.conforms("Metrics", "A metric exporter gets the temporality that it prefers.")
@pytest.mark.parametrize(
    ("preferred", "temporality"),
    [
        ({}, "cumulative"),
        ({Histogram: AggregationTemporality.DELTA}, "cumulative"),
        ({Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}, "lowmemory"),
        ({Counter: AggregationTemporality.DELTA, ObservableCounter: AggregationTemporality.DELTA}, "delta"),
    ],
)
def test_an_exporter_gets_the_temporality_that_it_prefers(preferred: Mapping[Any, Any], temporality: str) -> None:
    exporter = OpenTelemetryExporter(metric_exporter=Metrics(preferred_temporality=dict(preferred)))
    assert exporter.temporality == temporality
    assert OpenTelemetryExporter(metric_exporter=Metrics(), temporality="delta").temporality == "delta"


@pytest.mark.conforms("SDK", "A batch for which an exporter answers `FAILURE` is not sent again.")
def test_what_an_exporter_says_it_has_not_delivered_is_rejected(drive: Drive) -> None:
    driver = drive(span_exporter=Spans(SpanExportResult.FAILURE, None, "yes"), metric_exporter=Metrics(answer=None))
    assert driver.spans([span(), span(2)]) == Rejected(2, "Spans.export answered FAILURE; its own log says why")
    assert driver.spans([span()]) == Rejected(1, "Spans.export returned a NoneType; expected SUCCESS or FAILURE")
    assert driver.spans([span()]) == Rejected(1, "Spans.export returned a str; expected SUCCESS or FAILURE")
    answer = driver.metrics([counter("orders.total", {"a": 3, "b": 4})])
    assert answer == Rejected(2, "Metrics.export returned a NoneType; expected SUCCESS or FAILURE")


def test_what_an_exporter_raises_is_raised_and_the_spans_are_given_to_it_again(drive: Drive) -> None:
    exporter = Spans(ConnectionError("down"))
    driver = drive(span_exporter=exporter, metric_exporter="none")
    with pytest.raises(ConnectionError, match="down"):
        driver.spans([span()])
    assert driver.spans([span()]) is None
    assert exporter.got == [["span 1"], ["span 1"]]


@pytest.mark.conforms("SDK", "What exporters send is not traced.")
def test_instrumented_libraries_do_not_trace_what_an_exporter_sends(drive: Drive) -> None:
    suppressed: list[object] = []

    class Looks(Spans):
        def export(self, spans: Sequence[ReadableSpan]) -> Any:
            suppressed.append(otel_context.get_value("suppress_instrumentation"))
            return SpanExportResult.SUCCESS

    drive(span_exporter=Looks(), metric_exporter="none").spans([span()])
    assert suppressed == [True]
    assert otel_context.get_value("suppress_instrumentation") is None


@pytest.mark.conforms("SDK", "An exporter that hangs delays nobody else.")
@pytest.mark.once
async def test_an_exporter_of_the_sdk_that_hangs_harms_neither_its_sibling_nor_the_application() -> None:
    released = threading.Event()

    class Hangs(Spans):
        def export(self, spans: Sequence[ReadableSpan]) -> Any:
            released.wait(30)
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            released.wait(30)

    sibling = InMemorySpanExporter()
    hanging = OpenTelemetryExporter(span_exporter=Hangs(), metric_exporter="none")
    working = OpenTelemetryExporter(span_exporter=sibling, metric_exporter="none")
    telemetry = Telemetry(
        exporters=[], traces_per_second="all", config={"exporters": {"hangs": {"pipeline": {"export_timeout": 0.2}}}}
    )
    await telemetry.start()
    try:
        telemetry.register_exporter(hanging, name="hangs")
        telemetry.register_exporter(working, name="works")
        with telemetry.span("ship order"):
            pass
        begun = time.monotonic()
        report = await telemetry.flush(1.0)
        assert time.monotonic() - begun < 5
        assert (report["hangs"].delivered, report["works"].delivered) == (False, True)
        assert [each.name for each in sibling.get_finished_spans()] == ["ship order"]
    finally:
        report = await telemetry.shutdown(1.0)
        released.set()
    assert report["hangs"].spans_unknown == 1
    assert report["works"].spans_exported == 1


async def test_metrics_of_the_store_are_the_same_in_the_sdks_classes() -> None:
    exporter = Metrics()
    telemetry = Telemetry(exporters=[])
    await telemetry.start()
    telemetry.register_exporter(OpenTelemetryExporter(metric_exporter=exporter, span_exporter="none"))
    telemetry.counter("orders.shipped", labels=("country",)).labels("FR").add(2)
    telemetry.up_down_counter("orders.active").add(-3)
    assert await telemetry.shutdown(5.0)
    found = exporter.by_name()
    assert found["orders.shipped"].data_points[0].attributes == {"country": "FR"}
    assert (found["orders.active"].is_monotonic, found["orders.active"].data_points[0].value) == (False, -3)


def test_a_reader_of_the_sdk_is_not_an_exporter() -> None:
    with pytest.raises(ValueError, match="metric_exporter: expected an exporter of OpenTelemetry's SDK"):
        OpenTelemetryExporter(metric_exporter=InMemoryMetricReader())  # type: ignore[arg-type]  # what is tested


def test_using_only_our_own_exporter_loads_neither_requests_nor_the_sdks_exporters() -> None:
    code = (
        "import sys, logging, tests.otel.values as v; from eventcore_otel import OpenTelemetryExporter;"
        "v.Driver(OpenTelemetryExporter(endpoint='http://localhost:1')).shutdown();"
        "print([m for m in ('requests', 'opentelemetry.exporter', 'opentelemetry.sdk.trace') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"


def test_both_exporters_are_shut_down_once_also_where_one_raises(drive: Drive) -> None:
    ended: list[str] = []

    class EndedSpans(Spans):
        def shutdown(self) -> None:
            ended.append("spans")
            raise ConnectionError("gone")

    class EndedMetrics(Metrics):
        def shutdown(self, timeout_millis: float = 30000, **_: Any) -> None:
            ended.append("metrics")
            raise ConnectionError("gone")

    driver = drive(span_exporter=EndedSpans(), metric_exporter=EndedMetrics())
    with pytest.raises(ConnectionError):
        driver.shutdown()
    driver.shutdown()
    assert sorted(ended) == ["metrics", "spans"]


async def test_configuration_names_an_exporter_of_the_sdk() -> None:
    settings = {"span_exporter": "console", "metric_exporter": "none", "activate": "never", "trace_own_io": True}
    async with Telemetry(config={"exporters": {"enabled": ["otel"], "otel": settings}}) as telemetry:
        [pipeline] = telemetry.exporters()
        assert isinstance(pipeline, Pipeline)
        assert (pipeline.signals, pipeline.settings.span_batch) == (("spans",), 512)
    with pytest.raises(ConfigurationError, match="span_exporter='jaeger': expected an installed exporter"):
        async with Telemetry(config={"exporters": {"enabled": ["otel"], "otel": {"span_exporter": "jaeger"}}}):
            pass
