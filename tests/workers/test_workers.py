"""Processes of one service behind one port, as real processes that are frozen and killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from eventcore import Telemetry
from eventcore.telemetry import Pipeline
from eventcore_prometheus import PrometheusExporter
from eventcore_prometheus.workers import holder, member, place
from tests.real_parts.ports import free_ports
from tests.real_parts.waiting import wait_until

ROOT = Path(__file__).parents[2]
UP = "eventcore_exporters_worker_up"

pytestmark = pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="who is whose sibling is read from /proc")


class Process:
    """One process of a service; ``prefix`` is the command that starts it."""

    def __init__(
        self, port: int | str, service: str, mode: str = "auto", prefix: tuple[str, ...] = (), tokens: tuple[str, ...] = ()
    ) -> None:
        command = [*prefix, sys.executable, "-m", "tests.workers.process", str(port), service, mode, *tokens]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "EVENTCORE_"))}
        self._running = subprocess.Popen(
            command, cwd=ROOT, env=inherited, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> Any:
        assert self._running.stdout is not None
        return json.loads(self._running.stdout.readline())

    def ask(self, **request: object) -> Any:
        assert self._running.stdin is not None
        self._running.stdin.write(json.dumps(request) + "\n")
        self._running.stdin.flush()
        return self.read()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process that runs Python, and wait for its end if it is killed."""
        process = psutil.Process(self._running.pid)
        for each in [*process.children(), process]:
            each.send_signal(number)
        if number == signal.SIGKILL:
            self.wait()

    def end(self) -> None:
        """Let it shut down in order."""
        assert self._running.stdin is not None
        self._running.stdin.close()
        self.wait()

    def wait(self) -> None:
        self._running.wait(10)
        for pipe in (self._running.stdin, self._running.stdout):
            if pipe is not None:
                pipe.close()

    def holds(self, port: int) -> bool:
        connections = psutil.Process(self._running.pid).net_connections("inet")
        return any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in connections)

    @property
    def running(self) -> bool:
        return self._running.poll() is None

    def stop(self) -> None:
        if self.running:
            self.send(signal.SIGKILL)


Start = Callable[..., list[Process]]


def start_all(processes: list[Process]) -> list[Process]:
    """Wait until processes that were started side by side run."""
    for process in processes:
        process.read()
    return processes


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes side by side, and waits until they run."""
    started: list[Process] = []

    def begin(count: int, *arguments: Any, **options: Any) -> list[Process]:
        new = [Process(*arguments, **options) for _ in range(count)]
        started.extend(new)
        return start_all(new)

    yield begin
    for each in started:
        each.stop()


class Shop:
    """Three processes of one service; the tests of this file kill them one after the other."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.processes = [Process(self.port, "shop") for _ in range(3)]
        start_all(self.processes)
        wait_until(lambda: len(answered(self.port)) == 3, 10, "every process is on the page")

    @property
    def running(self) -> list[Process]:
        return [process for process in self.processes if process.running]

    @property
    def holder(self) -> Process:
        (holder,) = (process for process in self.running if process.holds(self.port))
        return holder

    def hits(self) -> dict[str, float]:
        return values(page(self.port))


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    for process in made.processes:
        process.stop()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def page(port: int, accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def parsed(text: str) -> list[Any]:
    return list(read_text(text))


def values(text: str, name: str = "hits_total") -> dict[str, float]:
    """The values of one series of each worker."""
    samples = [sample for family in parsed(text) for sample in family.samples if sample.name == name]
    return {sample.labels["worker"]: sample.value for sample in samples}


def answered(port: int) -> dict[str, float]:
    try:
        return values(page(port), UP)
    except OSError:
        return {}


def test_one_page_has_all_processes_of_a_service_apart_and_every_mount_has_the_same(shop: Shop) -> None:
    for number, process in enumerate(shop.processes, 1):
        process.ask(add=10**number)
    text = page(shop.port)
    assert values(text, UP) == {"0": 1, "1": 1, "2": 1}
    assert sorted(values(text).values()) == [10, 100, 1000]
    assert values(text, "level") == {"0": 7, "1": 7, "2": 7}
    # The label that the application itself has is renamed, as Prometheus does it.
    assert 'hits_total{worker="0",exported_worker="own"}' in text
    families = parsed(text)
    assert len({family.name for family in families}) == len(families)
    assert {sample.labels.get("worker") for family in families for sample in family.samples} == {"0", "1", "2"}
    openmetrics = page(shop.port, "application/openmetrics-text; version=1.0.0")
    assert list(read_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
    for process in shop.processes:
        assert values(process.ask(mount=True)) == values(text)
        assert process.ask(state=True) == ["running", "", f"http://127.0.0.1:{shop.port}/metrics"]
    assert sum(process.holds(shop.port) for process in shop.processes) == 1


def test_a_frozen_worker_delays_one_scrape_and_shows_as_down(shop: Shop) -> None:
    before = shop.hits()
    victim = next(process for process in shop.running if process is not shop.holder)
    victim.send(signal.SIGSTOP)
    begun = time.monotonic()
    text = page(shop.port)
    assert time.monotonic() - begun < 3
    (number,) = (worker for worker, up in values(text, UP).items() if not up)
    # Its counters are true; its gauges would be taken for the present values.
    assert number not in values(text, "level")
    assert values(text) == before
    begun = time.monotonic()
    page(shop.port)
    assert time.monotonic() - begun < 0.9
    victim.send(signal.SIGCONT)
    wait_until(lambda: answered(shop.port)[number] == 1, 5, "the thawed worker answers")


def test_every_scraper_gets_the_last_counters_of_a_killed_worker_and_its_number_is_not_used_meanwhile(shop: Shop) -> None:
    victim = next(process for process in shop.running if process is not shop.holder)
    before = shop.hits()
    victim.ask(add=5)
    after = shop.hits()
    (number,) = (worker for worker in after if after[worker] != before[worker])
    victim.send(signal.SIGKILL)
    text = page(shop.port)
    assert (values(text), values(text, UP)[number]) == (after, 0)
    assert values(text, "sizes_count")[number] == 1
    assert number not in values(text, "level")
    text = page(shop.port)
    assert values(text) == after
    assert number not in values(text, UP)
    shop.processes += start_all([Process(shop.port, "shop")])
    shop.processes[-1].ask(add=2)
    found = wait_until(lambda: shop.hits() if len(shop.hits()) == len(after) + 1 else {}, 5, "the new process is on the page")
    assert {worker: found[worker] for worker in after} == after


def test_another_process_takes_over_from_a_killed_holder_within_a_second(shop: Shop) -> None:
    holder = shop.holder
    holder.ask(add=900)
    before = shop.hits()
    time.sleep(1.1)  # what the holder has recorded less than a second ago may be lost
    holder.send(signal.SIGKILL)
    begun = time.monotonic()
    text = wait_until(lambda: page(shop.port) if answers(shop.port) else "", 5, "another process answers")
    assert time.monotonic() - begun < 1.5
    assert values(text) == before
    assert sorted(values(text, UP).values()) == [0, 1, 1]
    text = page(shop.port)
    assert values(text) == before
    assert sorted(values(text, UP).values()) == [1, 1]


def test_a_process_that_ends_in_order_hands_over_everything(shop: Shop) -> None:
    holder = shop.holder
    holder.ask(add=40)
    expected = sum(shop.hits().values())
    holder.ask(add=1)
    holder.end()
    found = wait_until(lambda: shop.hits() if answers(shop.port) else {}, 5, "the last process answers")
    assert sum(found.values()) == expected + 1


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/nothing", timeout=5).close()
    except urllib.error.HTTPError as refused:
        refused.close()
        return True
    except OSError:
        return False
    return True


def test_files_that_a_tidying_program_has_removed_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(holder, "_TOUCH_INTERVAL", 0.05)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(place, "_candidates", lambda: iter([tmp_path / "run" / "e", tmp_path / "e"]))
    monkeypatch.setattr(place, "_LONGEST_DIRECTORY", 500)
    telemetry = Telemetry(service_name="tidied", exporters=[], config={})
    telemetry.register_exporter(PrometheusExporter(port))
    telemetry.start_blocking()
    try:
        files = {path.suffix[1:]: path for path in (tmp_path / "run" / "e").iterdir()}
        for suffixes in (("sock",), ("lock",), ("lock", "sock")):
            inodes = {suffix: files[suffix].stat().st_ino for suffix in suffixes}
            for suffix in suffixes:
                files[suffix].rename(tmp_path / suffix)  # so that its inode is not used again
            wait_until(lambda: all(each.exists() for each in files.values()), 5, "both files are there again")
            assert all(files[suffix].stat().st_ino != inode for suffix, inode in inodes.items())
            assert place.Place(files["lock"], files["sock"]).try_lock() is None
        # The directory and all above it: the other one is used then.
        (tmp_path / "run").rename(tmp_path / "gone")
        files = {suffix: tmp_path / "e" / path.name for suffix, path in files.items()}
        wait_until(lambda: all(each.exists() for each in files.values()), 5, "both files are in another directory")
        assert place.Place(files["lock"], files["sock"]).try_lock() is None
    finally:
        telemetry.shutdown_blocking(5.0)
    assert list((tmp_path / "e").iterdir()) == []


@pytest.mark.once
def test_processes_meet_elsewhere_when_their_directory_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    folders = [tmp_path / "run" / "e", tmp_path / "e"]
    folders[0].parent.mkdir()
    monkeypatch.setattr(place, "_candidates", lambda: iter(folders))
    monkeypatch.setattr(place, "_LONGEST_DIRECTORY", 500)
    monkeypatch.setattr(member, "name_of_process", lambda: str(threading.get_ident()))
    started: list[Telemetry] = []
    try:
        for _ in range(3):
            started.append(Telemetry(service_name="moved", exporters=[], config={}))
            started[-1].register_exporter(PrometheusExporter(port))
            started[-1].start_blocking()
        wait_until(lambda: len(answered(port)) == 3, 5, "all are on the page")
        shutil.rmtree(folders[0].parent)
        started[0].shutdown_blocking(5.0)
        wait_until(lambda: sum(answered(port).values()) == 2, 5, "another one has taken over, and the third has found it")
    finally:
        for telemetry in started:
            telemetry.shutdown_blocking(5.0)


@pytest.mark.once
@pytest.mark.parametrize("refused", ["lock", "socket"])
def test_a_process_that_cannot_make_its_files_answers_for_itself(
    monkeypatch: pytest.MonkeyPatch, port: int, refused: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    # A name that no file can have stands for a file system without space: both are an error of the system.
    monkeypatch.setattr(place, "_candidates", lambda: iter([tmp_path / "e"]))
    monkeypatch.setattr(place, "_LONGEST_DIRECTORY", 500)
    original = place._place

    def with_a_name_that_is_too_long(directory: Path, *words: str) -> place.Place:
        found = original(directory, *words)
        long = directory / ("x" * 300)
        return place.Place(long, found.socket) if refused == "lock" else place.Place(found.lock, long)

    monkeypatch.setattr(place, "_place", with_a_name_that_is_too_long)
    telemetry = Telemetry(service_name="full", exporters=[], config={})
    telemetry.register_exporter(PrometheusExporter(port))
    telemetry.counter("hits").add(3)
    telemetry.start_blocking()
    try:
        (exporter,) = telemetry.exporters()
        assert isinstance(exporter, Pipeline)
        assert (exporter.state, exporter.problem) == ("running", "")
        assert "hits_total 3" in page(port)
        assert "this process answers for itself alone" in caplog.text
    finally:
        telemetry.shutdown_blocking(5.0)


def test_a_second_exporter_of_one_process_finds_the_port_taken(port: int) -> None:
    first, second = (Telemetry(service_name="twice", exporters=[], config={}) for _ in range(2))
    first.register_exporter(PrometheusExporter(port))
    first.start_blocking()
    try:
        second.register_exporter(PrometheusExporter(port))
        second.start_blocking()
        (exporter,) = second.exporters()
        assert isinstance(exporter, Pipeline)
        assert wait_until(lambda: exporter.state == "failing", 5)
        assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in exporter.problem
        assert answered(port) == {"0": 1}
    finally:
        second.shutdown_blocking(5.0)
        first.shutdown_blocking(5.0)


@pytest.mark.once
def test_a_process_that_asks_for_a_token_is_not_shown_by_one_that_does_not(start: Start, port: int) -> None:
    start(1, port, "guarded")
    (guarded,) = start(1, port, "guarded", tokens=("a-token-of-the-test",))
    assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in problem_of(guarded)
    guarded.ask(add=1)
    assert values(page(port)) == {"0": 0}


@pytest.mark.once
def test_a_second_exporter_of_one_worker_does_not_push_the_first_one_out(start: Start, port: int) -> None:
    start(1, port, "twice")
    first, second, third = (Telemetry(service_name="twice", exporters=[], config={}) for _ in range(3))
    try:
        for telemetry in (first, second):
            telemetry.register_exporter(PrometheusExporter(port))
            telemetry.start_blocking()
        (exporter,) = second.exporters()
        assert isinstance(exporter, Pipeline)
        assert wait_until(lambda: exporter.state == "failing", 5)
        assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in exporter.problem
        assert answered(port) == {"0": 1, "1": 1}
        # When the first one has ended, its process may have another one at once.
        second.shutdown_blocking(5.0)
        first.shutdown_blocking(5.0)
        third.register_exporter(PrometheusExporter(port))
        third.start_blocking()
        (exporter,) = third.exporters()
        assert isinstance(exporter, Pipeline)
        assert (exporter.state, exporter.problem) == ("running", "")
    finally:
        for telemetry in (first, second, third):
            telemetry.shutdown_blocking(5.0)


@pytest.mark.once
def test_containers_that_share_a_directory_are_not_taken_for_one_process(start: Start, port: int) -> None:
    unshare = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a namespace of processes")
    # Each is the first process of its container.
    start(2, port, "contained", prefix=unshare)
    wait_until(lambda: answered(port) == {"0": 1, "1": 1}, 10, "all containers are on the page")


def test_strangers_never_merge_and_get_a_clear_error(start: Start, port: int) -> None:
    # Two shells beside each other, as of two test runs; a service of another name; and one that wants to be alone.
    shell = ("sh", "-c", '"$@"; exit $?', "sh")
    (first,) = start(1, port, "", prefix=shell)
    strangers = [Process(port, "", prefix=shell), Process(port, "other"), Process(port, "", "off")]
    try:
        start_all(strangers)
        for stranger in strangers:
            assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in problem_of(stranger)
        first.ask(add=1)
        assert values(page(port)) == {"0": 1}
    finally:
        for stranger in strangers:
            stranger.stop()


def problem_of(stranger: Process) -> str:
    """Why its exporter does not run."""

    def problem() -> str:
        state, text, _ = stranger.ask(state=True)
        return text if state == "failing" else ""

    return wait_until(problem, 10, "the exporter has failed to start")


def test_siblings_without_a_name_are_one_service_and_leave_no_file(start: Start, port: int) -> None:
    before = meeting_files()
    processes = start(2, port, "")
    wait_until(lambda: len(answered(port)) == 2, 10, "both processes are on the page")
    during = meeting_files() - before
    assert during
    assert all(path.stat().st_size == 0 for path in during)
    processes[0].send(signal.SIGKILL)
    wait_until(lambda: answers(port), 5)
    processes[1].end()
    assert meeting_files() & during == set()


def meeting_files() -> set[Path]:
    user = os.geteuid()
    folders = (Path(f"/run/user/{user}/eventcore"), Path(tempfile.gettempdir()) / f"eventcore-{user}")
    return {path for folder in folders for path in folder.glob("*") if path.exists()}
