"""The exporter passes the contract of exporters against the OpenTelemetry Collector, with each temporality."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from eventcore.testing import ExporterContract
from eventcore_otel import OpenTelemetryExporter
from tests.real_parts import Collector
from tests.real_parts.fixtures import built_program
from tests.testing.exporters.otlp_setup import TOKEN, OtlpSetup


class CollectorSetup(OtlpSetup):
    """Reads back what the Collector wrote to its files."""

    cannot: ClassVar = {
        **dict.fromkeys(("outages", "waits"), "rotel is stopped in its place"),
        **dict.fromkeys(("rejections", "refusals", "cuts"), "the Collector takes everything"),
        **dict.fromkeys(("rotations", "lost_secrets"), "the Collector asks for no secrets"),
    }

    def __init__(self, collector: Collector, temporality: str) -> None:
        self.collector: Any = collector
        self.temporality: Any = temporality

    def make(self) -> object:
        return OpenTelemetryExporter(
            endpoint=self.collector.grpc_endpoint,
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=5.0,
            temporality=self.temporality,
        )

    @contextmanager
    def stall(self) -> Iterator[None]:
        os.kill(self.collector.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.collector.pid, signal.SIGCONT)


pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(os.environ.get("EVENTCORE_REQUIRE_GO_PARTS") != "1", reason="it takes minutes: .ci/long runs it"),
]


@pytest.fixture
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A Collector of its own for each test: what one test has sent must not arrive in the next one."""
    server = Collector(built_program("collector", "otelcol"), tmp_path_factory.mktemp("collector"))
    yield server
    server.stop()


@pytest.fixture(params=["cumulative", "delta", "lowmemory"])
def temporality(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


class TestOnTheCollector(ExporterContract):
    """Every value, cycle, failure and stall."""

    @pytest.fixture
    def exporter_setup(self, collector: Collector, temporality: str) -> CollectorSetup:
        return CollectorSetup(collector, temporality)
