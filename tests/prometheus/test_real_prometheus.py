"""A real Prometheus server and its linter, with a real telemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from eventcore import Command, Event, StreamId, open_store
from eventcore.exporting import SpanData, hookimpl
from eventcore_prometheus import PrometheusExporter
from tests.prometheus.conftest import _request
from tests.real_parts.fixtures import StartPrometheus
from tests.real_parts.prometheus import PromtoolResult
from tests.real_parts.waiting import wait_until

Run = Callable[..., Any]

LABELS = ("store", "command.type", "outcome")
STRANGE = 'quote " backslash \\ newline \n return \r tab \t é 日本 🎈 100% {x="y"} \x7f'


class Greeted(Event):
    pass


class Greet(Command[None]):
    person: StreamId

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        yield self.person, Greeted()


class SpanKeeper:
    """An exporter that keeps the ids of spans."""

    def __init__(self) -> None:
        self.trace_ids: set[int] = set()
        self.span_ids: set[int] = set()

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        self.trace_ids |= {span.context.trace_id for span in spans}
        self.span_ids |= {span.context.span_id for span in spans}


def record(telemetry: Any) -> None:
    commands = telemetry.counter(
        "eventcore.commands.total", unit="{command}", description="Commands by outcome.", labels=LABELS
    )
    commands.labels("default", "Transfer", "committed").add(41)
    commands.labels("default", "Transfer", "rejected").add(1)
    duration = telemetry.histogram("eventcore.commands.duration", unit="s", description='With "quotes" and \\.', labels=LABELS)
    for seconds in (0.00005, 0.003, 0.003, 0.7, 60.0):
        duration.labels("default", "Transfer", "committed").record(seconds)
    written = telemetry.counter("eventcore.events.written", unit="{event}", description="Events.", labels=("event.type",))
    written.labels(STRANGE).add(2**40)
    telemetry.gauge("eventcore.streams.active", unit="{stream}", description="Streams touched lately.").labels().set(12)
    telemetry.gauge("eventcore.store.size", unit="By", description="Size.").labels().set(1234567.5)
    telemetry.up_down_counter("eventcore.commands.active", unit="{command}", description="Running.").labels().add(-3)


async def test_promtool_finds_nothing_to_complain_about(run: Run, promtool_check: Callable[[bytes], PromtoolResult]) -> None:
    running = await run()
    record(running.telemetry)
    answer = await asyncio.to_thread(running.scrape)
    checked = await asyncio.to_thread(promtool_check, answer.body)
    assert checked.ok, checked.output
    assert checked.output == ""


async def test_a_prometheus_server_shows_the_same_numbers_as_were_recorded(
    run: Run, prometheus_server: StartPrometheus
) -> None:
    running = await run()
    record(running.telemetry)
    server = await asyncio.to_thread(prometheus_server, running.target)
    await asyncio.to_thread(server.wait_until_up)
    expected = {
        'eventcore_commands_total{command_type="Transfer",outcome="committed",store="default"}': 41,
        'eventcore_commands_total{outcome="rejected"}': 1,
        "sum(eventcore_commands_total)": 42,
        "eventcore_command_duration_seconds_count": 5,
        "eventcore_command_duration_seconds_sum": 60.70605,
        'eventcore_command_duration_seconds_bucket{le="0.0001"}': 1,
        'eventcore_command_duration_seconds_bucket{le="0.005"}': 3,
        'eventcore_command_duration_seconds_bucket{le="1.0"}': 4,
        'eventcore_command_duration_seconds_bucket{le="+Inf"}': 5,
        "eventcore_events_written_total": 2**40,
        "eventcore_streams_active": 12,
        "eventcore_store_size_bytes": 1234567.5,
        "eventcore_commands_active": -3,
    }
    found = {query: await asyncio.to_thread(server.value, query) for query in expected}
    assert found == pytest.approx(expected, rel=1e-12)
    (written,) = await asyncio.to_thread(server.query, "eventcore_events_written_total")
    assert written.labels["event_type"] == STRANGE


async def test_each_scrape_shows_what_was_recorded_since_until_the_exporter_is_unregistered(
    run: Run, prometheus_server: StartPrometheus
) -> None:
    running = await run()
    # Prometheus stops reading at a zero byte.
    counter = running.telemetry.counter("orders", labels=("zero",)).labels("a\x00b")
    counter.add(1)
    server = await asyncio.to_thread(prometheus_server, running.target)

    def shows(expected: float | None) -> Callable[[], bool]:
        return lambda: [sample.value for sample in server.query("orders_total")] == ([] if expected is None else [expected])

    await asyncio.to_thread(wait_until, shows(1), 20)
    counter.add(9)
    await asyncio.to_thread(wait_until, shows(10), 20)
    await running.telemetry.unregister_exporter("prometheus", 5.0)
    await asyncio.to_thread(wait_until, shows(None), 20)
    assert await asyncio.to_thread(server.value, "up") == 0


@pytest.fixture(params=["prometheus_server", "prometheus3_server"])
def any_prometheus(request: pytest.FixtureRequest) -> StartPrometheus:
    """Both versions of Prometheus, one after the other."""
    start: StartPrometheus = request.getfixturevalue(request.param)
    return start


async def test_both_versions_of_prometheus_show_the_values_and_exemplars_of_a_store_whose_traces_exist(
    any_prometheus: StartPrometheus, promtool_check: Callable[[bytes], PromtoolResult]
) -> None:
    exporter = PrometheusExporter(port=0)
    spans = SpanKeeper()
    async with open_store("memory:", exporters=[]) as store:
        store.register_exporter(exporter)
        store.register_exporter(spans)
        await asyncio.to_thread(wait_until, lambda: exporter.url)
        counter = store.telemetry.counter("orders", labels=("country",), exemplars=True).labels("FR")
        store.telemetry.counter("orders.created").add(2)
        with store.telemetry.span("checkout"):
            counter.add(3)
            await store.execute(Greet(person=StreamId("ada")))
        assert await store.telemetry.flush(5)
        server = await asyncio.to_thread(any_prometheus, urlsplit(exporter.url or "").netloc)
        await asyncio.to_thread(server.wait_until_up)
        for selector in ("orders_total", "eventcore_command_duration_seconds_bucket"):
            found = await asyncio.to_thread(wait_until, partial(server.exemplars, selector), 20)
            for exemplar in found:
                assert int(exemplar["labels"]["trace_id"], 16) in spans.trace_ids
                assert int(exemplar["labels"]["span_id"], 16) in spans.span_ids
                assert float(exemplar["value"]) <= float(exemplar["series"].get("le", "3"))
        expected = {
            "orders_total": 3,
            "orders_created_total": 2,
            'sum(eventcore_commands_total{store="default",command_type="Greet",outcome="committed"})': 1,
            'eventcore_exporters_instruments_hidden{exporter="prometheus",reason="collision"}': 0,
            "count(target_info)": 1,
            "count(process_cpu_seconds_total)": 1,
        }
        values = {query: await asyncio.to_thread(server.value, query) for query in expected}
        page = await asyncio.to_thread(_request, exporter.url or "")
        checked = await asyncio.to_thread(promtool_check, page.body)
        # A scrape has 0.2 s: on a busy machine, one may fail.
        await asyncio.to_thread(wait_until, lambda: [target["lastError"] for target in server.targets()] == [""])
    assert values == expected
    assert (checked.ok, checked.output) == (True, "")
