"""From commands to the receivers: what real servers hold is what the store did."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest_asyncio
from opentelemetry.sdk.trace import TracerProvider

from eventcore import Command, Event, EventStore, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.catalogue import CATALOGUE
from eventcore.errors import BusinessRuleViolation
from eventcore.telemetry import Pipeline
from eventcore_otel import OpenTelemetryExporter
from eventcore_prometheus import PrometheusExporter
from tests.real_parts import DdapmTestAgent, PromtoolResult, wait_until
from tests.real_parts.fixtures import StartPrometheus

PUBLISHED = {
    "eventcore.commands.total": "eventcore_commands_total",
    "eventcore.commands.duration": "eventcore_command_duration_seconds",
    "eventcore.events.written": "eventcore_events_written_total",
    "eventcore.streams.active": "eventcore_streams_active",
}


class Added(Event):
    event_type = "end-to-end.Added"
    amount: int


class Move(Command[dict[str, int]]):
    """Takes from one counter and gives to another, or fills the first when the two are one."""

    source: StreamId
    target: StreamId
    amount: int

    def initial_state(self) -> dict[str, int]:
        return {}

    def apply(self, state: dict[str, int], event: RecordedEvent) -> dict[str, int]:
        assert isinstance(event.data, Added)
        state[event.stream_id] = state.get(event.stream_id, 0) + event.data.amount
        return state

    def handle(self, state: dict[str, int]) -> Iterator[tuple[StreamId, Event]]:
        if self.source == self.target:
            yield self.source, Added(amount=self.amount)
            return
        if state.get(self.source, 0) < self.amount:
            raise BusinessRuleViolation("too little")
        if self.amount:
            yield self.source, Added(amount=-self.amount)
            yield self.target, Added(amount=self.amount)


@pytest_asyncio.fixture
async def telemetry() -> AsyncIterator[Telemetry]:
    async with Telemetry(exporters="none", service_name="bank", traces_per_second="all") as telemetry:
        yield telemetry


@pytest_asyncio.fixture
async def store(telemetry: Telemetry, ddapm: DdapmTestAgent, tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_store(f"sqlite:///{tmp_path / 'store.db'}", name="main", telemetry=telemetry) as store:
        store.register_exporter(OpenTelemetryExporter(endpoint=ddapm.grpc_endpoint))
        store.register_exporter(PrometheusExporter(port=0))
        for pipeline in telemetry.exporters():
            assert isinstance(pipeline, Pipeline)
            assert await asyncio.to_thread(pipeline.started.wait, 10)
        yield store


def page_address(telemetry: Telemetry) -> tuple[str, int]:
    (pipeline,) = (pipeline for pipeline in telemetry.exporters() if pipeline.name == "prometheus")
    assert isinstance(pipeline, Pipeline)
    exporter = pipeline.handle.exporter
    assert isinstance(exporter, PrometheusExporter)
    assert exporter.address is not None
    return exporter.address


async def fetch(telemetry: Telemetry) -> str:
    host, port = page_address(telemetry)

    def get() -> str:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


async def run_script(store: EventStore) -> Counter[str]:
    """Commands of every outcome that one process can have by itself; returns how many of each."""
    outcomes: Counter[str] = Counter()
    streams = [StreamId(f"counter-{number}") for number in range(4)]

    async def move(source: StreamId, target: StreamId, amount: int) -> None:
        try:
            result = await store.execute(Move(source=source, target=target, amount=amount))
        except BusinessRuleViolation:
            outcomes["rejected"] += 1
        else:
            outcomes["committed" if result.events else "no_events"] += 1

    for stream in streams:
        await move(stream, stream, 10)
    await asyncio.gather(*(move(streams[n % 4], streams[(n + 1) % 4], n % 3) for n in range(60)))
    await asyncio.gather(*(move(stream, streams[0], 1000) for stream in streams[1:]))
    return outcomes


async def test_the_four_published_names_stand_on_both_wires_with_the_stores_numbers(
    store: EventStore, telemetry: Telemetry, ddapm: DdapmTestAgent, prometheus_server: StartPrometheus
) -> None:
    outcomes = await run_script(store)
    assert min(outcomes[outcome] for outcome in ("committed", "rejected", "no_events")) > 0
    written = await store.head_position()
    report = await telemetry.flush(20)
    assert report, str(report)

    totals = {point.attributes["outcome"]: point.value for point in ddapm.points("eventcore.commands.total")}
    assert totals == outcomes
    durations = {point.attributes["outcome"]: point for point in ddapm.points("eventcore.commands.duration")}
    assert {outcome: point.count for outcome, point in durations.items()} == outcomes
    assert all(sum(point.buckets) == point.count and (point.sum or 0) > 0 for point in durations.values())
    assert [point.value for point in ddapm.points("eventcore.events.written")] == [written]
    assert ddapm.points("eventcore.events.written")[0].attributes == {"store": "main", "event.type": "end-to-end.Added"}
    assert [point.value for point in ddapm.points("eventcore.streams.active")] == [4]

    host, port = page_address(telemetry)
    server = await asyncio.to_thread(prometheus_server, f"{host}:{port}")
    await asyncio.to_thread(server.wait_until_up)

    def agrees() -> bool:
        scraped = {sample.labels["outcome"]: sample.value for sample in server.query("eventcore_commands_total")}
        return scraped == outcomes

    await asyncio.to_thread(wait_until, agrees)

    async def value(query: str) -> float:
        return await asyncio.to_thread(server.value, query)

    assert await value("eventcore_events_written_total") == written
    assert await value("eventcore_streams_active") == 4
    assert await value("sum(eventcore_command_duration_seconds_count)") == sum(outcomes.values())
    buckets = await asyncio.to_thread(server.query, 'eventcore_command_duration_seconds_bucket{outcome="committed"}')
    cumulative = sorted((float(sample.labels["le"]), sample.value) for sample in buckets)
    running = 0
    for (_, count), expected in zip(cumulative, durations["committed"].buckets, strict=True):
        running += expected
        assert count == running


async def test_nothing_is_emitted_that_the_catalogue_does_not_have_and_promtool_has_no_complaint(
    store: EventStore, telemetry: Telemetry, ddapm: DdapmTestAgent, promtool_check: Callable[[str], PromtoolResult]
) -> None:
    await run_script(store)
    assert await telemetry.flush(20)
    assert {point.name.removeprefix("eventcore.") for point in ddapm.points()} <= set(CATALOGUE)
    page = await fetch(telemetry)
    assert set(PUBLISHED.values()) <= set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    result = promtool_check(page)
    assert result.ok, result.output


async def test_every_command_has_its_spans_with_parents_and_attributes(
    store: EventStore, telemetry: Telemetry, ddapm: DdapmTestAgent
) -> None:
    outcomes = await run_script(store)
    report = await telemetry.flush(20)
    assert report["otel"].spans_recorded == report["otel"].spans_exported == len(ddapm.spans())
    executed = ddapm.spans("execute Move")
    assert Counter(span.attributes["eventcore.outcome"] for span in executed) == outcomes
    assert all(span.status == "unset" and span.parent_id == "" and span.kind == "internal" for span in executed)
    by_id = {span.span_id: span for span in executed}
    appended = ddapm.spans("append events")
    assert all(by_id[span.parent_id].trace_id == span.trace_id for span in appended)
    assert sum(int(str(span.attributes["eventcore.events"])) for span in appended) == await store.head_position()
    assert {span.attributes["db.system.name"] for span in appended + ddapm.spans("read streams")} == {"sqlite"}
    linked = [link.span_id for span in appended for link in span.links]
    assert linked
    assert set(linked) <= set(by_id)


async def test_a_command_in_a_traced_request_is_that_requests_child_and_its_events_carry_the_trace(
    store: EventStore, telemetry: Telemetry, ddapm: DdapmTestAgent
) -> None:
    stream = StreamId("counter-0")
    with TracerProvider().get_tracer("web").start_as_current_span("GET /move") as request:
        await store.execute(Move(source=stream, target=stream, amount=1), correlation_id="request-1")
    assert await telemetry.flush(20)
    (span,) = ddapm.spans("execute Move")
    context = request.get_span_context()
    assert (span.trace_id, span.parent_id) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    (event,) = [event async for event in store.read(stream)]
    assert event.metadata.traceparent == f"00-{span.trace_id}-{span.span_id}-{context.trace_flags:02x}"
    assert event.metadata.correlation_id == span.attributes["eventcore.correlation_id"] == "request-1"


async def test_a_store_goes_on_when_the_port_is_taken_and_the_collector_is_away(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as unused:
        port, nobody = taken.getsockname()[1], unused.getsockname()[1]
        unused.close()
        config = {"exporters": {"prometheus": {"port": port}, "otel": {"endpoint": f"http://127.0.0.1:{nobody}"}}}
        store_url = f"sqlite:///{tmp_path / 'store.db'}"
        async with open_store(store_url, exporters=["prometheus", "otel"], config=config, close_timeout=2.0) as store:
            stream = StreamId("counter-0")
            for _ in range(20):
                await store.execute(Move(source=stream, target=stream, amount=1))
            problems = {pipeline.name: pipeline for pipeline in store.telemetry.exporters()}
            await asyncio.to_thread(wait_until, lambda: problems["prometheus"].state == "failing")
            assert str(port) in problems["prometheus"].problem
            report = await store.telemetry.flush(2.0)
            assert not report["otel"].delivered
            assert "UNAVAILABLE" in report["otel"].reason
            assert await store.head_position() == 20
