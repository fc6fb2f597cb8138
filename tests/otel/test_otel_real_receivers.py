"""Real receivers get the values, kinds and ids that were passed to the hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from eventcore.exporting import Resource, SpanEvent, SpanLink, TraceContext
from tests.otel.values import NOW, START, Driver, counter, gauge, histogram, span
from tests.real_parts import Collector, DdapmTestAgent, Rotel, wait_until

Drive = Callable[..., Driver]


Received: TypeAlias = Rotel | DdapmTestAgent | Collector


@pytest.fixture(params=["rotel", "ddapm", "otel_collector"])
def collector(request: pytest.FixtureRequest) -> Received:
    """Each real receiver."""
    part: Received = request.getfixturevalue(request.param)
    return part


@pytest.fixture
def driver(collector: Received, drive: Drive) -> Driver:
    resource = Resource((("service.name", "core"), ("service.instance.id", "i-1"), ("replicas", 3)))
    return drive(resource, endpoint=collector.grpc_endpoint, service_name="shop")


def test_every_kind_of_point_arrives_with_its_values(collector: Received, driver: Driver) -> None:
    chunks = (
        [counter("orders.total", {"a": 3, "b": 2.5})],
        [counter("orders.total", {"c": 2**53 + 1})],
        [gauge("lag", -1.5), gauge("active", -2, additive=True)],
        [histogram("duration")],
    )
    assert driver.metrics(*chunks) is None
    wait_until(lambda: len(collector.points()) >= 6)
    totals = {point.attributes["kind"]: point.value for point in collector.points("orders.total")}
    assert totals == {"a": 3, "b": 2.5, "c": 2**53 + 1}
    for point in collector.points("orders.total"):
        assert (point.kind, point.monotonic, point.temporality) == ("sum", True, "cumulative")
        assert (point.unit, point.description) == ("{order}", "about orders.total")
        assert (point.start_time_ns, point.time_ns) == (START, NOW)
    [lag] = collector.points("lag")
    assert (lag.kind, lag.value) == ("gauge", -1.5)
    [active] = collector.points("active")
    assert (active.kind, active.value, active.monotonic, active.temporality) == ("sum", -2, False, "cumulative")
    [duration] = collector.points("duration")
    assert (duration.kind, duration.temporality, duration.unit) == ("histogram", "cumulative", "s")
    assert (duration.count, duration.sum, duration.min, duration.max) == (6, 7.5, 0.01, 5.0)
    assert (duration.bounds, duration.buckets) == ((0.1, 1.0), (1, 2, 3))


def test_the_points_of_one_instrument_arrive_from_many_chunks(collector: Received, driver: Driver) -> None:
    chunks = [[counter("orders.total", {f"k{n}": n for n in range(begin, begin + 20)})] for begin in range(0, 200, 20)]
    assert driver.metrics(*chunks) is None
    wait_until(lambda: len(collector.points("orders.total")) >= 200)
    assert {p.attributes["kind"]: p.value for p in collector.points("orders.total")} == {f"k{n}": n for n in range(200)}


def test_a_span_arrives_with_its_ids_attributes_events_links_and_status(collector: Received, driver: Driver) -> None:
    context = TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0xDEF, 1, "vendor=1")
    assert (
        driver.spans(
            [
                span(
                    name="append events",
                    kind="client",
                    context=context,
                    parent_span_id=0x77,
                    attributes=(("n", 3), ("ratio", 0.5), ("on", True), ("names", ("x", "y"))),
                    events=(SpanEvent("retry", START + 5, (("reason", "version"),)),),
                    links=(SpanLink(TraceContext(5, 6, 1, "z=1"), (("why", "cause"),)),),
                    status="error",
                    status_description="boom",
                    correlation_id="c-1",
                )
            ]
        )
        is None
    )
    [found] = wait_until(lambda: collector.spans("append events"))
    assert found.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (found.span_id, found.parent_id) == ("0000000000000def", "0000000000000077")
    assert (found.kind, found.tracestate) == ("client", "vendor=1")
    assert (found.start_time_ns, found.end_time_ns) == (START, NOW)
    assert (found.status, found.status_message) == ("error", "boom")
    assert found.attributes == {"n": 3, "ratio": 0.5, "on": True, "names": ("x", "y"), "eventcore.correlation_id": "c-1"}
    [event] = found.events
    assert (event.name, event.time_ns, event.attributes) == ("retry", START + 5, {"reason": "version"})
    [link] = found.links
    assert (link.trace_id, link.span_id, link.tracestate) == (f"{5:032x}", f"{6:016x}", "z=1")
    assert link.attributes == {"why": "cause"}
    assert found.scope.startswith("eventcore ")
    resource = dict(found.resource)
    assert resource.pop("telemetry.sdk.version") == found.scope.removeprefix("eventcore ")
    assert resource == {
        "telemetry.sdk.name": "eventcore",
        "telemetry.sdk.language": "python",
        "service.name": "shop",
        "service.instance.id": "i-1",
        "replicas": 3,
    }


def test_a_root_span_arrives_without_a_parent(collector: Received, driver: Driver) -> None:
    driver.spans([span(name="root")])
    [found] = wait_until(lambda: collector.spans("root"))
    assert found.parent_id == ""


def test_a_compressed_request_is_understood(collector: Received, drive: Drive) -> None:
    driver = drive(endpoint=collector.grpc_endpoint, compression="gzip")
    assert driver.spans([span(n) for n in range(1, 101)]) is None
    wait_until(lambda: len(collector.spans()) >= 100)
    assert len({found.span_id for found in collector.spans()}) == 100
