"""A service for pre-fork servers, with a store in the memory of each worker and the metrics of all workers at one port."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from eventcore import StreamId, Telemetry, open_store
from eventcore_prometheus import PrometheusExporter
from tests.store.bank import Deposit

telemetry = Telemetry(service_name=os.environ.get("SERVICE_NAME") or None, exporters=[], config={})
exporter = PrometheusExporter(port=int(os.environ["METRICS_PORT"]) or None)
if os.environ.get("START_BEFORE_FORK"):
    telemetry.register_exporter(exporter)
    telemetry.start_blocking()
store = open_store("memory:", telemetry=telemetry)
metrics = exporter.asgi_app()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """``POST`` executes one command; ``/metrics`` has the metrics; ``/pid`` says who answers."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"] == "/metrics":
        await metrics(scope, receive, send)  # type: ignore[arg-type]
        return
    if scope["method"] == "POST":
        await store.execute(Deposit(account=StreamId(f"account-{os.getpid() % 7}"), amount=1))
    body = json.dumps({"pid": os.getpid(), "worker_at": exporter.url}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    async with AsyncExitStack() as stack:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if not os.environ.get("START_BEFORE_FORK"):
                    telemetry.register_exporter(exporter)
                await stack.enter_async_context(telemetry)
                await stack.enter_async_context(store)
                await send({"type": "lifespan.startup.complete"})
            else:
                await stack.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return
