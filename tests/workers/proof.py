"""A pre-fork server under load whose workers are killed, and a Prometheus that scrapes it: both are compared at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import httpx
import psutil  # type: ignore[import-untyped]  # it has no types

from tests.real_parts.ports import free_ports
from tests.real_parts.prometheus import Prometheus
from tests.real_parts.server import ServerProcess
from tests.real_parts.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]
WORKERS: Final = 4
CLIENTS: Final = 4
# Commands per second of all clients together, so that clients, workers and Prometheus fit on two cores.
RATE: Final = 150.0
COUNTER: Final = "eventcore_commands_total"
_UP: Final = "eventcore_exporters_worker_up"

_GUNICORN: Final = ["-m", "gunicorn", "-w", str(WORKERS), "-k", "uvicorn_worker.UvicornWorker", "--no-control-socket"]
_GUNICORN_AT: Final = [*_GUNICORN, "-b", "127.0.0.1:{port}", "--graceful-timeout", "2"]
SERVERS: Final = {
    "gunicorn": [*_GUNICORN_AT, "tests.workers.service:app"],
    "gunicorn --preload": [*_GUNICORN_AT, "--preload", "tests.workers.service:app"],
    "uvicorn": [
        *("-m", "uvicorn", "--workers", str(WORKERS), "--port", "{port}", "--log-level", "warning"),
        "tests.workers.service:app",
    ],
}


@dataclass
class Account:
    """What clients and Prometheus say.

    Attributes:
        acknowledged: commands that the clients were told to be executed.
        counted: the raises of all series, added up from Prometheus's raw samples.
        busiest_second: the most commands that were acknowledged within one second.
        kills: for each killed worker, whether it held the port.
        failed_scrapes: scrapes without a page.
    """

    acknowledged: int = 0
    counted: float = 0.0
    busiest_second: int = 0
    kills: list[bool] = field(default_factory=list[bool])
    failed_scrapes: int = 0

    @property
    def allowed(self) -> int:
        """How far both may differ: the commands of one second for each kill."""
        return self.busiest_second * len(self.kills)

    @property
    def adds_up(self) -> bool:
        return abs(self.counted - self.acknowledged) <= self.allowed

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} commands acknowledged, {self.counted:g} counted from raw samples, difference "
            f"{self.counted - self.acknowledged:g}, allowed ±{self.allowed} ({len(self.kills)} workers killed, "
            f"{sum(self.kills)} of them held the port; {self.busiest_second} commands in the busiest second; "
            f"{self.failed_scrapes} failed scrapes)"
        )


@contextmanager
def serving(server: str, directory: Path, port: int, metrics_port: int, **env: str) -> Iterator[tuple[str, int]]:
    """A running server: its URL and the id of its process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "EVENTCORE_"))}
    command = [sys.executable, *(word.format(port=port) for word in SERVERS[server])]
    process = ServerProcess(command, directory / "server.log", inherited | {"METRICS_PORT": str(metrics_port), **env}, ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        process.wait_until_ready(lambda: _answers(url), 60)
        yield url, process.pid
    finally:
        process.stop(patience=10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/pid", timeout=2).is_success
    except httpx.TransportError:
        return False


def workers_of(server: int) -> list[int]:
    """The processes of the workers, in which Python runs the service."""
    found: list[int] = []
    for child in psutil.Process(server).children():
        with suppress(psutil.Error):  # it has just ended
            if child.status() != psutil.STATUS_ZOMBIE and not any("resource_tracker" in word for word in child.cmdline()):
                found.append(child.pid)
    return sorted(found)


def holder_of(metrics_port: int, pids: list[int]) -> int | None:
    """The process among ``pids`` that listens at the port of the metrics."""
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections("inet")
        except psutil.Error:
            continue
        if any(each.laddr.port == metrics_port and each.status == psutil.CONN_LISTEN for each in connections):
            return pid
    return None


def prove(server: str, seconds: float, kill_every: float, program: Path, directory: Path) -> Account:
    """Serve clients for ``seconds``, kill a worker every ``kill_every`` seconds, and compare.

    Args:
        server: one of ``SERVERS``.
        program: of Prometheus.
        directory: for logs and data.
    """
    account = Account()
    port, metrics_port = free_ports(2)
    # It takes as long as the server until it is ready.
    prometheus = Prometheus(program, directory, [f"127.0.0.1:{metrics_port}"], scrape_interval=1.0)
    try:
        with serving(server, directory, port, metrics_port, SERVICE_NAME="proof") as (url, pid):
            wait_until(lambda: prometheus.query(f"sum({_UP}) == {WORKERS}"), 60, "every worker is scraped")
            asyncio.run(_load_and_kill(account, url, metrics_port, pid, seconds, kill_every))
            wait_until(lambda: prometheus.query(f"sum({_UP}) == {WORKERS}"), 60, "every worker is back")
            ended = time.time()
            wait_until(lambda: prometheus.value("timestamp(up)") > ended + 2, 20, "further scrapes")
            window = f"[{round(seconds) + 120}s]"
            account.counted = sum(raise_of(values) for values in prometheus.raw(COUNTER + window))
            for values in prometheus.raw("up" + window):
                # Those before the first page are of the server's start.
                account.failed_scrapes += values[values.index(1) :].count(0)
    finally:
        prometheus.stop()
    return account


def raise_of(values: list[float]) -> float:
    """How much a counter has risen from 0: a value below the one before it is that of a new process."""
    return values[0] + sum(after - before if after >= before else after for before, after in pairwise(values))


async def _load_and_kill(account: Account, url: str, metrics_port: int, server: int, seconds: float, kill_every: float) -> None:
    end = time.monotonic() + seconds
    by_second: dict[int, int] = {}

    async def client() -> None:
        async with httpx.AsyncClient(timeout=5) as http:
            while (now := time.monotonic()) < end:
                try:
                    (await http.post(url)).raise_for_status()
                except httpx.TransportError:
                    continue  # its worker was killed; whether it has executed the command is not known
                account.acknowledged += 1
                by_second[int(now)] = by_second.get(int(now), 0) + 1
                await asyncio.sleep(max(now + CLIENTS / RATE - time.monotonic(), 0))

    async def killer() -> None:
        while end - time.monotonic() > kill_every:
            await asyncio.sleep(kill_every)
            pids = workers_of(server)
            holder = await asyncio.to_thread(holder_of, metrics_port, pids)
            # Every other one is the holder.
            holds = len(account.kills) % 2 == 0 and holder is not None
            victim = holder if holds else next((pid for pid in pids if pid != holder), None)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                account.kills.append(holds)

    await asyncio.gather(killer(), *(client() for _ in range(CLIENTS)))
    account.busiest_second = max(by_second.values())
