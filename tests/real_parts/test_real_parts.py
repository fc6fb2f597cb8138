"""The real parts give back exactly what was sent to them."""

import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Status

from tests.real_parts import DdapmTestAgent, PromtoolResult, ReceivedPoint, ReceivedSpan, Rotel, Sample, find_part, wait_until
from tests.real_parts.finding import PartMissing
from tests.real_parts.fixtures import StartPrometheus
from tests.real_parts.received import Attributes, ReceivedEvent, ReceivedLink

NOW = time.time_ns()
PAGE = b'# HELP doors_total Doors.\n# TYPE doors_total counter\ndoors_total{side="left"} 3\ndoors_total{side="right"} 4\n'
RESOURCE: Attributes = {"service.name": "shop", "n": 3, "list": ("a", "b")}


def _pair(key: str, value: object) -> KeyValue:
    match value:
        case bool():
            return KeyValue(key=key, value=AnyValue(bool_value=value))
        case int():
            return KeyValue(key=key, value=AnyValue(int_value=value))
        case float():
            return KeyValue(key=key, value=AnyValue(double_value=value))
        case tuple():
            pair = KeyValue(key=key)
            pair.value.array_value.values.extend(AnyValue(string_value=item) for item in value)
            return pair
        case _:
            return KeyValue(key=key, value=AnyValue(string_value=str(value)))


def _metrics() -> ExportMetricsServiceRequest:
    block = ResourceMetrics()
    block.resource.attributes.extend(_pair(key, value) for key, value in RESOURCE.items())
    group = block.scope_metrics.add(scope=InstrumentationScope(name="tests", version="1"))
    counter = group.metrics.add(name="doors", unit="{door}", description="Doors")
    counter.sum.is_monotonic = True
    counter.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    for side, count in (("left", 3), ("right", 4)):
        counter.sum.data_points.add(
            as_int=count, time_unix_nano=NOW, start_time_unix_nano=NOW - 5, attributes=[_pair("side", side)]
        )
    group.metrics.add(name="heat", unit="Cel").gauge.data_points.add(as_double=-1.5, time_unix_nano=NOW)
    timer = group.metrics.add(name="wait", unit="s")
    timer.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    timer.histogram.data_points.add(
        count=6, sum=7.5, min=0.25, max=5.5, explicit_bounds=[0.5, 2.5], bucket_counts=[1, 2, 3], time_unix_nano=NOW
    )
    return ExportMetricsServiceRequest(resource_metrics=[block])


def _traces() -> ExportTraceServiceRequest:
    block = ResourceSpans()
    block.resource.attributes.extend(_pair(key, value) for key, value in RESOURCE.items())
    group = block.scope_spans.add(scope=InstrumentationScope(name="tests", version="1"))
    ids = {"trace_id": (0xABC).to_bytes(16, "big"), "trace_state": "a=b,c=d"}
    group.spans.add(
        name="root", span_id=b"12345678", start_time_unix_nano=NOW, end_time_unix_nano=NOW + 9, kind="SPAN_KIND_SERVER", **ids
    )
    child = group.spans.add(name="child", span_id=b"abcdefgh", parent_span_id=b"12345678", kind="SPAN_KIND_INTERNAL", **ids)
    child.attributes.extend([_pair("text", "a: b"), _pair("whole", 7), _pair("part", 0.5), _pair("yes", True)])
    child.events.add(name="retry", time_unix_nano=NOW, attributes=[_pair("reason", "version")])
    child.links.add(
        trace_id=(5).to_bytes(16, "big"), span_id=(6).to_bytes(8, "big"), trace_state="z=1", attributes=[_pair("l", 1)]
    )
    child.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="boom"))
    return ExportTraceServiceRequest(resource_spans=[block])


def _send(endpoint: str) -> None:
    with grpc.insecure_channel(endpoint.removeprefix("http://")) as channel:
        metrics = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code has no types
        traces = TraceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code has no types
        metrics.Export(_metrics(), timeout=5)
        traces.Export(_traces(), timeout=5)


def _point(name: str, kind: str, unit: str, **rest: object) -> ReceivedPoint:
    plain: dict[str, object] = {"description": "", "attributes": {}, "time_ns": NOW, "start_time_ns": 0, **rest}
    return ReceivedPoint(name=name, kind=kind, unit=unit, resource=RESOURCE, scope="tests 1", **plain)  # type: ignore[arg-type]  # a test's shorthand


POINTS = [
    *(
        _point(
            "doors",
            "sum",
            "{door}",
            description="Doors",
            attributes={"side": side},
            start_time_ns=NOW - 5,
            monotonic=True,
            temporality="cumulative",
            value=count,
        )
        for side, count in (("left", 3), ("right", 4))
    ),
    _point("heat", "gauge", "Cel", value=-1.5),
    _point(
        "wait",
        "histogram",
        "s",
        temporality="cumulative",
        count=6,
        sum=7.5,
        min=0.25,
        max=5.5,
        bounds=(0.5, 2.5),
        buckets=(1, 2, 3),
    ),
]
TRACE_ID = f"{0xABC:032x}"
SPANS = [
    ReceivedSpan(
        "root", "server", TRACE_ID, b"12345678".hex(), "", "a=b,c=d", NOW, NOW + 9, "unset", "", {}, RESOURCE, "tests 1"
    ),
    ReceivedSpan(
        name="child",
        kind="internal",
        trace_id=TRACE_ID,
        span_id=b"abcdefgh".hex(),
        parent_id=b"12345678".hex(),
        tracestate="a=b,c=d",
        start_time_ns=0,
        end_time_ns=0,
        status="error",
        status_message="boom",
        attributes={"text": "a: b", "whole": 7, "part": 0.5, "yes": True},
        resource=RESOURCE,
        scope="tests 1",
        events=(ReceivedEvent("retry", NOW, {"reason": "version"}),),
        links=(ReceivedLink(f"{5:032x}", f"{6:016x}", "z=1", {"l": 1}),),
    ),
]


def test_the_collector_shows_every_value_that_was_sent(rotel: Rotel) -> None:
    _send(rotel.grpc_endpoint)
    wait_until(lambda: rotel.points("wait") and rotel.spans("child") and rotel.spans("child")[0].links)
    assert rotel.points() == POINTS
    assert rotel.spans() == SPANS


def test_the_collector_comes_back_at_the_same_address(rotel: Rotel) -> None:
    rotel.stop()
    with pytest.raises(grpc.RpcError):
        _send(rotel.grpc_endpoint)
    rotel.start()
    _send(rotel.grpc_endpoint)
    wait_until(lambda: rotel.points("doors"))


def test_the_agent_returns_every_value_that_was_sent(ddapm: DdapmTestAgent) -> None:
    _send(ddapm.grpc_endpoint)
    assert ddapm.points() == POINTS
    assert ddapm.spans() == SPANS
    ddapm.clear()
    assert (ddapm.metrics(), ddapm.traces()) == ([], [])


@pytest.fixture
def page() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden method's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_prometheus_returns_what_it_scraped(prometheus_server: StartPrometheus, page: str) -> None:
    server = prometheus_server(page)
    server.wait_until_up()
    assert server.value("sum(doors_total)") == 7
    assert server.query('doors_total{side="left"}') == [Sample({"__name__": "doors_total", "side": "left"}, 3.0)]
    with pytest.raises(AssertionError, match="parse error"):
        server.query("sum(")


def test_promtool_accepts_a_good_page_and_complains_of_a_bad_one(
    promtool_check: Callable[[str | bytes], PromtoolResult],
) -> None:
    assert promtool_check(PAGE).ok
    unlinted = promtool_check(PAGE.replace(b"doors_total", b"doors"))
    assert unlinted.returncode == 3
    assert "_total" in unlinted.output
    assert promtool_check("doors{").returncode == 1


def test_a_part_that_a_variable_names_wrongly_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTCORE_ROTEL", "/nowhere/rotel-agent")
    with pytest.raises(PartMissing, match=r"rotel \(EVENTCORE_ROTEL=/nowhere/rotel-agent\) is missing: run `python"):
        find_part("rotel")
