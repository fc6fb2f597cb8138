"""An exporter in a process of its own: the same hooks, the same account and the same state as in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventcore.exporting.delivery import Pipeline
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.process.packing import pack_spans
from eventcore.exporting.registration import check_exporter
from eventcore.ground import in_background
from eventcore.recording import Exemplar, Span
from tests.pipeline.conftest import FAST, Bench, eventually
from tests.pipeline.probing import Probe, in_a_process, written

# Each test starts a process or two, and what they say to each other does not depend on the interpreter.
pytestmark = [pytest.mark.once, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
SETTINGS = msgspec.structs.replace(FAST, process=True, export_timeout=20.0)


def add(bench: Bench, handle: ExporterHandle, **settings: Any) -> Pipeline:
    pipeline = bench.manager.add("probe", handle, msgspec.structs.replace(SETTINGS, **settings), {"path": "shown"})
    assert pipeline.started.wait(30)
    return pipeline


def pid_of(pipeline: Pipeline) -> int:
    handle: Any = pipeline.handle
    return int(eventually(lambda: handle._process).pid)


def is_running(pid: int) -> bool:
    # A killed process is a zombie until its parent has waited for it; its first thread may be one before the others.
    states: list[str] = []
    with contextlib.suppress(OSError):
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                states.append(stat.read_text().rpartition(")")[2].split()[0])
    return any(state not in "ZX" for state in states)


def account(pipeline: Pipeline) -> tuple[int, int, int, int]:
    """Exported, dropped, unknown and pending spans; their sum is what was recorded."""
    spans = pipeline.stats().spans
    assert spans is not None
    parts = spans.exported, sum(spans.dropped.values()), spans.unknown, spans.pending
    assert spans.recorded == sum(parts), spans
    return parts


def test_spans_and_metrics_arrive_as_they_do_in_a_thread(bench: Bench, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    add(bench, in_a_process(there, fault="shows all"))
    bench.add(Probe(str(here), fault="shows all"), "thread")
    bench.count(3)
    histogram = bench.registry.histogram(
        "lasted", unit="s", description="How long.", labels=("kind",), boundaries=(1.0,), exemplars=True
    )
    histogram.labels("slow").offer(1.5, bench.tracer.span("sampled"))
    bench.registry.gauge("level", unit="", description="", labels=()).set(2.5)
    with bench.tracer.span("ship", kind="client", attributes={"a": (1, 2)}) as span:
        span.add_event("packed", {"by": "hand"})
        span.set_status("error", "broken")
    assert bench.manager.flush(20.0)
    assert written(there, "spans") == written(here, "spans") != []
    # The two may have got two collections.
    collected = [[re.sub(r"\btime_ns=\d+", "", data) for data in written(path, "metrics")[0]] for path in (here, there)]
    assert sorted(collected[0]) == sorted(collected[1])
    assert "Exemplar(" in str(written(there, "metrics"))
    assert Exemplar.__name__ in str(written(here, "metrics"))
    assert written(there, "pid")[0] != os.getpid() == written(here, "pid")[0]


# By what goes wrong: exported, dropped, unknown and pending spans of 20, and what is wrong with the exporter.
ANSWERS = {
    "later once": ((20, 0, 0, 0), ""),
    "never": ((0, 20, 0, 0), "spans: the token is wrong"),
    "raises": ((0, 0, 0, 20), "spans: LookupError: no such backend"),
    "refuses odd ones": ((18, 2, 0, 0), ""),
    "rejects some": ((19, 1, 0, 0), ""),
    "cannot begin": ((0, 0, 0, 20), "spans: ValueError: nothing begins here"),
}


def wait_for(pipeline: Pipeline, expected: tuple[int, ...], problem: str) -> None:
    eventually(lambda: (account(pipeline), pipeline.problem) == (expected, problem), 30)


def test_what_a_hook_answers_has_the_same_effect_as_in_a_thread(bench: Bench, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, span_batch=20, span_interval=0.5, backoff=0.2, max_backoff=0.2)
    pairs: dict[str, list[Pipeline]] = {}
    for number, fault in enumerate(ANSWERS):
        here, there = tmp_path / f"here{number}", tmp_path / f"there{number}"
        handles = check_exporter(Probe(str(here), fault=fault)), in_a_process(there, fault=fault)
        pairs[fault] = [
            bench.manager.add(f"{side}{number}", handle, settings, {})
            for side, handle in zip(("here", "there"), handles, strict=True)
        ]
    assert bench.manager.wait_started(60.0)
    bench.end_spans(20)
    for number, (fault, pair) in enumerate(pairs.items()):
        expected, problem = ANSWERS[fault]
        for pipeline in pair:
            wait_for(pipeline, expected, problem)
        assert pair[1].state == pair[0].state
        files = tmp_path / f"here{number}", tmp_path / f"there{number}"
        assert written(files[0], "spans") == written(files[1], "spans")


def test_what_a_dead_process_has_not_acknowledged_is_unknown_and_it_is_started_again(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "probe"
    pipeline = add(bench, in_a_process(path, fault="dies"), span_batch=10, backoff=0.1, max_backoff=0.1)
    pid = pid_of(pipeline)
    bench.end_spans(10)
    eventually(lambda: account(pipeline) == (0, 0, 10, 0))
    assert eventually(lambda: len(written(path, "started")) == 2)
    eventually(lambda: pipeline.state == "failing")
    assert pipeline.problem.removeprefix("spans: ") == f"the exporter's process {pid} ended with exit code 3"
    messages = [record.getMessage() for record in caplog.records if record.name == "eventcore.exporters.probe"]
    assert f"whether 10 spans arrived is unknown: the exporter's process {pid} ended with exit code 3" in messages
    assert f"the exporter's process {pid} ended with exit code 3, and is started again" in messages
    assert not is_running(pid)


def test_a_flush_delivers_what_is_left_after_the_process_has_died(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "probe"
    pipeline = add(bench, in_a_process(path), span_interval=3600.0, backoff=0.1, max_backoff=0.1)
    bench.end_spans(5)
    pid = pid_of(pipeline)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid))
    report = bench.manager.shutdown(20.0)
    assert report, report
    assert written(path, "spans") == [[f"span {number}" for number in range(5)]]
    assert written(path, "shut_down") == [True]


def test_a_process_whose_hook_hangs_is_ended_at_the_deadline_of_shutdown(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "probe"
    pipeline = add(bench, in_a_process(path, fault="hangs"))
    pid = pid_of(pipeline)
    bench.end_spans(7)
    eventually(lambda: written(path, "hangs"))
    begun = time.monotonic()
    report = bench.manager.shutdown(2.0)
    assert time.monotonic() - begun < 6.0
    assert not report
    assert account(pipeline) == (0, 0, 7, 0)
    eventually(lambda: not is_running(pid))


def test_a_process_that_is_stopped_and_reads_nothing_is_killed_at_the_deadline_of_shutdown(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "probe"
    pipeline = add(bench, in_a_process(path))
    handle: Any = pipeline.handle
    process, pid = handle._process, pid_of(pipeline)
    os.kill(pid, signal.SIGSTOP)
    # More than the buffers of the sockets hold.
    with bench.tracer.span("big") as span:
        for _ in range(20):
            span.add_event("large", {f"text{number}": "x" * 1000 for number in range(100)})
    eventually(process._channel._sending.locked)
    begun = time.monotonic()
    report = in_background(lambda: bench.manager.shutdown(2.0), "shutdown").result(15.0)
    assert time.monotonic() - begun < 6.0
    assert not report
    eventually(lambda: not is_running(pid))


def test_a_process_whose_hook_never_gives_up_the_gil_ends_by_itself(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "probe"
    pipeline = add(bench, in_a_process(path, fault="holds the GIL"))
    pid = pid_of(pipeline)
    bench.end_spans(1)
    eventually(lambda: written(path, "hangs"))
    eventually(lambda: not is_running(pid), 20)
    eventually(lambda: f"the exporter's process {pid} ended with exit code 1" in pipeline.problem, 20)


def test_what_python_ignores_in_its_path_does_not_keep_the_process_from_starting(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [tmp_path, b"/nowhere", *sys.path])
    path = tmp_path / "probe"
    add(bench, in_a_process(path))
    bench.end_spans(3)
    assert bench.manager.flush(20.0)
    assert written(path, "pid")[0] != os.getpid()


_WITHOUT_A_DIRECTORY = """
import asyncio, json, os, sys
from eventcore import open_store

async def main():
    async with open_store("memory:", exporters=["console"], config=json.loads(sys.argv[1])) as store:
        pipeline, = store.telemetry.exporters()
        report = await store.telemetry.flush(20.0)
        print(pipeline.state, report["console"].delivered, type(pipeline.handle).__name__, pipeline.problem)

os.rmdir(os.getcwd())
asyncio.run(main())
"""


@pytest.mark.parametrize("process", [True, False])
def test_a_working_directory_that_was_removed_keeps_no_exporter_from_starting(tmp_path: Path, process: bool) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    tables = {"exporters": {"console": {"pipeline": {"process": process}}}}
    environ = {name: text for name, text in os.environ.items() if not name.startswith("EVENTCORE_")}
    done = subprocess.run(
        # Of a program that is passed with `-c`, the path begins with "": the working directory.
        [sys.executable, "-c", _WITHOUT_A_DIRECTORY, json.dumps(tables)],
        cwd=gone,
        env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert not gone.exists()
    assert done.stdout == f"running True {'ProcessHandle' if process else 'ExporterHandle'} \n", done.stderr


def test_the_process_ends_when_the_stores_process_is_killed_and_a_forked_child_has_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.pipeline.probing_parent", str(tmp_path / "probe")]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    said = json.loads(parent.stdout.readline())
    try:
        assert is_running(said["exporter"])
        parent.kill()
        parent.wait()
        eventually(lambda: not is_running(said["exporter"]))
        # The exporter's process of the child lives as long as the child.
        assert is_running(said["child"])
        assert is_running(said["child_exporter"])
    finally:
        os.kill(said["child"], signal.SIGKILL)
        parent.stdout.close()
    eventually(lambda: not is_running(said["child_exporter"]))
    # Spans of the parent and of its child, each delivered by the process of its own.
    assert sorted(map(len, written(tmp_path / "probe", "spans"))) == [1, 2]


async def test_spans_are_packed_on_the_event_loop_in_slices(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[tuple[int, int]] = []

    def pack(spans: Sequence[Span]) -> bytes:
        packed.append((threading.get_ident(), len(spans)))
        return pack_spans(spans)

    monkeypatch.setattr("eventcore.exporting.process.handle.pack_spans", pack)
    # On a busy machine, the loop may be late without being blocked.
    monkeypatch.setattr("eventcore.ground.yielding._LONGEST_WAIT", 20.0)
    stop = bench.manager.slices.lend()
    pipeline = await asyncio.to_thread(add, bench, in_a_process(tmp_path / "probe"), span_interval=3600.0)
    bench.end_spans(2000)
    assert await asyncio.to_thread(bench.manager.flush, 20.0)
    stop()
    assert account(pipeline) == (2000, 0, 0, 0)
    assert {thread for thread, _ in packed} == {threading.get_ident()}
    # A slice is as many spans as take 0.2 ms, which the first one, of 50, has measured.
    assert packed[0][1] == 50
    assert len(packed) > 2
    assert sum(count for _, count in packed) == 2000


class Running:
    """A probe in a process, which several tests use, in this order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bench = Bench()
        self.bench.count()
        self.pipeline = add(self.bench, in_a_process(path, token="s3cret-token", fault="talks"), backoff=0.5, max_backoff=0.5)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("OTLP_TOKEN", "s3cret-of-the-environment")
        running = Running(tmp_path_factory.mktemp("running") / "probe")
        yield running
        running.bench.manager.shutdown(5.0)


def test_what_the_exporter_asks_of_its_context_and_logs_reaches_the_stores_process(
    caplog: pytest.LogCaptureFixture, running: Running
) -> None:
    eventually(lambda: written(running.path, "exported_now"))
    assert len(written(running.path, "metrics")) == 1
    assert eventually(lambda: running.pipeline.hidden) == {"orders.shipped": "its name is taken"}
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    [record] = [each for each in records if each.getMessage() == "the backend is slow today"]
    assert (record.name, record.levelno) == ("eventcore.exporters.probe", logging.WARNING)


def test_secrets_reach_the_exporter_and_nobody_else(running: Running) -> None:
    assert written(running.path, "token") == ["s3cret-token"]
    assert written(running.path, "settings") == [{"path": "shown"}]
    for file in ("cmdline", "environ"):
        shown = Path(f"/proc/{pid_of(running.pipeline)}/{file}").read_bytes()
        assert shown
        assert b"s3cret" not in shown
        assert str(running.path).encode() not in shown


def test_signals_for_the_whole_group_leave_it_running(running: Running) -> None:
    pid = pid_of(running.pipeline)
    assert os.getpgid(pid) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    running.bench.end_spans(2)
    assert running.bench.manager.flush(20.0)
    assert (account(running.pipeline), pid_of(running.pipeline)) == ((2, 0, 0, 0), pid)
    assert running.pipeline.stats().cpu_seconds > 0.05  # the other process has imported the exporter


def test_a_process_that_dies_while_nothing_is_exported_is_noticed_and_started_again(running: Running) -> None:
    pipeline = running.pipeline
    pid = pid_of(pipeline)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: pipeline.state == "failing" and pipeline.problem)
    assert pipeline.problem == f"the exporter's process {pid} was ended by SIGKILL"
    eventually(lambda: pipeline.state == "running")
    assert pid_of(pipeline) != pid
    running.bench.end_spans(5)
    assert running.bench.manager.flush(20.0)
    assert account(pipeline) == (7, 0, 0, 0)


def test_shutdown_is_acknowledged_and_ends_the_process(running: Running) -> None:
    pipeline = running.pipeline
    pid = pid_of(pipeline)
    running.bench.end_spans(3)
    assert running.bench.manager.shutdown(20.0)
    assert written(running.path, "spans")[-1] == ["span 0", "span 1", "span 2"]
    assert written(running.path, "shut_down") == [True]
    assert (pipeline.state, account(pipeline)) == ("stopped", (10, 0, 0, 0))
    assert not is_running(pid)
