"""The ASGI application, called as a server calls it."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventcore import open_store
from eventcore_prometheus import PrometheusExporter
from tests.prometheus.conftest import Driven, recorded
from tests.real_parts.waiting import wait_until

Drive = Callable[..., Any]
Run = Callable[..., Any]


async def call(app: Any, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send one HTTP request to the application; returns status, headers and body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": "/metrics", "headers": pairs}, receive, send)
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert [body["more_body"] for body in bodies] == [True] * (len(bodies) - 1) + [False]
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(body["body"] for body in bodies)


async def test_it_serves_the_values_of_now_without_a_listener(run: Run) -> None:
    running = await run(port=None)
    assert running.exporter.url is None
    running.telemetry.counter("orders").labels().add(3)
    status, headers, body = await call(running.exporter.asgi_app())
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert int(headers["content-length"]) == len(body)
    assert b"orders_total 3\n" in body


async def test_format_and_coding_are_negotiated(drive: Drive) -> None:
    app = drive(port=None).exporter.asgi_app()
    status, headers, body = await call(app, accept="application/openmetrics-text", accept_encoding="gzip")
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert recorded(gzip.decompress(body).decode()).endswith("cycles_total 1\n# EOF\n")


async def test_head_and_other_methods(drive: Drive) -> None:
    exporter = drive(port=None).exporter
    app = exporter.asgi_app()
    status, headers, body = await call(app, "HEAD")
    assert (status, body) == (200, b"")
    assert exporter.scrapes.served == 0
    assert int(headers["content-length"]) > 0
    assert (await call(app, "POST"))[:1] == (405,)


async def test_an_exporter_that_does_not_run_says_so() -> None:
    status, _, body = await call(PrometheusExporter(port=None).asgi_app(), x_prometheus_scrape_timeout_seconds="0.2")
    assert status == 503
    assert b"the exporter does not run" in body


async def test_a_scrape_of_an_exporter_that_is_starting_waits_for_it() -> None:
    driven = Driven(PrometheusExporter(port=None))
    scrape = asyncio.create_task(call(driven.exporter.asgi_app()))
    await asyncio.sleep(0)
    assert not scrape.done()
    await asyncio.to_thread(driven.start)
    assert (await scrape)[0] == 200
    driven.shutdown()


async def test_a_scrape_by_wsgi_waits_for_it_too() -> None:
    driven = Driven(PrometheusExporter(port=None))
    statuses: list[str] = []
    scrape = asyncio.create_task(
        asyncio.to_thread(driven.exporter.wsgi_app(), {"REQUEST_METHOD": "GET"}, lambda status, _: statuses.append(status))
    )
    await asyncio.to_thread(driven.start)
    await scrape
    driven.shutdown()
    assert statuses == ["200 OK"]


async def test_a_stopped_exporter_is_not_waited_for(drive: Drive) -> None:
    driven = drive(port=None)
    driven.exporter.shutdown(1.0)
    status, _, body = await asyncio.wait_for(call(driven.exporter.asgi_app()), 2)
    assert (status, b"the exporter does not run" in body) == (503, True)


async def test_the_first_request_after_a_store_has_opened_gets_the_metrics() -> None:
    exporter = PrometheusExporter(port=None)
    async with open_store("memory:", exporters=[]) as store:
        store.register_exporter(exporter)
        assert (await call(exporter.asgi_app()))[0] == 200


async def test_a_late_cycle_does_not_hold_up_the_event_loop(drive: Drive) -> None:
    driven = drive(port=None)
    gate = threading.Event()
    driven.cycle = lambda: gate.wait(10)
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    worker = asyncio.create_task(work())
    status, _, body = await call(driven.exporter.asgi_app(), x_prometheus_scrape_timeout_seconds="0.2")
    worker.cancel()
    gate.set()
    assert (status, b"no fresh values within" in body) == (503, True)
    assert turns > 20


async def test_a_client_that_goes_away_does_not_disturb_the_others(drive: Drive) -> None:
    driven = drive(port=None, max_requests=2)
    app = driven.exporter.asgi_app()
    gate = threading.Event()
    driven.cycle = lambda: (gate.wait(10), driven.count_up())
    leaving, staying = asyncio.create_task(call(app)), asyncio.create_task(call(app))
    await asyncio.to_thread(wait_until, lambda: driven.begun == 2)
    assert (await call(app))[0] == 503
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    assert (await staying)[0] == 200
    assert (await call(app))[0] == 200


async def test_as_the_only_application_of_a_server_it_takes_part_in_its_lifespan() -> None:
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await PrometheusExporter(port=None).asgi_app()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
