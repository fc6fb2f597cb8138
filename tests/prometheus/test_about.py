"""What the page says about itself: its scrapes, what it leaves out, its process and its resource."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventcore import open_store
from eventcore.exporting import CounterData, NumberPoint, Resource
from eventcore.telemetry import Telemetry
from eventcore_prometheus import PrometheusExporter
from eventcore_prometheus.about import _target_info
from tests.prometheus.conftest import Driven
from tests.real_parts.prometheus import PromtoolResult
from tests.real_parts.waiting import wait_until

Drive = Callable[..., Driven]
Request = Callable[..., Any]
Run = Callable[..., Any]
HIDDEN = "eventcore_exporters_instruments_hidden"


def values(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def test_the_page_counts_its_scrapes_by_outcome_and_their_durations(drive: Drive, request_: Request) -> None:
    driven = drive()
    good = driven.cycle

    def fail() -> None:
        raise RuntimeError("not now")

    size = len(request_(driven.url).body)
    driven.cycle = fail
    assert request_(driven.url).status == 503
    driven.cycle = good
    found = values(request_(driven.url).text)
    assert found["eventcore_prometheus_scrapes_total,served"] == 1
    assert found["eventcore_prometheus_scrapes_total,failed"] == 1
    assert found["eventcore_prometheus_scrapes_total,refused"] == 0
    assert found["eventcore_prometheus_scrape_duration_seconds_count"] == 1
    assert 0 < found["eventcore_prometheus_scrape_duration_seconds_sum"] < 10
    assert found["eventcore_prometheus_page_size_bytes"] == size


@pytest.mark.parametrize("announced", ["0.001", "0.05"])
def test_a_scraper_with_a_tiny_timeout_is_refused_and_does_not_make_the_exporter_failing(
    drive: Drive, request_: Request, announced: str
) -> None:
    driven = drive()
    waits: list[float] = []
    scraper = driven.exporter._scraper
    assert scraper is not None
    export_now, good = scraper._context._export_now, driven.cycle

    def ask(timeout: float) -> Future[None]:
        waits.append(timeout)
        return export_now(timeout)

    def slow() -> None:
        threading.Event().wait(0.3)
        good()

    scraper._context._export_now, driven.cycle = ask, slow
    assert request_(driven.url, headers={"X-Prometheus-Scrape-Timeout-Seconds": announced}).status == 503
    assert driven.exporter.scrapes.refused == 1
    assert driven.exporter.scrapes.failed == 0
    # The cycle has the whole time, so that it does not fail because of this scraper.
    assert waits == ([] if announced == "0.001" else [10.0])


async def test_what_is_left_out_is_counted_on_the_very_page_that_lacks_it(run: Run) -> None:
    running = await run()
    running.telemetry.gauge("orders.total").set(5)
    running.telemetry.counter("orders").add(1)
    found = values((await asyncio.to_thread(running.scrape)).text)
    assert found["orders_total"] == 5
    assert found[f"{HIDDEN},prometheus,collision"] == 1
    assert found[f"{HIDDEN},prometheus,invalid"] == 0
    (pipeline,) = running.telemetry.exporters()
    assert "its name orders_total is in use by 'orders.total'" in pipeline.hidden["orders"]


async def test_with_a_store_the_page_shows_its_own_count_in_the_place_of_cores() -> None:
    exporter = PrometheusExporter(port=0)
    config: dict[str, Any] = {"exporters": {"prometheus": {"pipeline": {"exclude": ["secret.*"]}}}}
    async with open_store("memory:", exporters=[], config=config) as store:
        store.register_exporter(exporter)
        store.telemetry.gauge("orders.total").set(5)
        store.telemetry.counter("orders").add(1)
        store.telemetry.counter("secret.orders").add(1)
        await asyncio.to_thread(wait_until, lambda: exporter.url)
        from tests.prometheus.conftest import _request

        text = ""
        for _ in range(2):
            text = (await asyncio.to_thread(_request, exporter.url or "")).text
            assert values(text)[f"{HIDDEN},prometheus,collision"] == 1
        assert values(text)[f"{HIDDEN},prometheus,filtered"] == 1
        assert text.count(f"# TYPE {HIDDEN} gauge") == 1


def test_process_and_python_metrics_are_on_the_page_unless_they_are_switched_off(
    drive: Drive, request_: Request, promtool_check: Callable[[bytes], PromtoolResult]
) -> None:
    page = request_(drive().url)
    found = values(page.text)
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert found["process_cpu_seconds_total"] > 0
    assert any(name.startswith("python_info,") for name in found)
    assert found["python_gc_collections_total,0"] >= 0
    assert promtool_check(page.body).ok
    assert "process_" not in request_(drive(process_metrics=False).url).text


def test_an_instrument_of_the_application_keeps_its_name_before_what_the_page_says_of_itself(
    drive: Drive, request_: Request
) -> None:
    driven = drive()

    def cycle() -> None:
        data = [CounterData("process.cpu.seconds", "", "Mine.", (), (NumberPoint((), 7, 0, 0),), created=3)]
        driven.hooks.begin(signal="metrics", attempt=1)
        driven.hooks.export_counters(counters=data, timeout=1.0)
        driven.hooks.flush(signal="metrics", timeout=1.0)

    driven.cycle = cycle
    for _ in range(2):
        text = request_(driven.url).text
        assert text.count("# TYPE process_cpu_seconds_total") == 1
        assert "process_cpu_seconds_total 7\n" in text


def test_target_info_has_the_resource_in_both_formats(request_: Request) -> None:
    telemetry = Telemetry(config={"telemetry": {"service_name": "shop", "resource": {"k8s.pod": 'a"b'}}}, exporters=[])
    exporter = PrometheusExporter(port=0)
    telemetry.register_exporter(exporter)
    try:
        telemetry.start_blocking()
        plain = request_(exporter.url).text
        openmetrics = request_(exporter.url, headers={"Accept": "application/openmetrics-text"}).text
    finally:
        telemetry.shutdown_blocking()
    [info] = [family for family in parse_text(plain) if family.name == "target_info"]
    assert info.type == "gauge"
    [sample] = info.samples
    assert (sample.value, sample.labels["service_name"], sample.labels["k8s_pod"]) == (1, "shop", 'a"b')
    assert "# TYPE target info\ntarget_info{" in openmetrics


def test_attributes_whose_names_become_equal_share_one_label() -> None:
    attributes = (("a.b", "1"), ("a_b", "2"), ("9lives", True), ("__x", ("p", "q")), ("long", "x" * 5000))
    info = _target_info(Resource(attributes))
    assert info is not None
    labels = dict(info.points[0].labels)
    assert (labels["a_b"], labels["_9lives"], json.loads(labels["_x"]), len(labels["long"])) == (
        "1;2",
        "true",
        ["p", "q"],
        1024,
    )


def test_a_process_that_cannot_be_measured_does_not_fail_the_page(
    drive: Drive, request_: Request, caplog: pytest.LogCaptureFixture
) -> None:
    driven = drive()

    def broken(now: int) -> Any:
        raise PermissionError("/proc")

    assert driven.exporter._about is not None
    driven.exporter._about._collect_process = broken
    for _ in range(2):
        assert "cycles_total" in request_(driven.url).text
    assert caplog.text.count("the metrics of the process are left out") == 1
