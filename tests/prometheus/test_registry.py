"""In an application's registry: its values and those of eventcore side by side, and neither fails the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as _generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventcore.exporting import CounterData, GaugeData, HistogramData, HistogramPoint, NumberPoint
from tests.prometheus.conftest import recorded
from tests.real_parts.waiting import wait_until

# prometheus_client has no types for these two.
generate_openmetrics: Callable[[CollectorRegistry], bytes] = _generate_openmetrics
parse_openmetrics: Callable[[str], Iterator[Metric]] = _parse_openmetrics

Drive = Callable[..., Any]
Request = Callable[..., Any]
Run = Callable[..., Any]


class Broken:
    """A collector of the application that raises."""

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        raise RuntimeError("a foreign collector raises")


def samples(text: str, parse: Callable[[str], Any]) -> set[tuple[Any, ...]]:
    return {
        (family.name, family.type, sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in parse(text)
        for sample in family.samples
    }


async def test_the_registry_shows_the_applications_values_and_those_of_eventcore(run: Run) -> None:
    registry = CollectorRegistry(auto_describe=True)
    Counter("logins", "Logins.", registry=registry).inc(2)
    running = await run(port=None, registry=registry)
    running.telemetry.counter("eventcore.commands.total", unit="{command}").labels().add(5)
    text = (await asyncio.to_thread(generate_latest, registry)).decode()
    assert "logins_total 2.0\n" in text
    assert "eventcore_commands_total 5.0\n" in text


def test_the_registry_shows_exactly_what_our_own_page_shows(drive: Drive, request_: Request) -> None:
    registry = CollectorRegistry(auto_describe=True)
    driven = drive(registry=registry)

    def cycle() -> None:
        driven.total += 1
        now = driven.total
        numbers = tuple(NumberPoint((("who.is", name),), value, 0, now) for name, value in (('a"b\\\n', 1), ("c", 2.5)))
        spread = HistogramPoint((), 6, 9.5, 0.1, 7.0, (1, 2, 3), 0, now)
        driven.hooks.export_counters(counters=[CounterData("io", "By", "Bytes.", ("who.is",), numbers)], timeout=1.0)
        driven.hooks.export_gauges(gauges=[GaugeData("level", "{state}", "Level.", ("who.is",), numbers)], timeout=1.0)
        driven.hooks.export_histograms(histograms=[HistogramData("wait", "s", "Wait.", (), (0.1, 1.0), (spread,))], timeout=1.0)
        driven.hooks.flush(signal="metrics", timeout=1.0)

    wait_until(lambda: driven.total == 1)
    driven.cycle = cycle
    ours = recorded(request_(driven.url).text)
    assert samples(recorded(generate_latest(registry).decode()), parse_text) == samples(ours, parse_text)
    ours = recorded(request_(driven.url, headers={"Accept": "application/openmetrics-text"}).text)
    assert samples(recorded(generate_openmetrics(registry).decode()), parse_openmetrics) == samples(ours, parse_openmetrics)
    assert "# UNIT io_bytes bytes" in generate_openmetrics(registry).decode()


def test_a_foreign_collector_that_raises_does_not_fail_our_endpoint(drive: Drive, request_: Request) -> None:
    registry = CollectorRegistry()
    registry.register(Broken())
    driven = drive(registry=registry)
    with pytest.raises(RuntimeError, match="a foreign collector raises"):
        generate_latest(registry)
    assert "cycles_total " in request_(driven.url).text


def test_a_failed_cycle_does_not_fail_the_registry(drive: Drive, caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    Counter("logins", "Logins.", registry=registry).inc()
    driven = drive(port=None, registry=registry)

    def fail() -> None:
        raise RuntimeError("no values today")

    driven.cycle = fail
    text = generate_latest(registry).decode()
    assert "logins_total 1.0" in text
    assert "cycles" not in text
    assert "nothing for the registry: no values today" in caplog.text
    assert driven.exporter.scrapes.failed == 1


def test_after_the_end_the_registry_shows_the_last_values_until_an_exporter_starts_again(drive: Drive) -> None:
    registry = CollectorRegistry()
    driven = drive(port=None, registry=registry)
    wait_until(lambda: driven.total == 1)
    assert "cycles_total 2.0" in recorded(generate_latest(registry).decode())
    driven.shutdown()
    for _ in range(2):
        assert "cycles_total 2.0" in recorded(generate_latest(registry).decode())
    driven.start()
    wait_until(lambda: driven.total == 3)
    assert "cycles_total 4.0" in recorded(generate_latest(registry).decode())


async def test_collecting_on_an_event_loop_works_and_says_what_to_do_instead(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    drive(port=None, registry=registry)
    assert b"cycles_total" in generate_latest(registry)
    generate_latest(registry)
    assert caplog.text.count("mount exporter.asgi_app() instead") == 1


def test_a_registry_that_refuses_leaves_the_port_free(drive: Drive) -> None:
    class Refusing(CollectorRegistry):
        def register(self, collector: Any) -> None:
            raise ValueError("not here")

    registry = Refusing()
    with pytest.raises(ValueError, match="not here"):
        drive(registry=registry)
