"""What Kubernetes expects of probes, on a real server: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/

A liveness probe fails only if a restart helps. A readiness probe fails while the process cannot serve. Both answer within their
timeout, which is one second by default.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from tests.real_parts.postgres import PASSWORD, PostgresServer
from tests.real_parts.waiting import wait_until

pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(60)]

# The default of `timeoutSeconds` of a probe.
TIMEOUT = 1.0


class Probed(NamedTuple):
    status: int
    body: dict[str, Any]
    seconds: float

    @property
    def reasons(self) -> str:
        return "; ".join(check["reason"] for check in self.body["checks"].values() if check["reason"])


def probe(url: str) -> Probed:
    """One probe, as the kubelet sends it. Fails the test if the answer takes longer than the timeout of a probe."""
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    return Probed(status, json.loads(body), time.monotonic() - begun)


class Service:
    """The process of ``tests.health.service``."""

    def __init__(self, url: str, open_timeout: float, dead_after: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.health.service", url, str(open_timeout), str(dead_after)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.url = self.line()

    def line(self) -> str:
        return self._output.readline().strip()

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def live(self) -> Probed:
        return probe(f"{self.url}/livez")

    def ready(self) -> Probed:
        return probe(f"{self.url}/readyz")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


StartService = Callable[..., Service]


@pytest.fixture
def start_service() -> Iterator[StartService]:
    with ExitStack() as started:

        def start(url: str, *, open_timeout: float = 0.0, dead_after: float = 20.0) -> Service:
            service = Service(url, open_timeout, dead_after)
            started.callback(service.close)
            return service

        yield start


def test_a_process_is_live_whatever_its_server_does_and_ready_while_the_server_answers(
    start_postgres: Callable[..., PostgresServer], start_service: StartService
) -> None:
    server = start_postgres(fsync="off")
    server.stop(signal.SIGQUIT)

    # Before the server is there.
    service = start_service(f"{server.url()}?timeout=4", open_timeout=30.0)
    starting = _until(service.ready, 503, 10, "the store is being opened: ")
    assert starting.status == 503
    assert service.live().status == 200
    server.start()
    assert service.line() == "open"
    assert service.ready().status == 200

    # The server ends: connections are refused.
    server.stop(signal.SIGQUIT)
    away = _until(service.ready, 503, 10)
    assert away.body["checks"]["store"]["status"] == "unhealthy"
    assert service.live().status == 200
    server.start()
    _until(service.ready, 200, 10)

    # The server hangs: it accepts connections and answers nothing.
    with _stopped(server):
        hanging = _until(service.ready, 503, 10)
        assert hanging.body["checks"]["store"]["status"] == "unhealthy"
        for _ in range(3):
            assert (service.live().status, service.ready().status) == (200, 503)
    _until(service.ready, 200, 15)

    for probed in (starting, away, hanging):
        assert PASSWORD not in json.dumps(probed.body)


def test_a_busy_loop_passes_both_probes_and_a_blocked_one_fails_ready_soon_and_live_late(
    newest_postgres: PostgresServer, start_service: StartService
) -> None:
    service = start_service(f"{newest_postgres.url()}?schema=health_{uuid4().hex}", dead_after=2.0)
    assert service.line() == "open"
    service.say("busy 1.5")
    for _ in range(10):
        assert (service.live().status, service.ready().status) == (200, 200)
        time.sleep(0.05)
    wait_until(lambda: service.ready().body["checks"]["store"]["figures"], timeout=5)

    service.say("block 4")
    blocked = _until(service.ready, 503, 6)
    assert "the event loop has been blocked for" in blocked.reasons
    assert service.live().status == 200
    dead = _until(service.live, 503, 6)
    assert "the event loop has been blocked for" in dead.reasons
    after = _until(service.ready, 200, 8)
    assert after.body["status"] == "degraded"
    assert "a callback blocked the event loop for" in after.reasons
    assert service.live().status == 200


@contextmanager
def _stopped(server: PostgresServer) -> Generator[None]:
    """The server and its sessions do nothing in this block."""
    postmaster = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    processes = [postmaster, *_children(postmaster)]
    for each in processes:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in processes:
            os.kill(each, signal.SIGCONT)


def _until(ask: Callable[[], Probed], status: int, timeout: float, reason: str = "") -> Probed:
    """Probe until the answer has this status, and this text in its reasons."""
    found = wait_until(lambda: [each for each in (ask(),) if each.status == status and reason in each.reasons], timeout)
    return found[0]


def _children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
