"""A process that forks while its exporter listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.real_parts.ports import free_ports
from tests.real_parts.waiting import wait_until
from tests.workers.test_workers import ROOT, page, values

Fork = Callable[[int, str], tuple[subprocess.Popen[str], int]]


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Starts the process; returns it and the port at which it listens."""
    started: list[tuple[subprocess.Popen[str], int]] = []

    def begin(port: int, mode: str) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-m", "tests.workers.forking", str(port), mode]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        listens_at, child = map(int, process.stdout.readline().split())
        started.append((process, child))
        return process, listens_at

    yield begin
    for process, child in started:
        for pid in (process.pid, child):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def found(port: int) -> dict[str, float]:
    with suppress(OSError):
        return values(page(port))
    return {}


def test_a_forked_child_does_not_keep_the_port_of_its_parent(fork: Fork) -> None:
    process, port = fork(0, "off")
    urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).close()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ended\n"
    # An inherited socket would accept this connection, and nobody would ever answer.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_forked_child_is_a_worker_beside_its_parent_and_takes_over_from_it(fork: Fork) -> None:
    (port,) = free_ports(1)
    process, _ = fork(port, "auto")
    wait_until(lambda: found(port) == {"0": 5, "1": 7}, 10, "both are on the page")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert wait_until(lambda: found(port), 5, "the child answers") == {"0": 5, "1": 7}
    assert found(port) == {"0": 5, "1": 7}
