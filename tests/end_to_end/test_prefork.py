"""A real pre-fork service: gunicorn and uvicorn with workers, OTLP to a real receiver."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.real_parts import DdapmTestAgent, wait_until
from tests.real_parts.ports import free_ports
from tests.real_parts.postgres import PostgresServer
from tests.real_parts.server import ServerProcess

ROOT = Path(__file__).parents[2]
REQUESTS = 200
WORKERS = 4

# What a server does with its workers says nothing of the interpreter.
pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

GUNICORN = ["-m", "gunicorn", "-w", str(WORKERS), "-k", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "15"]
# Its socket is a file in the home directory, which servers of other tests would share.
GUNICORN += ["--no-control-socket"]
SERVERS = {
    "gunicorn": [*GUNICORN, "-b", "127.0.0.1:{port}", "tests.end_to_end.prefork_app:app"],
    "gunicorn --preload": [*GUNICORN, "--preload", "-b", "127.0.0.1:{port}", "tests.end_to_end.prefork_app:app"],
    "uvicorn": ["-m", "uvicorn", "--workers", str(WORKERS), "--port", "{port}", "tests.end_to_end.prefork_app:app"],
}


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bank.db"
    server: PostgresServer = request.getfixturevalue("newest_postgres")
    return server.url(server.new_database())


async def serve(url: str) -> Counter[int]:
    """Send the requests, eight at a time, each over a connection of its own; how many each worker answered."""
    answered: Counter[int] = Counter()
    numbers = iter(range(REQUESTS))

    async def client(http: httpx.AsyncClient) -> None:
        for number in numbers:
            answer = await http.post(f"{url}/deposits/account-{number % 20}")
            answered[answer.raise_for_status().json()["pid"]] += 1

    # Without connections that are kept alive, any worker may get the next request.
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_keepalive_connections=0)) as http:
        await asyncio.gather(*(client(http) for _ in range(8)))
    return answered


def totals_of(ddapm: DdapmTestAgent) -> dict[tuple[object, object], float]:
    """The newest total of commands of each process, by instance id and process id."""
    return {
        (point.resource["service.instance.id"], point.resource["process.pid"]): point.value or 0
        # A worker that exports at an interval and once more at its end has sent several totals; the last one counts.
        for point in ddapm.points("eventcore.commands.total")
    }


@pytest.mark.parametrize(
    ("server", "started"),
    [
        ("gunicorn", "made before the fork"),
        ("gunicorn --preload", "made before the fork"),
        ("gunicorn --preload", "started before the fork"),
        ("uvicorn", "made before the fork"),
    ],
)
def test_every_workers_counters_and_spans_arrive_under_an_instance_id_of_its_own(
    server: str, started: str, store_url: str, ddapm: DdapmTestAgent, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "EVENTCORE_"))} | {
        "STORE_URL": store_url,
        "START_BEFORE_FORK": "1" if started.startswith("started") else "",
        "EVENTCORE_EXPORTERS": "otel",
        "EVENTCORE_EXPORTERS__OTEL__ENDPOINT": ddapm.grpc_endpoint,
        "EVENTCORE_TELEMETRY__TRACES_PER_SECOND": "all",
    }
    command = [sys.executable, *(word.format(port=port) for word in SERVERS[server])]
    process = ServerProcess(command, tmp_path / "server.log", env, ROOT)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/openapi.json", timeout=2).is_success
        except httpx.TransportError:
            return False

    try:
        process.wait_until_ready(answers, 60)
        answered = asyncio.run(serve(url))
    finally:
        # The workers deliver what they have recorded before they end.
        process.stop(patience=30)
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log, log
    assert sum(answered.values()) == REQUESTS
    wait_until(lambda: len(ddapm.spans("execute Deposit")) >= REQUESTS, 20, "all spans have arrived")
    spans = ddapm.spans("execute Deposit")
    assert len({span.span_id for span in spans}) == len(spans) == REQUESTS
    assert Counter(span.resource["process.pid"] for span in spans) == answered
    wait_until(lambda: sum(totals_of(ddapm).values()) >= REQUESTS, 20, "all counters have arrived")
    totals = totals_of(ddapm)
    assert {pid: total for (_, pid), total in totals.items()} == answered
    assert len({instance for instance, _ in totals}) == len(answered)
    instances = {(span.resource["service.instance.id"], span.resource["process.pid"]) for span in spans}
    assert instances == set(totals)
