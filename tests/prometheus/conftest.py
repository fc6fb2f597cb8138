"""Fixtures for the tests of eventcore-prometheus: exporters with a real telemetry or driven by the test, and an HTTP client."""

from __future__ import annotations

import asyncio
import http.client
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pluggy
import pytest
import pytest_asyncio

from eventcore.exporting import CounterData, ExporterContext, ExporterHooks, NumberPoint, Resource
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_prometheus import PrometheusExporter


def recorded(text: str) -> str:
    """A page without the families that it has of itself, of its process and of its resource."""
    about = r"(eventcore_prometheus_|eventcore_exporters_instruments?_hidden|process_|python_|target)"
    return "".join(line for line in text.splitlines(keepends=True) if not re.match(rf"(# \w+ )?{about}", line))


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def _request(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        connection.request(method, parts.path or "/", headers=headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


@pytest.fixture
def request_() -> Callable[..., Answer]:
    """Sends one request and reads the whole response."""
    return _request


@dataclass(frozen=True)
class Running:
    """A running exporter and its telemetry."""

    telemetry: Telemetry
    exporter: PrometheusExporter

    @property
    def url(self) -> str:
        url = self.exporter.url
        assert url is not None
        return url

    @property
    def target(self) -> str:
        return urlsplit(self.url).netloc

    def scrape(self, method: str = "GET", **headers: str) -> Answer:
        return _request(self.url, method, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Callable[..., Any]]:
    """Runs an exporter with the given settings and a separate telemetry, until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Running:
            telemetry = await stack.enter_async_context(Telemetry(config={}, exporters=[]))
            exporter = PrometheusExporter(**{"port": 0, **settings})
            telemetry.register_exporter(exporter, name="prometheus")
            (pipeline,) = telemetry.exporters()
            assert isinstance(pipeline, Pipeline)
            assert await asyncio.to_thread(pipeline.started.wait, 10.0)
            return Running(telemetry, exporter)

        yield start


class Driven:
    """An exporter whose hooks the test calls, through pluggy as core does: for what a pipeline does not do on demand.

    ``cycle`` is called for each request for a cycle. It returns when the cycle has ended, and may raise or wait.
    """

    def __init__(self, exporter: PrometheusExporter) -> None:
        self.exporter = exporter
        manager = pluggy.PluginManager("eventcore")
        manager.add_hookspecs(ExporterHooks)
        manager.register(exporter)
        self.hooks = manager.hook
        self.stopping = threading.Event()
        self.begun = 0
        self.total = 0
        self.hidden: list[tuple[str, str]] = []
        self.cycle: Callable[[], None] = self.count_up
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        assert self.exporter.url is not None
        return self.exporter.url

    @property
    def address(self) -> tuple[str, int]:
        assert self.exporter.address is not None
        return self.exporter.address

    def start(self) -> Driven:
        context = ExporterContext(
            name="prometheus",
            resource=Resource(()),
            settings={},
            logger=logging.getLogger("eventcore.exporters.prometheus"),
            stopping=self.stopping,
            export_now=self._export_now,
            report_hidden=lambda instrument, reason, kind: self.hidden.append((instrument, reason)),
        )
        self.hooks.start(context=context)
        return self

    def count_up(self) -> None:
        """Run a cycle whose page contains the number of cycles so far."""
        with self._lock:
            self.total += 1
            point = NumberPoint((), self.total, 0, self.total)
            self.hooks.export_counters(counters=[CounterData("cycles", "", "Cycles.", (), (point,))], timeout=1.0)
            self.hooks.flush(signal="metrics", timeout=1.0)

    def shutdown(self, timeout: float = 1.0) -> None:
        self.stopping.set()
        self.hooks.shutdown(timeout=timeout)

    def _export_now(self, timeout: float) -> Future[None]:
        future: Future[None] = Future()

        def work() -> None:
            with self._lock:
                self.begun += 1
            try:
                self.cycle()
            except Exception as error:  # noqa: BLE001  # the future carries it to whoever waits
                future.set_exception(error)
            else:
                future.set_result(None)

        threading.Thread(target=work, daemon=True).start()
        return future


@pytest.fixture
def drive() -> Iterator[Callable[..., Driven]]:
    """Starts a driven exporter with the given settings."""
    driven: list[Driven] = []

    def start(**settings: Any) -> Driven:
        driven.append(Driven(PrometheusExporter(**{"port": 0, **settings})))
        return driven[-1].start()

    yield start
    for each in driven:
        each.shutdown()
