"""In the registry of an application, and pushed by a batch job: names, owners, several stores, the end, Pushgateway."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, push_to_gateway, write_to_textfile
from prometheus_client.openmetrics.exposition import generate_latest as _generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.applications import Starlette
from starlette.routing import Route

from eventcore import open_store
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_prometheus import PrometheusExporter
from tests.prometheus.conftest import recorded
from tests.real_parts.prometheus import PromtoolResult
from tests.real_parts.waiting import wait_until

generate_openmetrics: Callable[[CollectorRegistry], bytes] = _generate_openmetrics
Run = Callable[..., Any]


def values(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


async def shown(registry: Any) -> dict[str, float]:
    return values(await asyncio.to_thread(lambda: generate_latest(registry).decode()))


async def test_a_family_of_the_application_keeps_its_name_and_its_owner_is_named(run: Run) -> None:
    registry = CollectorRegistry()
    Counter("logins", "Logins.", registry=registry).inc(2)
    running = await run(port=None, registry=registry)
    running.telemetry.counter("logins").add(40)
    running.telemetry.counter("orders").add(3)
    found = await shown(registry)
    assert (found["logins_total"], found["orders_total"]) == (2, 3)
    (pipeline,) = running.telemetry.exporters()
    assert "the application's registry has this name already, from the Counter 'logins'" in pipeline.hidden["logins"]
    assert pipeline.hidden_instruments.counts()["collision"] == 1
    text = await asyncio.to_thread(lambda: generate_latest(registry).decode())
    assert text.count("# TYPE logins_total counter") == 1


async def test_the_registry_refuses_a_later_family_with_our_name(run: Run) -> None:
    registry = CollectorRegistry()
    running = await run(port=None, registry=registry)
    running.telemetry.counter("orders").add(3)
    await shown(registry)
    with pytest.raises(ValueError, match="orders_total"):
        Counter("orders", "Orders.", registry=registry)
    Gauge("other", "Other.", registry=registry).set(1)
    assert (await shown(registry))["orders_total"] == 3


async def test_names_of_a_registry_can_be_restricted_from_the_first_page_on() -> None:
    registry = CollectorRegistry()
    async with open_store("memory:", exporters=[]) as store:
        store.register_exporter(PrometheusExporter(port=None, registry=registry))
        await asyncio.to_thread(wait_until, lambda: "eventcore_store_up" in registry._names_to_collectors)
        found = await shown(registry.restricted_registry(["eventcore_store_up"]))
    assert found == {"eventcore_store_up,default": 1}


async def test_two_stores_in_one_registry_appear_once() -> None:
    registry = CollectorRegistry()
    async with open_store("memory:", name="one", exporters=[]) as one, open_store("memory:", name="two", exporters=[]) as two:
        for number, store in enumerate((one, two), 1):
            store.register_exporter(PrometheusExporter(port=None, registry=registry))
            pipeline = store.telemetry.exporters()[0]
            assert isinstance(pipeline, Pipeline)
            assert await asyncio.to_thread(pipeline.started.wait, 10)
            store.telemetry.counter("orders", labels=("shop",)).labels("a").add(number)
            store.telemetry.histogram("wait", unit="s", boundaries=(1.0,)).record(number)
            store.telemetry.gauge("level").set(number)
        text = (await asyncio.to_thread(generate_latest, registry)).decode()
        again = (await asyncio.to_thread(generate_openmetrics, registry)).decode()
    found = values(text)
    assert found["orders_total,a"] == 3
    assert found["wait_seconds_count"] == 2
    assert found["level"] == 1
    assert found["eventcore_store_up,one"] == found["eventcore_store_up,two"] == 1
    for page in (text, again):
        types = [line for line in page.splitlines() if line.startswith("# TYPE")]
        assert len(types) == len(set(types))
        series = [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]
        assert len(series) == len(set(series))


async def test_what_the_application_says_of_its_process_is_not_said_twice(run: Run) -> None:
    from prometheus_client import PlatformCollector, ProcessCollector

    registry = CollectorRegistry(target_info={"service": "mine"})
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    running = await run(port=None, registry=registry)
    text = (await asyncio.to_thread(generate_latest, registry)).decode()
    assert text.count("# TYPE process_cpu_seconds_total") == 1
    assert text.count("# TYPE target_info") == 1
    (pipeline,) = running.telemetry.exporters()
    assert pipeline.hidden == {}


async def test_exemplars_are_in_the_registry_too(run: Run) -> None:
    registry = CollectorRegistry()
    running = await run(port=None, registry=registry)
    with running.telemetry.span("a request") as span:
        running.telemetry.counter("orders", exemplars=True).add(3)
        running.telemetry.histogram("wait", boundaries=(1.0,), exemplars=True).record(0.5)
    text = (await asyncio.to_thread(generate_openmetrics, registry)).decode()
    assert text.count(f'trace_id="{span.context.trace_id:032x}"') == (2 if span.recording else 0)


def job(registry: CollectorRegistry, rows: int = 3) -> None:
    async def copy() -> None:
        async with Telemetry(config={}, exporters=[]) as telemetry:
            telemetry.register_exporter(PrometheusExporter(port=None, registry=registry, process_metrics=False))
            pipeline = telemetry.exporters()[0]
            assert isinstance(pipeline, Pipeline)
            assert await asyncio.to_thread(pipeline.started.wait, 10)
            counter = telemetry.counter("rows.copied", labels=("table",))
            counter.labels('a"b').add(rows)
            await asyncio.sleep(0)
            counter.labels('a"b').add(1)

    asyncio.run(copy())


@pytest.mark.once
def test_a_batch_job_pushes_its_last_values_to_a_pushgateway(pushgateway: str) -> None:
    registry = CollectorRegistry()
    job(registry)
    for _ in range(2):
        push_to_gateway(pushgateway, job="copy", registry=registry)
    with urllib.request.urlopen(f"http://{pushgateway}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'rows_copied_total{instance="",job="copy",table="a\\"b"} 4\n' in text


def test_a_batch_job_leaves_a_textfile_without_a_fault(
    tmp_path: Path, promtool_check: Callable[[bytes], PromtoolResult]
) -> None:
    registry = CollectorRegistry()
    for rows in (3, 5):
        job(registry, rows)
        write_to_textfile(str(tmp_path / "job.prom"), registry)
        text = (tmp_path / "job.prom").read_text()
        assert recorded(text).splitlines()[-1] == f'rows_copied_total{{table="a\\"b"}} {rows + 1}.0'
        checked = promtool_check(text.encode())
        assert checked.ok, checked.output


def test_the_asgi_application_is_an_object_that_is_an_endpoint_of_a_route() -> None:
    app = PrometheusExporter(port=None).asgi_app()
    route = Route("/metrics", app)
    assert route.app is app
    assert route.methods is None


def test_mounting_on_something_else_says_what_to_do() -> None:
    exporter = PrometheusExporter(port=None)
    with pytest.raises(TypeError, match=r"mount takes a FastAPI or Starlette application, not object; serve "):
        exporter.mount(object())
    with pytest.raises(ValueError, match="path is 'metrics'"):
        exporter.mount(Starlette(), "metrics")


def test_the_metrics_answer_before_a_route_for_all_paths() -> None:
    app = Starlette(routes=[Route("/{path:path}", lambda request: None)])
    PrometheusExporter(port=None).mount(app)
    assert [route.path for route in app.routes] == ["/metrics", "/{path:path}"]  # type: ignore[attr-defined]
