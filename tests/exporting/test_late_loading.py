"""Plugins that are slow to import, to make or to start: whom they delay, what is shown, and when they join."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from eventcore import Telemetry, open_store
from eventcore.telemetry import Pipeline

# Threads, subprocesses and deadlines of loading are the same on every interpreter.
pytestmark = [pytest.mark.timing, pytest.mark.once]

LATE = {"late_import": "importing eventcore_late_import:Late", "late_constructor": "making the exporter by eventcore_late"}
SHORT = {"pipeline": {"load_timeout": 0.2}}


class Gate:
    """What late plugins wait for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def gate(plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gate]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(plugin_site("late"))
    monkeypatch.setenv("LATE_GATE", str(tmp_path / "gate"))
    gate = Gate(tmp_path / "gate")
    yield gate
    # The threads that still wait end now, and before the modules that they import are forgotten.
    gate.open()
    eventually(lambda: not thread_names("eventcore-load-"))
    for name in [name for name in sys.modules if name.startswith("eventcore_late")]:
        del sys.modules[name]


def telemetry_of(*names: str, **settings: Any) -> Telemetry:
    sections = {name: SHORT | settings.get(name, {}) for name in names}
    return Telemetry(config={"exporters": {"enabled": list(names), **sections}})


def states(telemetry: Telemetry) -> dict[str, str]:
    return {exporter.name: exporter.state for exporter in telemetry.exporters()}


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.mark.parametrize("late", ["late_import", "late_constructor", "late_start"])
def test_a_late_exporter_delays_neither_the_application_nor_its_siblings(gate: Gate, late: str) -> None:
    telemetry = telemetry_of(late, "prompt")
    begun = time.monotonic()
    telemetry.start_blocking()
    assert time.monotonic() - begun < 2.0
    assert states(telemetry)["prompt"] == "running"
    telemetry.counter("orders.shipped").add(3)
    assert telemetry.flush_blocking(1.0)["prompt"].delivered
    gate.open()
    eventually(lambda: telemetry.flush_blocking(1.0).delivered)
    (joined,) = [exporter for exporter in telemetry.exporters() if exporter.name == late]
    assert isinstance(joined, Pipeline)
    exporter: Any = joined.handle.exporter
    # It joined late, and has the totals from the beginning all the same.
    assert exporter.counters["orders.shipped"] == 3
    assert telemetry.shutdown_blocking(5.0)


@pytest.mark.parametrize(("late", "step"), LATE.items())
def test_a_late_exporter_is_loading_and_reports_do_not_call_it_delivered(gate: Gate, late: str, step: str) -> None:
    telemetry = telemetry_of(late)
    telemetry.start_blocking()
    (exporter,) = telemetry.exporters()
    assert (exporter.name, exporter.state, exporter.stats().spans) == (late, "loading", None)
    assert f"still loading: {step}" in exporter.problem
    begun = time.monotonic()
    for report in (telemetry.flush_blocking(5.0), telemetry.shutdown_blocking(5.0)):
        assert not report
        assert (report[late].state, report[late].delivered) == ("loading", False)
        assert step in report[late].reason
    # Nobody waits for what may never come.
    assert time.monotonic() - begun < 2.0


def test_a_late_exporter_gets_the_spans_that_ended_while_it_was_loading(gate: Gate) -> None:
    config = {"enabled": ["late_constructor"], "late_constructor": {"pipeline": {"load_timeout": 0.1, "span_queue": 3}}}
    telemetry = Telemetry(config={"exporters": config}, traces_per_second="all")
    telemetry.start_blocking()
    for number in range(5):
        with telemetry.span(f"span {number}"):
            pass
    report = telemetry.flush_blocking(1.0)["late_constructor"]
    assert (report.spans_recorded, report.spans_pending, report.spans_dropped["queue_full"]) == (5, 3, 2)
    gate.open()
    eventually(lambda: telemetry.exporters()[0].state == "running")
    report = telemetry.shutdown_blocking(5.0)["late_constructor"]
    assert (report.spans_recorded, report.spans_exported, report.spans_dropped["queue_full"]) == (5, 3, 2)


def test_spans_that_wait_for_an_exporter_that_never_comes_are_counted_as_dropped(gate: Gate) -> None:
    telemetry = telemetry_of("late_constructor")
    telemetry.start_blocking()
    with telemetry.span("a span"):
        pass
    report = telemetry.shutdown_blocking(5.0)["late_constructor"]
    assert (report.spans_recorded, report.spans_pending, report.spans_dropped["shutdown"]) == (1, 0, 1)


def test_an_exporter_whose_start_has_not_returned_is_loading(gate: Gate) -> None:
    telemetry = telemetry_of("late_start")
    telemetry.start_blocking()
    (exporter,) = telemetry.exporters()
    assert (exporter.state, exporter.problem) == ("loading", "still loading: its hook start has not returned")
    assert not telemetry.flush_blocking(0.2)
    gate.open()
    eventually(lambda: telemetry.exporters()[0].state == "running")
    assert telemetry.shutdown_blocking(5.0)


async def test_a_store_opens_while_a_plugin_hangs_and_its_metrics_show_the_state(gate: Gate) -> None:
    config = {"exporters": {"enabled": ["late_constructor"], "late_constructor": SHORT}}
    async with open_store("memory:", config=config) as store:
        gauges = (await asyncio.to_thread(store.telemetry.collect)).gauges
        (data,) = [data for data in gauges if data.name == "eventcore.exporters.state"]
        assert {dict(point.labels)["state"] for point in data.points if point.value} == {"loading"}


def test_an_exporter_that_comes_late_with_wrong_settings_has_failed(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = telemetry_of("late_import", late_import={"port": "x"})
    telemetry.start_blocking()
    assert states(telemetry) == {"late_import": "loading"}
    gate.open()
    eventually(lambda: states(telemetry) == {"late_import": "failed"})
    assert "exporters.late_import.port: expected int" in telemetry.exporters()[0].problem
    assert "exporters.late_import.port" in telemetry.flush_blocking(1.0)["late_import"].reason
    eventually(lambda: [record for record in caplog.records if record.levelno == logging.ERROR])
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "exporters.late_import.port" in record.getMessage()


def test_an_exporter_that_code_registers_takes_the_place_of_a_late_one_for_good(gate: Gate) -> None:
    telemetry = telemetry_of("late_constructor")
    telemetry.start_blocking()
    # Imported here: the plugin is on the path in these tests only.
    mine = importlib.import_module("eventcore_late").Prompt()
    telemetry.register_exporter(mine, name="late_constructor")
    eventually(lambda: states(telemetry) == {"late_constructor": "running"})
    gate.open()
    # The late one is not there, however long one waits: its thread has ended.
    eventually(lambda: not any("late_constructor" in name for name in thread_names("eventcore-load-")))
    (pipeline,) = telemetry.exporters()
    assert isinstance(pipeline, Pipeline)
    assert pipeline.handle.exporter is mine
    assert telemetry.shutdown_blocking(5.0)


async def test_an_exporter_that_is_loading_can_be_removed(gate: Gate) -> None:
    telemetry = telemetry_of("late_constructor")
    await telemetry.start()
    report = await telemetry.unregister_exporter("late_constructor")
    assert (report.state, report.delivered) == ("loading", False)
    assert telemetry.exporters() == ()
    with pytest.raises(KeyError):
        await telemetry.unregister_exporter("late_constructor")
    gate.open()
    eventually(lambda: not thread_names("eventcore-load-"))
    assert telemetry.exporters() == ()
    assert await telemetry.shutdown(5.0)


def test_an_exporter_that_comes_after_shutdown_is_not_started(gate: Gate) -> None:
    telemetry = telemetry_of("late_constructor")
    telemetry.start_blocking()
    telemetry.shutdown_blocking(5.0)
    gate.open()
    eventually(lambda: states(telemetry) == {"late_constructor": "failed"})
    assert "the telemetry is shut down" in telemetry.exporters()[0].problem


def test_imports_that_hang_are_waited_for_in_turn_and_not_for_longer_than_three_times_the_timeout(gate: Gate) -> None:
    config = {"enabled": ["late_import", "a", "b", "c", "d", "prompt"], "late_import": SHORT}
    config |= {name: SHORT | {"plugin": "late_import"} for name in "abcd"} | {"prompt": SHORT}
    telemetry = Telemetry(config={"exporters": config})
    begun = time.monotonic()
    telemetry.start_blocking()
    assert time.monotonic() - begun < 2.0
    gate.open()
    eventually(lambda: set(states(telemetry).values()) == {"running"})
    assert set(states(telemetry)) == {"late_import", "a", "b", "c", "d", "prompt"}
    assert telemetry.shutdown_blocking(5.0)


def test_the_same_instance_under_two_names_is_refused(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = telemetry_of("shared", "second", second={"plugin": "shared"})
    telemetry.start_blocking()
    assert states(telemetry) == {"shared": "running", "second": "failed"}
    (failed,) = telemetry.failed_exporters
    assert "the same instance is registered as 'shared'" in failed.reason
    assert telemetry.shutdown_blocking(5.0)["shared"].delivered


def thread_names(begin: str) -> list[str]:

    return [thread.name for thread in threading.enumerate() if thread.name.startswith(begin)]


CODE = """
import asyncio, json, sys, time
from eventcore import open_store

async def main():
    begun = time.monotonic()
    async with open_store("memory:") as store:
        seconds = time.monotonic() - begun
        while any(exporter.state == "loading" for exporter in store.telemetry.exporters()):
            await asyncio.sleep(0.01)
        states = {exporter.name: exporter.state for exporter in store.telemetry.exporters()}
        nested = getattr(sys.modules.get("eventcore_late_nested"), "STATES", None)
        print(json.dumps([seconds, states, nested]))

asyncio.run(main())
"""


def run_process(*arguments: str, exporters: Sequence[str]) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "OTEL_"))}
    environ = {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "EVENTCORE_EXPORTERS": ",".join(exporters)}
    return subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True, timeout=40, check=False)


def in_a_process(*names: str) -> Any:
    done = run_process("-c", CODE, exporters=names)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("command", ["plugins", "check"])
def test_the_command_line_ends_although_a_plugin_hangs(command: str, late: str) -> None:
    begun = time.monotonic()
    done = run_process("-m", "eventcore", command, "--json", exporters=[late, "prompt"])
    assert time.monotonic() - begun < 15.0
    assert (done.returncode, done.stderr) == (1, "")
    rows = {row["name"]: row for row in json.loads(done.stdout)["exporters"]}
    assert rows[late]["state"] == "loading"
    assert LATE[late] in (rows[late].get("reason") or rows[late].get("message"))
    assert rows["prompt"].get("ok", rows["prompt"]["state"] == "loaded")


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize("late", [*LATE, "late_start"])
def test_a_process_ends_although_a_plugin_hangs(late: str) -> None:
    code = "from eventcore import Telemetry; telemetry = Telemetry(); telemetry.start_blocking(); print('started')"
    begun = time.monotonic()
    done = run_process("-c", code, exporters=[late])
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert time.monotonic() - begun < 10.0


@pytest.mark.usefixtures("gate")
def test_a_plugin_that_opens_a_store_while_it_is_imported_does_not_deadlock() -> None:
    seconds, states, nested = in_a_process("nested_import", "prompt")
    assert seconds < 5.0
    assert states == {"nested_import": "running", "prompt": "running"}
    # The inner store cannot wait for the plugin that waits for it.
    assert nested == {"nested_import": "failed", "prompt": "running"}


@pytest.mark.usefixtures("gate")
def test_a_plugin_that_opens_a_store_in_another_thread_while_it_is_imported_does_not_deadlock() -> None:
    seconds, states, _ = in_a_process("nested_thread", "prompt")
    assert seconds < 10.0
    assert states == {"nested_thread": "running", "prompt": "running"}
