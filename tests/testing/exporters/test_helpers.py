"""What the kit gives beside the contract: a recording telemetry and exporter, assertions, a clock, sample data, a context."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from eventcore import StreamId, Telemetry, open_store
from eventcore.exporting import CounterData, GaugeData, HistogramData
from eventcore.exporting.registration import check_exporter
from eventcore.testing import (
    MovableClock,
    RecordingExporter,
    RecordingTelemetry,
    exporter_context,
    sample_collection,
    sample_spans,
)
from eventcore.testing.exporters.delivery import delivering, wait_for
from eventcore.testing.exporters.fixtures import clock, telemetry
from tests.store.bank import Deposit

__all__ = ["clock", "telemetry"]

# Without it, pytest-asyncio would warn.
_MODE = ["-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"]


def test_commands_of_a_store_are_counted(telemetry: RecordingTelemetry) -> None:
    async def deposit() -> None:
        async with open_store("memory:", telemetry=telemetry) as store:
            for _ in range(3):
                await store.execute(Deposit(account=StreamId("account-a"), amount=1))

    asyncio.run(deposit())
    telemetry.assert_counter("eventcore.commands.total", 3, outcome="committed")
    telemetry.assert_histogram("eventcore.commands.duration", 3, command_type="Deposit")
    assert len(telemetry.assert_spans("execute Deposit", 3, eventcore_outcome="committed")) == 3


def test_one_test_does_not_see_what_another_has_recorded(telemetry: RecordingTelemetry) -> None:
    with pytest.raises(AssertionError, match="nothing was recorded for"):
        telemetry.assert_counter("eventcore.commands.total", 3)
    assert telemetry.spans() == []


def test_configuration_of_the_machine_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eventcore.toml").write_text('[telemetry]\nverbosity = "off"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTCORE_TELEMETRY__VERBOSITY", "off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "elsewhere")
    telemetry = RecordingTelemetry()
    try:
        assert telemetry.enabled
        assert telemetry.resource.get("service.name") != "elsewhere"
        assert [exporter.name for exporter in telemetry.exporters()] == ["recording"]
        assert os.environ["OTEL_SERVICE_NAME"] == "elsewhere"
    finally:
        telemetry.shutdown_blocking(5)


def test_a_failed_assertion_shows_what_there_is(telemetry: RecordingTelemetry) -> None:
    shipped = telemetry.counter("orders.shipped", labels=("country", "carrier.name"))
    shipped.labels("FR", "post").add(2)
    shipped.labels("DE", "post").add(1)
    telemetry.assert_counter("orders.shipped", 3)
    telemetry.assert_counter("orders.shipped", 2, country="FR", carrier_name="post")
    telemetry.assert_counter("orders.shipped", 0, country="IT")
    assert _message(lambda: telemetry.assert_counter("orders.shipped", 1, country="FR")) == (
        "counter 'orders.shipped' {country=FR} is 2; expected 1. It has these series:\n"
        "  {country=FR, carrier.name=post} 2\n  {country=DE, carrier.name=post} 1"
    )
    assert "did you mean 'orders.shipped'?" in _message(lambda: telemetry.assert_counter("orders.shiped", 1))
    assert "has no label 'land'; its labels are carrier_name, country" in _message(
        lambda: telemetry.assert_counter("orders.shipped", 1, land="FR")
    )
    assert "is CounterData, not GaugeData" in _message(lambda: telemetry.assert_gauge("orders.shipped", 1))


def test_gauges_are_compared_one_by_one_and_up_down_counters_are_added_up(telemetry: RecordingTelemetry) -> None:
    length, jobs = telemetry.gauge("queue.length", labels=("queue",)), telemetry.up_down_counter("jobs", labels=("queue",))
    for queue in ("a", "b"):
        length.labels(queue).set(3)
        jobs.labels(queue).add(2)
    telemetry.assert_gauge("jobs", 4)
    telemetry.assert_gauge("queue.length", 3, queue="a")
    assert "has 2 series; name more labels" in _message(lambda: telemetry.assert_gauge("queue.length", 3))
    assert "has no value; expected 3" in _message(lambda: telemetry.assert_gauge("queue.length", 3, queue="c"))


def test_histograms_are_compared_by_count_and_sum(telemetry: RecordingTelemetry) -> None:
    duration = telemetry.histogram("request.duration", labels=("route",))
    duration.labels("/").record(0.5)
    duration.labels("/a").record(0.25)
    telemetry.assert_histogram("request.duration", 2, total=0.75)
    assert "has 1 values; expected 2" in _message(lambda: telemetry.assert_histogram("request.duration", 2, route="/"))
    assert "has the sum 0.5; expected 9" in _message(
        lambda: telemetry.assert_histogram("request.duration", 1, total=9, route="/")
    )


def test_spans_are_found_by_name_and_attributes(telemetry: RecordingTelemetry) -> None:
    for items in (1, 2):
        with telemetry.span("ship order", attributes={"order.items": items}):
            pass
    assert telemetry.assert_span("ship order", order_items=2).attributes == (("order.items", 2),)
    message = _message(lambda: telemetry.assert_spans("ship order", 1))
    assert message.startswith("2 spans 'ship order'; expected 1. These are the last of 2 spans:\n  ship order {order.items=1}")


def test_spans_are_found_after_the_telemetry_was_shut_down() -> None:
    recorded = RecordingTelemetry()
    with recorded.span("ship order"):
        pass
    assert recorded.shutdown_blocking(10)
    recorded.assert_span("ship order")
    assert [span.name for span in recorded.spans()] == ["ship order"]


def test_a_recording_exporter_adds_differences_up() -> None:
    for exporter in (RecordingExporter(), RecordingExporter(temporality="delta")):
        telemetry = Telemetry(config=os.devnull, exporters=[], traces_per_second="all")
        telemetry.register_exporter(exporter, name="recording")
        counter, duration = telemetry.counter("orders"), telemetry.histogram("duration")
        for _ in range(2):
            counter.add(2)
            duration.record(0.5)
            with telemetry.span("work"):
                pass
            assert telemetry.flush_blocking(10)
        exporter.assert_counter("orders", 4)
        exporter.assert_histogram("duration", 2, total=1.0)
        exporter.assert_spans("work", 2)
        exporter.clear()
        assert (list(exporter.metrics()), exporter.spans()) == ([], [])
        telemetry.shutdown_blocking(10)


def test_a_moved_clock_moves_ages_and_intervals(clock: MovableClock, telemetry: RecordingTelemetry) -> None:
    exporter = RecordingExporter(interval=60.0)
    telemetry.register_exporter(exporter, name="minutely")
    [pipeline] = [each for each in telemetry.exporters() if each.name == "minutely"]
    assert wait_for(lambda: pipeline.state == "running")
    telemetry.gauge("uptime", callback=clock.time)
    before = clock.time()
    assert exporter.cycles() == []
    clock.advance(3600)
    assert wait_for(exporter.cycles), "the interval of a minute is over, but no cycle came"
    [uptime] = [data for data in telemetry.metrics() if data.name == "uptime"]
    assert 3600 <= uptime.points[0].value - before < 3700  # type: ignore[union-attr]  # a gauge has numbers


def test_spans_last_as_long_as_the_clock_was_moved(clock: MovableClock, telemetry: RecordingTelemetry) -> None:
    with telemetry.span("slow"):
        clock.advance(5)
    span = telemetry.assert_span("slow")
    assert 5e9 <= span.end_time_ns - span.start_time_ns < 6e9


def test_a_clock_is_put_back(clock: MovableClock) -> None:
    import time

    import eventcore.recording.tracing as tracing

    assert vars(tracing)["time_ns"] is not time.time_ns
    clock.remove()
    assert vars(tracing)["time_ns"] is time.time_ns


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_clock_moves_forward_only(seconds: float) -> None:
    with pytest.raises(ValueError, match="expected seconds, 0 or more"):
        MovableClock().advance(seconds)


def test_there_is_sample_data_of_every_kind() -> None:
    collection = sample_collection()
    assert {type(data) for data in collection} == {CounterData, GaugeData, HistogramData}
    assert {data.additive for data in collection.gauges} == {True, False}
    spans = sample_spans(2)
    assert len({span.context.span_id for span in spans}) == 2
    for span in spans:
        empty = [
            name
            for name in ("attributes", "events", "links", "status_description", "correlation_id")
            if not getattr(span, name)
        ]
        assert empty == []


def test_a_context_in_one_call_starts_an_exporter() -> None:
    hidden: dict[str, str] = {}
    stopping = threading.Event()
    context = exporter_context(
        "mine", resource={"service.name": "shop"}, settings={"port": 1}, hidden=hidden, stopping=stopping
    )
    context.report_hidden("orders", "its name is in use")
    assert context.export_now().result(0) is None
    assert (context.name, context.resource.get("service.name"), context.settings, hidden) == (
        "mine",
        "shop",
        {"port": 1},
        {"orders": "its name is in use"},
    )
    assert context.stopping is stopping


def test_sample_data_goes_through_a_pipeline_by_hand() -> None:
    exporter = RecordingExporter()
    assert check_exporter(exporter).kinds == ("counters", "gauges", "histograms", "spans")
    with delivering(exporter) as delivery:
        delivery.record(*sample_collection())
        delivery.end_spans(sample_spans(2))
        assert delivery.flush().delivered
    exporter.assert_counter("orders.shipped", 5.5)
    assert len(exporter.received().spans) == 2


def test_the_fixtures_are_a_pytest_plugin(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["eventcore.testing.exporters.fixtures"]\n')
    (tmp_path / "test_mine.py").write_text(
        "def test_it(telemetry, clock):\n"
        "    telemetry.counter('orders').add(2)\n"
        "    clock.advance(1)\n"
        "    telemetry.assert_counter('orders', 2)\n"
    )
    done = _pytest(tmp_path)
    assert done.returncode == 0, done.stdout


def test_without_its_fixture_the_contract_says_what_to_override(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from eventcore.testing import ExporterContract\nclass TestMine(ExporterContract):\n    pass\n"
    )
    done = _pytest(tmp_path, "-k", "test_each_counter")
    assert done.returncode == 1
    assert "TestMine inherits ExporterContract: override its fixture exporter_setup" in done.stdout


def test_the_contract_of_exporters_says_that_it_needs_pytest() -> None:
    done = _python(
        "import sys\nsys.modules['pytest'] = None\n"
        "from eventcore.testing import ExporterSetup\nfrom eventcore.testing import ExporterContract"
    )
    expected = "ImportError: eventcore.testing.ExporterContract needs pytest: pip install pytest"
    assert done.stderr.splitlines()[-1] == expected


def test_eventcore_itself_does_not_import_the_kit() -> None:
    done = _python("import sys, eventcore, eventcore.telemetry\nprint([name for name in sys.modules if 'testing' in name])")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


def _message(work: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        work()
    return re.sub(r"\x1b\[\d+m", "", str(caught.value))


def _pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_MODE, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
