"""A scrape gets the values of a new cycle or an error: with a real telemetry, and with cycles that fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from eventcore.exporting import CounterData, NumberPoint
from eventcore_prometheus import PrometheusExporter
from tests.prometheus.conftest import recorded
from tests.real_parts.waiting import wait_until

Drive = Callable[..., Any]
Request = Callable[..., Any]
Run = Callable[..., Any]


def values(text: str) -> dict[str, float]:
    return {
        ",".join([sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_published_names_are_on_the_wire_with_the_recorded_values(run: Run) -> None:
    running = await run()
    telemetry = running.telemetry
    labels = ("store", "command.type", "outcome")
    telemetry.counter("eventcore.commands.total", unit="{command}", labels=labels).labels(
        "default", "Transfer", "committed"
    ).add(7)
    duration = telemetry.histogram("eventcore.commands.duration", unit="s", labels=labels, boundaries=(0.1, 1.0))
    for seconds in (0.05, 0.5, 5.0):
        duration.labels("default", "Transfer", "committed").record(seconds)
    telemetry.counter("eventcore.events.written", unit="{event}", labels=("event.type",)).labels("Deposited").add(14)
    telemetry.gauge("eventcore.streams.active", unit="{stream}").labels().set(3)
    answer = await asyncio.to_thread(running.scrape)
    series = "command_type=Transfer,outcome=committed,store=default"
    bucket = "eventcore_command_duration_seconds_bucket,command_type=Transfer"
    assert values(recorded(answer.text)) == {
        f"eventcore_commands_total,{series}": 7,
        f"{bucket},le=0.1,outcome=committed,store=default": 1,
        f"{bucket},le=1.0,outcome=committed,store=default": 2,
        f"{bucket},le=+Inf,outcome=committed,store=default": 3,
        f"eventcore_command_duration_seconds_sum,{series}": 5.55,
        f"eventcore_command_duration_seconds_count,{series}": 3,
        "eventcore_events_written_total,event_type=Deposited": 14,
        "eventcore_streams_active": 3,
    }


async def test_what_was_recorded_before_a_scrape_is_in_it(run: Run) -> None:
    running = await run()
    counter = running.telemetry.counter("orders").labels()
    for expected in range(1, 20):
        counter.add(1)
        assert values((await asyncio.to_thread(running.scrape)).text)["orders_total"] == expected


async def test_scrapes_at_the_same_time_share_cycles_and_none_sees_less_than_was_recorded(run: Run) -> None:
    running = await run(max_requests=40)
    running.telemetry.counter("orders").labels().add(1)
    cycles = threading.Semaphore(0)
    (pipeline,) = running.telemetry.exporters()

    def one() -> float:
        return values(running.scrape().text)["orders_total"]

    def slow() -> int:
        cycles.release()
        time.sleep(0.05)
        return 1

    running.telemetry.gauge("slow", callback=slow)
    with ThreadPoolExecutor(40) as clients:
        seen = await asyncio.wrap_future(clients.submit(lambda: list(clients.map(lambda _: one(), range(30)))))
    assert seen == [1.0] * 30
    assert pipeline.state == "running"
    collected = 0
    while cycles.acquire(blocking=False):
        collected += 1
    assert 1 <= collected < 15


async def test_with_its_port_taken_the_exporter_fails_and_recovers_while_everything_else_runs(run: Run) -> None:
    running = await run()
    counter = running.telemetry.counter("orders").labels()
    second = PrometheusExporter(port=running.exporter.address[1])
    running.telemetry.register_exporter(second, name="second")
    pipeline = running.telemetry.exporters()[1]
    await asyncio.to_thread(wait_until, lambda: pipeline.state == "failing")
    assert "the port is taken" in pipeline.problem
    counter.add(1)
    assert values((await asyncio.to_thread(running.scrape)).text)["orders_total"] == 1
    await running.telemetry.unregister_exporter("prometheus", 5.0)
    await asyncio.to_thread(wait_until, lambda: pipeline.state == "running")
    assert values((await asyncio.to_thread(type(running)(running.telemetry, second).scrape)).text)["orders_total,worker=0"] == 1


def test_a_late_cycle_is_an_error_within_the_scrapers_timeout_and_never_an_old_page(drive: Drive, request_: Request) -> None:
    driven = drive()
    assert request_(driven.url).status == 200
    gate = threading.Event()
    driven.cycle = lambda: gate.wait(10)
    begun = time.monotonic()
    answer = request_(driven.url, headers={"X-Prometheus-Scrape-Timeout-Seconds": "0.3"})
    assert time.monotonic() - begun < 2
    gate.set()
    assert answer.status == 503
    assert "no fresh values within 0.27 s" in answer.text
    assert "cycles_total" not in answer.text
    assert driven.exporter.scrapes.failed == 1


def test_the_setting_caps_what_a_scraper_asks_for(drive: Drive, request_: Request) -> None:
    driven = drive(scrape_timeout=0.1)
    gate = threading.Event()
    driven.cycle = lambda: gate.wait(10)
    answer = request_(driven.url, headers={"X-Prometheus-Scrape-Timeout-Seconds": "60"})
    gate.set()
    assert (answer.status, "within 0.1 s" in answer.text) == (503, True)


def test_a_cycle_that_fails_is_a_503_with_its_reason_and_the_next_one_is_served(drive: Drive, request_: Request) -> None:
    driven = drive()

    def fail() -> None:
        raise RuntimeError("the backend is on fire")

    driven.cycle = fail
    answer = request_(driven.url)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "the backend is on fire" in answer.text
    driven.cycle = driven.count_up
    assert request_(driven.url).status == 200
    assert (driven.exporter.scrapes.served, driven.exporter.scrapes.failed) == (1, 1)


def test_of_two_instruments_with_one_name_the_second_is_reported_as_hidden_once(drive: Drive, request_: Request) -> None:
    driven = drive()

    def both() -> None:
        driven.total += 1
        data = [CounterData(name, "", "", (), (NumberPoint((), 1, 0, driven.total),)) for name in ("orders", "orders.total")]
        driven.hooks.export_counters(counters=data, timeout=1.0)
        driven.hooks.flush(signal="metrics", timeout=1.0)

    driven.cycle = both
    assert [request_(driven.url).text.count("# TYPE orders_total") for _ in range(3)] == [1, 1, 1]
    [(name, reason)] = driven.hidden
    assert name == "orders.total"
    assert reason.startswith("its name orders_total is in use by 'orders'")
