"""Telemetry with both exporters: to a real collector, and scraped by a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from benchmarks.surroundings import collector
from eventcore.telemetry import Telemetry
from eventcore_otel import OpenTelemetryExporter
from eventcore_prometheus import PrometheusExporter
from tests.real_parts.finding import find_part
from tests.real_parts.ports import free_ports
from tests.real_parts.prometheus import Prometheus
from tests.real_parts.waiting import wait_until

__all__ = ["OBSERVED", "Observers", "observers", "silent"]

_PERIOD: Final = 1.0
OBSERVED: Final = (
    f"both exporters: OTLP over gRPC to a rotel collector, metrics every {_PERIOD:.0f} s (the default is every 10 s), 100 "
    f"traces per second; and a Prometheus server that scrapes every {_PERIOD:.0f} s. Both run on the same cores."
)


@dataclass(slots=True)
class Observers:
    """The two receivers of telemetry. ``account`` holds the spans of the last measurement: exported, recorded."""

    endpoint: str
    port: int
    account: tuple[int, int] = (0, 0)

    @contextmanager
    def attached(self, traces_per_second: float | Literal["all"] = 100) -> Iterator[Telemetry]:
        """Telemetry that is exported to both receivers.

        Raises:
            RuntimeError: nothing was exported, or spans are missing from the counts.
        """
        telemetry = Telemetry(
            config={"exporters": {"otel": {"pipeline": {"interval": _PERIOD}}}},
            exporters=[],
            traces_per_second=traces_per_second,
        )
        prometheus = PrometheusExporter(port=self.port)
        telemetry.register_exporter(OpenTelemetryExporter(endpoint=self.endpoint, insecure=True), name="otel")
        telemetry.register_exporter(prometheus, name="prometheus")
        try:
            if not telemetry.flush_blocking(10.0):
                raise RuntimeError("the exporters did not start")
            wait_until(lambda: prometheus.scrapes.served, 20, "Prometheus scrapes")
            yield telemetry
            served = prometheus.scrapes.served
        finally:
            report = telemetry.shutdown_blocking(10.0)["otel"]
        if served < 1 or not report.points_exported:
            raise RuntimeError(f"the exporters did not deliver: {served} scrapes, {report}")
        if report.spans_recorded != report.spans_exported + sum(report.spans_dropped.values()) + report.spans_pending:
            raise RuntimeError(f"recorded spans are not exported, dropped or pending: {report}")
        self.account = (report.spans_exported, report.spans_recorded)


@contextmanager
def observers() -> Iterator[Observers]:
    """Start a collector, and a Prometheus server that scrapes this process.

    Raises:
        PartMissing: a program is not installed; the message says how to install it.
    """
    with collector() as endpoint, TemporaryDirectory(prefix="eventcore-benchmark-") as directory:
        [port] = free_ports(1)
        prometheus = Prometheus(find_part("prometheus"), Path(directory), [f"127.0.0.1:{port}"], scrape_interval=_PERIOD)
        try:
            yield Observers(endpoint, port)
        finally:
            prometheus.stop()


@contextmanager
def silent(verbosity: Literal["off", "normal"] = "normal") -> Iterator[Telemetry]:
    """Telemetry without exporters."""
    telemetry = Telemetry(config={}, exporters=[], verbosity=verbosity)
    try:
        yield telemetry
    finally:
        telemetry.shutdown_blocking(5.0)
