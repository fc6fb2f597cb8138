"""Reports from the trackers of other exporters and servers. None of them may be true here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventcore.exporting import Exemplar, HistogramData, HistogramPoint, SpanData, hookimpl
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_prometheus import PrometheusExporter
from tests.prometheus.conftest import Running
from tests.real_parts.prometheus import PromtoolResult

Run = Callable[..., Any]
parse_openmetrics: Callable[[str], Any] = _parse_openmetrics
OPENMETRICS = "application/openmetrics-text"


async def scraped(running: Running, **headers: str) -> str:
    return (await asyncio.to_thread(lambda: running.scrape(**headers))).text


class _Spans:
    """Without an exporter that takes spans, no span is recorded and there is no exemplar."""

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None: ...


async def test_texts_that_are_no_utf8_do_not_make_one_series_twice(run: Run) -> None:
    """client_golang#274, #242, pve_exporter#17: values that cannot be encoded; "was collected before with the same name"."""
    running = await run()
    counter = running.telemetry.counter("orders", labels=("shop",))
    for value in ("caf\udce9", "caf\x00", "caf\ufffd", "cafe"):
        counter.labels(value).add(1)
    for text, parse in ((await scraped(running), parse_text), (await scraped(running, Accept=OPENMETRICS), parse_openmetrics)):
        found = [
            (sample.labels["shop"], sample.value)
            for family in parse(text)
            for sample in family.samples
            if sample.name == "orders_total"
        ]
        assert sorted(found) == [("caf?", 1), ("cafe", 1), ("caf\ufffd", 2)]


async def test_a_push_of_two_exporters_has_one_help_line_for_each_metric(
    promtool_check: Callable[[bytes], PromtoolResult],
) -> None:
    """client_python#97: "second HELP line for metric name" is what the Pushgateway says."""
    registry = CollectorRegistry()
    async with Telemetry(config={}, exporters=[]) as one, Telemetry(config={}, exporters=[]) as two:
        for telemetry in (one, two):
            telemetry.register_exporter(PrometheusExporter(port=None, registry=registry))
            pipeline = telemetry.exporters()[0]
            assert isinstance(pipeline, Pipeline)
            assert await asyncio.to_thread(pipeline.started.wait, 10)
            telemetry.counter("rows", description="Rows.").add(2)
        page = await asyncio.to_thread(generate_latest, registry)
    assert page.count(b"# HELP rows_total Rows.") == 1
    assert b"\nrows_total 4.0\n" in page
    assert promtool_check(page).ok


@pytest.mark.parametrize("value", [-0.0006266745065283909, -1e300, 1e-320, 5])
def test_an_exemplar_of_any_value_has_a_time_that_readers_take(value: float) -> None:
    """prometheus#11601: a scrape failed at an exemplar with a negative value and a time with an exponent."""
    from tests.prometheus.test_nothing_lost import builder
    from tests.prometheus.test_page import text

    making = builder()
    exemplar = Exemplar(value, 1_668_808_476_294_458_900, 1, 2)
    point = HistogramPoint((), 1, value, value, value, (1, 0) if value <= 0 else (0, 1), 0, 0, (exemplar,))
    making.histograms([HistogramData("rpc", "s", "", (), (0.0,), (point,))])
    shown = text(making.finish(), openmetrics=True)
    [found] = [one.exemplar for family in parse_openmetrics(shown) for one in family.samples if one.exemplar]
    assert (found.value, float(found.timestamp)) == (value, 1668808476.294)
    assert "e+09" not in shown


async def test_the_labels_of_an_exemplar_are_no_longer_than_openmetrics_allows(run: Run) -> None:
    """opentelemetry-java#6770: "label length for exemplar exceeds maximum of 128 UTF-8 characters"."""
    running = await run()
    running.telemetry.register_exporter(_Spans())
    with running.telemetry.span("x" * 500):
        running.telemetry.counter("orders", exemplars=True).add(1)
    families = list(parse_openmetrics(await scraped(running, Accept=OPENMETRICS)))
    [labels] = [one.exemplar.labels for family in families for one in family.samples if one.exemplar]
    assert set(labels) == {"trace_id", "span_id"}
    assert sum(len(name) + len(value) for name, value in labels.items()) <= 128


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
async def test_the_content_type_names_its_charset_once(run: Run, framework: str) -> None:
    """prometheus-fastapi-instrumentator#16: "charset=utf-8; charset=utf-8"; pretix#5095: Prometheus 3 is strict."""
    from fastapi import FastAPI
    from starlette.applications import Starlette
    from starlette.routing import Route

    running = await run(port=None)
    route = Route("/metrics", running.exporter.asgi_app())
    app = Starlette(routes=[route]) if framework == "starlette" else FastAPI(routes=[route])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers.get_list("content-type") == ["text/plain; version=0.0.4; charset=utf-8"]


async def test_a_negative_counter_of_a_library_costs_only_itself(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """client_java#1780, #1090: one counter of -1 made every scrape fail, and the message did not name it."""
    running = await run()
    running.telemetry.counter("kafka.lag", callback=lambda: -1)
    running.telemetry.counter("orders").add(1)
    text = await scraped(running)
    assert "orders_total 1\n" in text
    assert "kafka_lag" not in text
    assert "the callback of 'kafka.lag' gives no value" in caplog.text


def test_a_resource_of_any_length_keeps_to_the_limits_of_scrapers() -> None:
    """scaphandre#416: a command line of 4,478 characters as a label; "label_value_length_limit exceeded" fails the scrape."""
    config = {"telemetry": {"resource": {"process.command_line": "qemu " * 1000}}}
    telemetry = Telemetry(config=config, exporters=[])
    exporter = PrometheusExporter(port=0)
    telemetry.register_exporter(exporter)
    try:
        telemetry.start_blocking()
        text = Running(telemetry, exporter).scrape().text
    finally:
        telemetry.shutdown_blocking()
    lengths = [len(value) for family in parse_text(text) for sample in family.samples for value in sample.labels.values()]
    assert 500 < max(lengths) <= 1024


async def test_the_application_may_take_the_collector_out_of_its_registry(run: Run) -> None:
    """client_python#248: `unregister` raised when a collector had a name twice."""
    registry = CollectorRegistry()
    Counter("logins", "Logins.", registry=registry).inc()
    running = await run(port=None, registry=registry)
    running.telemetry.counter("orders").add(1)
    assert b"orders_total" in await asyncio.to_thread(generate_latest, registry)
    [ours] = [one for one in registry._collector_to_names if not isinstance(one, Counter)]
    registry.unregister(ours)
    assert b"orders_total" not in await asyncio.to_thread(generate_latest, registry)
    await running.telemetry.unregister_exporter("prometheus", 5.0)
    Counter("orders", "Orders.", registry=registry)


async def test_scrapes_at_the_same_time_do_not_see_half_of_a_new_family(run: Run) -> None:
    """prometheus-openstack-exporter#6: families that come later made collecting fail with "Duplicated timeseries"."""
    registry = CollectorRegistry()
    running = await run(port=None, registry=registry)
    failures: list[BaseException] = []
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            try:
                text = generate_latest(registry).decode()
                names = [line for line in text.splitlines() if line.startswith("# TYPE")]
                assert len(names) == len(set(names))
            except BaseException as error:  # noqa: BLE001  # shown below
                failures.append(error)
                return

    threads: Sequence[threading.Thread] = [threading.Thread(target=collect) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        running.telemetry.counter(f"kind{number}").add(1)
        await asyncio.sleep(0.005)
    stop.set()
    for thread in threads:
        await asyncio.to_thread(thread.join, 20)
    assert failures == []
    assert b"kind29_total" in await asyncio.to_thread(generate_latest, registry)
