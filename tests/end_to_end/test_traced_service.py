"""A service that OpenTelemetry instruments from outside: what its libraries and eventcore record is one trace a request."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.real_parts import DdapmTestAgent, wait_until
from tests.real_parts.ports import free_ports
from tests.real_parts.postgres import PostgresServer
from tests.real_parts.received import ReceivedSpan
from tests.real_parts.server import ServerProcess

ROOT = Path(__file__).parents[2]
REQUESTS = 200

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]


@pytest.fixture
def service(newest_postgres: PostgresServer, ddapm: DdapmTestAgent, tmp_path: Path) -> Iterator[str]:
    """The address of the service, which only standard variables configure."""
    (port,) = free_ports(1)
    variables = {
        "STORE_URL": newest_postgres.url(newest_postgres.new_database()),
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": ddapm.grpc_endpoint,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "EVENTCORE_EXPORTERS": "otel",
    }
    program = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [str(program), sys.executable, "-m", "uvicorn", "--port", str(port), "tests.end_to_end.traced_app:app"]
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path)))}
    server = ServerProcess(command, tmp_path / "service.log", environment, tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        server.wait_until_ready(lambda: answers(url), 30)
        yield url
    finally:
        server.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/openapi.json").status_code == 200
    except httpx.TransportError:
        return False


async def send(url: str) -> None:
    numbers = iter(range(REQUESTS))

    async def client() -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            for number in numbers:
                (await http.post(f"{url}/orders/{number}")).raise_for_status()

    await asyncio.gather(*(client() for _ in range(4)))


@pytest.mark.conforms("Traces", "The current span is propagated through the context, with its sampling decision.")
def test_one_request_is_one_trace_from_http_over_the_command_to_the_handlers_own_sql(
    service: str, ddapm: DdapmTestAgent, tmp_path: Path
) -> None:
    asyncio.run(send(service))
    spans = wait_until(lambda: complete(ddapm), 20)
    by_id = {span.span_id: span for span in spans}

    def parent(span: ReceivedSpan) -> str:
        return by_id[span.parent_id].name if span.parent_id else ""

    # Every parent has arrived, and nothing but requests and batches of projections begins a trace.
    roots = Counter(span.name for span in spans if not span.parent_id)
    assert roots.keys() == {"POST /orders/{number}", "GET /openapi.json", "project shipped", "start"}
    assert roots["POST /orders/{number}"] == REQUESTS
    traces: dict[str, list[ReceivedSpan]] = defaultdict(list)
    for span in spans:
        traces[span.trace_id].append(span)
    for trace in traces.values():
        [root] = [span for span in trace if not span.parent_id]
        names = Counter((parent(span), span.name) for span in trace)
        if root.name == "POST /orders/{number}":
            assert names[root.name, "execute ShipOrder"] == 1
            assert names["execute ShipOrder", "choose carrier"] == 1
            assert names[root.name, "SELECT"] >= 1
        elif root.name == "project shipped":
            assert {name for _, name in names} == {"project shipped", "INSERT"}
    # The driver traces the application's statements, and none of the store's: these have spans of eventcore.
    statements = {str(span.attributes["db.statement"]).split(" (")[0] for span in spans if "db.statement" in span.attributes}
    assert {statement for statement in statements if not statement.startswith("SELECT pg_advisory_unlock_all")} == {
        "CREATE TABLE IF NOT EXISTS shipped",
        "SELECT count(*) FROM shipped",
        "INSERT INTO shipped",
    }
    # Each order was shipped in a batch that is linked to the request's trace.
    linked = {link.trace_id for span in spans if span.name == "project shipped" for link in span.links}
    assert linked == {span.trace_id for span in spans if span.name == "execute ShipOrder"}
    assert {span.resource["service.name"] for span in spans} == {"shop"}
    # What an endpoint logs outside of eventcore's spans has the trace of its request, too.
    asked = [line for line in log_lines(tmp_path / "service.log") if line["message"] == "asked to ship"]
    requests = {span.trace_id: span.span_id for span in spans if span.name == "POST /orders/{number}"}
    assert {line.get("trace_id"): line.get("span_id") for line in asked} == requests


def log_lines(file: Path) -> list[dict[str, Any]]:
    """The records that the service has written as JSON."""
    return [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]


def complete(ddapm: DdapmTestAgent) -> list[ReceivedSpan]:
    """Every span, when all that the service ends have arrived; an empty list before."""
    spans = ddapm.spans()
    names = Counter(span.name for span in spans)
    whole = all(names[name] == REQUESTS for name in ("POST /orders/{number}", "execute ShipOrder", "choose carrier", "INSERT"))
    known = {span.span_id for span in spans}
    return spans if whole and all(span.parent_id in known for span in spans if span.parent_id) else []
