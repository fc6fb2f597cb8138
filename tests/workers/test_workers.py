"""Processes of one service behind one port, as real processes that are frozen and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
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

from tests.real_parts.ports import free_ports
from tests.real_parts.waiting import wait_until

ROOT = Path(__file__).parents[2]
UP = "eventcore_exporters_worker_up"


class Process:
    """One process of a service; ``prefix`` is the command that starts it."""

    def __init__(self, port: int | str, service: str, mode: str = "auto", prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "tests.workers.process", str(port), service, mode]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "EVENTCORE_"))}
        self._running = subprocess.Popen(
            command, cwd=ROOT, env=inherited, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.number = -1

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

    def stop(self) -> None:
        if self._running.poll() is None:
            self.send(signal.SIGKILL)


Start = Callable[..., list[Process]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes side by side, and waits until they run."""
    started: list[Process] = []

    def begin(count: int, *arguments: Any, **options: Any) -> list[Process]:
        new = [Process(*arguments, **options) for _ in range(count)]
        started.extend(new)
        for each in new:
            each.read()
        return new

    yield begin
    for each in started:
        each.stop()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def page(port: int, accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def values(text: str, name: str = "hits_total") -> dict[str, float]:
    """The values of one series of each worker."""
    samples = [sample for family in read_text(text) for sample in family.samples if sample.name == name]
    return {sample.labels["worker"]: sample.value for sample in samples}


def answered(port: int) -> dict[str, float]:
    try:
        return values(page(port), UP)
    except OSError:
        return {}


def test_one_page_has_all_processes_of_a_service_apart_and_every_mount_has_the_same(start: Start, port: int) -> None:
    processes = start(3, port, "shop")
    wait_until(lambda: answered(port) == {"0": 1, "1": 1, "2": 1}, 10, "every process is on the page")
    for number, process in enumerate(processes, 1):
        process.ask(add=10**number)
    text = page(port)
    assert sorted(values(text).values()) == [10, 100, 1000]
    assert values(text, "level") == {"0": 7, "1": 7, "2": 7}
    # The label that the application itself has is renamed, as Prometheus does it.
    assert 'hits_total{worker="0",exported_worker="own"}' in text
    families = list(read_text(text))
    assert len({family.name for family in families}) == len(families)
    assert {sample.labels.get("worker") for family in families for sample in family.samples} == {"0", "1", "2"}
    assert len(list(read_openmetrics(page(port, "application/openmetrics-text; version=1.0.0")))) == len(families)
    for process in processes:
        assert values(process.ask(mount=True)) == values(text)
        assert process.ask(state=True) == ["running", "", f"http://127.0.0.1:{port}/metrics"]
    assert sum(process.holds(port) for process in processes) == 1


def test_killed_and_frozen_workers_lose_nothing_and_delay_little(start: Start, port: int) -> None:
    processes = start(3, port, "shop")
    wait_until(lambda: len(answered(port)) == 3, 10, "every process is on the page")
    (holder,) = (process for process in processes if process.holds(port))
    victim, other = (process for process in processes if process is not holder)
    victim.ask(add=5)
    other.ask(add=70)
    holder.ask(add=900)
    (number,) = (worker for worker, value in values(page(port)).items() if value == 5)

    # A frozen worker delays one scrape, and its gauges are not shown as if they were the present ones.
    victim.send(signal.SIGSTOP)
    begun = time.monotonic()
    text = page(port)
    assert time.monotonic() - begun < 3
    assert values(text, UP)[number] == 0
    assert number not in values(text, "level")
    assert values(text)[number] == 5
    begun = time.monotonic()
    page(port)
    assert time.monotonic() - begun < 0.9
    victim.send(signal.SIGCONT)
    wait_until(lambda: answered(port)[number] == 1, 5, "the thawed worker answers")

    # Of a killed worker, counters and histograms are shown once more; then its number is free.
    victim.send(signal.SIGKILL)
    text = page(port)
    assert (values(text)[number], values(text, "sizes_count")[number], values(text, UP)[number]) == (5, 1, 0)
    assert number not in values(text, "level")
    assert number not in values(page(port))
    (successor,) = start(1, port, "shop")
    successor.ask(add=2)
    wait_until(lambda: values(page(port)).get(number) == 2, 5, "the new process has the number of the killed one")

    # The holder's own last values come from its successor, within a second.
    wait_until(lambda: sorted(values(page(port)).values()) == [2, 70, 900], 5)
    time.sleep(1.1)  # what the holder has recorded less than a second ago may be lost
    holder.send(signal.SIGKILL)
    begun = time.monotonic()
    found = wait_until(lambda: answered(port), 5, "another process answers")
    assert time.monotonic() - begun < 1.5
    assert sorted(found.values()) == [0, 1, 1]
    assert sorted(values(page(port)).values()) == [2, 70]


def test_a_process_that_ends_in_order_hands_over_everything(start: Start, port: int) -> None:
    processes = start(2, port, "shop")
    wait_until(lambda: len(answered(port)) == 2, 10, "both processes are on the page")
    (holder,) = (process for process in processes if process.holds(port))
    (member,) = (process for process in processes if process is not holder)
    member.ask(add=3)
    holder.ask(add=40)
    holder.end()
    found = wait_until(lambda: values(page(port)) if answers(port) else {}, 5, "the other process answers")
    assert sorted(found.values()) == [3, 40]


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/nothing", timeout=5).close()
    except urllib.error.HTTPError as refused:
        refused.close()
        return True
    except OSError:
        return False
    return True


def test_strangers_never_merge_and_get_a_clear_error(start: Start, port: int) -> None:
    # Two shells beside each other, as of two test runs; a service of another name; and one that wants to be alone.
    shell = ("sh", "-c", '"$@"; exit $?', "sh")
    (first,) = start(1, port, "", prefix=shell)
    for name, mode, prefix in (("", "auto", shell), ("", "auto", ()), ("other", "auto", ()), ("", "off", ())):
        (stranger,) = start(1, port, name, mode, prefix=prefix)
        state, problem, _ = stranger.ask(state=True)
        assert state != "running"
        wait_until(lambda: "taken" in stranger.ask(state=True)[1], 5, "the error of the stranger")
        assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in stranger.ask(state=True)[1], problem
    first.ask(add=1)
    assert values(page(port)) == {"0": 1}


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
