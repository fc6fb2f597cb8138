"""The OpenTelemetry Collector and Jaeger get what the exporter sends: values, flags, exemplars, scopes and temporality."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from eventcore.exporting import Exemplar, HistogramPoint, Scope, SpanLink, TraceContext
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_otel import OpenTelemetryExporter
from tests.otel.values import NOW, Driver, counter, gauge, histogram, span
from tests.real_parts import Collector, Jaeger, wait_until

Drive = Callable[..., Driver]


@pytest_asyncio.fixture
async def telemetry() -> Any:
    config = {"telemetry": {"traces_per_second": "all"}, "exporters": {"enabled": [], "otel": {"pipeline": {"interval": 3600}}}}
    async with Telemetry(config=config) as running:
        yield running


def connected(telemetry: Telemetry, endpoint: str, temporality: str) -> Telemetry:
    exporter = OpenTelemetryExporter(endpoint=endpoint, temporality=temporality)  # type: ignore[arg-type]  # each test gives right ones
    telemetry.register_exporter(exporter, name="otel")
    [pipeline] = telemetry.exporters()
    assert isinstance(pipeline, Pipeline)
    assert pipeline.started.wait(10)
    return telemetry


def scopes_of(requests: list[dict[str, Any]], signal: str) -> Iterator[dict[str, Any]]:
    for request in requests:
        for resource in request[f"resource{signal}"]:
            yield from resource[f"scope{signal}"]


@pytest.mark.conforms("OTLP", "The OpenTelemetry Collector gets flags, scopes and links.")
def test_flags_scopes_and_links_arrive(otel_collector: Collector, drive: Drive) -> None:
    library = Scope("shop", "2.0", "https://opentelemetry.io/schemas/1.30.0")
    links = (SpanLink(TraceContext(5, 6, 1, is_remote=True)), SpanLink(TraceContext(7, 8)))
    remote = span(1, scope=library, parent_span_id=9, parent_is_remote=True, links=links)
    drive(endpoint=otel_collector.grpc_endpoint).spans([remote, span(2)])
    wait_until(lambda: len(otel_collector.spans()) == 2)
    shop, own = sorted(
        scopes_of(otel_collector.requests("traces"), "Spans"), key=lambda scope: -len(scope.get("schemaUrl", ""))
    )
    assert (shop["scope"], shop["schemaUrl"]) == ({"name": "shop", "version": "2.0"}, library.schema_url)
    [found] = shop["spans"]
    assert found["flags"] == 0x301
    assert [link["flags"] for link in found["links"]] == [0x301, 0x100]
    assert own["scope"]["name"] == "eventcore"
    assert own["spans"][0]["flags"] == 0x101


def test_exemplars_arrive_with_the_trace_that_they_lead_to(otel_collector: Collector, drive: Drive) -> None:
    point = msgspec.structs.replace(histogram("d").points[0], exemplars=(Exemplar(0.5, NOW, 0xABC, 0xDEF),))
    assert isinstance(point, HistogramPoint)
    drive(endpoint=otel_collector.grpc_endpoint).metrics([msgspec.structs.replace(histogram("d"), points=(point,))])
    wait_until(lambda: otel_collector.points("d"))
    [scope] = scopes_of(otel_collector.requests("metrics"), "Metrics")
    [exemplar] = scope["metrics"][0]["histogram"]["dataPoints"][0]["exemplars"]
    assert (exemplar["traceId"], exemplar["spanId"], exemplar["asDouble"]) == (f"{0xABC:032x}", f"{0xDEF:016x}", 0.5)


def test_the_collector_shows_each_series_once_and_with_its_value(otel_collector: Collector, drive: Drive) -> None:
    chunks = ([counter("page.orders", {f"k{n}": n for n in range(begin, begin + 10)})] for begin in (0, 10))
    drive(endpoint=otel_collector.grpc_endpoint).metrics(*chunks, [gauge("lag", 1.5)], [histogram("page.duration")])
    page = wait_until(lambda: text if "page_duration" in (text := otel_collector.page()) else "")
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    shown = [line.rsplit(" ", 1)[1] for line in lines if "page_orders" in line]
    assert sorted(map(float, shown)) == [float(n) for n in range(20)]
    assert any("page_duration" in line and "_sum" in line and line.endswith(" 7.5") for line in lines)


def test_a_request_larger_than_the_collector_takes_is_never_sent(otel_collector: Collector, drive: Drive) -> None:
    """Reported for OpenTelemetry's Python exporter (opentelemetry-python#2710): above 4 MiB nothing arrives any more."""
    many: dict[str, float] = {f"{'x' * 2000}{n}": n for n in range(2600)}
    assert drive(endpoint=otel_collector.grpc_endpoint).metrics([counter("many", many)], timeout=20) is None
    wait_until(lambda: len(otel_collector.points("many")) == 2600, 20)
    assert sorted(point.value or 0 for point in otel_collector.points("many")) == list(range(2600))


@pytest.mark.conforms("OTLP", "The OpenTelemetry Collector understands each temporality.")
@pytest.mark.parametrize("temporality", ["cumulative", "delta", "lowmemory"])
async def test_points_arrive_with_each_temporality(otel_collector: Collector, telemetry: Telemetry, temporality: str) -> None:
    connected(telemetry, otel_collector.grpc_endpoint, temporality)
    orders = telemetry.counter(f"{temporality}.orders.total").labels()
    seen = iter(range(100, 1000, 100))
    telemetry.counter(f"{temporality}.bytes.total", callback=lambda: next(seen))
    active = telemetry.up_down_counter(f"{temporality}.orders.active").labels()
    duration = telemetry.histogram(f"{temporality}.order.duration", unit="s", boundaries=(0.1, 1.0)).labels()
    for amount in (5, 7):
        orders.add(amount)
        active.add(2)
        duration.record(0.5)
        report = await telemetry.flush(10)
        assert report, str(report)
    wait_until(lambda: len(otel_collector.points(f"{temporality}.order.duration")) == 2)

    def found(name: str) -> list[tuple[object, str | None]]:
        return [(p.count if p.kind == "histogram" else p.value, p.temporality) for p in otel_collector.points(name)]

    differences = temporality != "cumulative"
    expected = "delta" if differences else "cumulative"
    assert found(f"{temporality}.orders.total") == [(5, expected), (7 if differences else 12, expected)]
    assert found(f"{temporality}.order.duration") == [(1, expected), (1 if differences else 2, expected)]
    assert found(f"{temporality}.orders.active") == [(2, "cumulative"), (4, "cumulative")]
    (first, one), (second, two) = found(f"{temporality}.bytes.total")
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert one == two == ("delta" if temporality == "delta" else "cumulative")
    starts = [point.start_time_ns for point in otel_collector.points(f"{temporality}.orders.total")]
    times = [point.time_ns for point in otel_collector.points(f"{temporality}.orders.total")]
    assert (starts[1] == times[0]) == differences
    assert starts[0] < times[0] <= time.time_ns()


@pytest.mark.conforms("OTLP", "Jaeger shows the traces.")
def test_jaeger_shows_the_trace_that_came_through_the_collector(
    collector_to_jaeger: Collector, jaeger: Jaeger, drive: Drive
) -> None:
    trace_id = time.time_ns()
    parent = span(1, name="execute", context=TraceContext(trace_id, 1, 1), attributes=(("eventcore.attempts", 2),))
    child = span(2, name="append", kind="client", context=TraceContext(trace_id, 2, 1), parent_span_id=1, status="error")
    drive(endpoint=collector_to_jaeger.grpc_endpoint, service_name="shop").spans([child, parent])
    spans = wait_until(lambda: found if len(found := jaeger.trace(trace_id)) == 2 else [], 20)
    by_name = {found["operationName"]: found for found in spans}
    assert by_name["append"]["references"][0]["spanID"] == f"{1:016x}"
    assert by_name["execute"]["references"] == []
    tags = {tag["key"]: tag["value"] for tag in by_name["execute"]["tags"]}
    assert tags["eventcore.attempts"] == 2
    assert {tag["key"]: tag["value"] for tag in by_name["append"]["tags"]}["span.kind"] == "client"
    assert by_name["execute"]["duration"] == 60_000_000
