"""One process of a service, which a test tells what to do: ``python -m tests.workers.process PORT SERVICE [MODE [TOKEN]]``.

It reads a line of JSON and answers with one: ``{"add": 3}`` counts, ``{"mount": true}`` is the page that its own ASGI
mount answers with, ``{"state": true}`` the state of its exporter.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal, cast

from eventcore import Telemetry
from eventcore.exporting import Secret
from eventcore_prometheus import PrometheusExporter


async def page_of_mount(exporter: PrometheusExporter) -> str:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b"", "root_path": ""}
    await exporter.asgi_app()(scope, receive, send)
    return b"".join(each.get("body", b"") for each in sent).decode()


def main(port: str, service: str, mode: str, *tokens: str) -> None:
    telemetry = Telemetry(service_name=service or None, exporters=[], config={})
    exporter = PrometheusExporter(
        int(port) if port != "none" else None,
        workers=cast(Literal["auto", "off"], mode),
        tokens=[Secret(token) for token in tokens],
    )
    pipeline = telemetry.register_exporter(exporter)
    hits = telemetry.counter("hits", labels=("worker",)).labels("own")
    telemetry.gauge("level").set(7)
    telemetry.histogram("sizes", boundaries=(1.0,)).record(0.5)
    telemetry.start_blocking()
    hits.add(0)
    print(json.dumps({"state": telemetry.exporters()[0].state}), flush=True)
    for line in sys.stdin:
        match json.loads(line):
            case {"add": number}:
                hits.add(number)
                answer: object = number
            case {"mount": True}:
                answer = asyncio.run(page_of_mount(exporter))
            case _:
                state = telemetry.exporters()[0]
                answer = [state.state, getattr(state, "problem", ""), exporter.url]
        print(json.dumps(answer), flush=True)
    del pipeline
    telemetry.shutdown_blocking(5.0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(sys.argv[3:] or ["auto"]))
