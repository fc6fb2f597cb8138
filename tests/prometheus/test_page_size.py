"""However many command types an application has, its page stays small enough for Prometheus."""

from __future__ import annotations

import urllib.request

import pytest

from eventcore.catalogue import CommandInstruments
from eventcore.telemetry import Telemetry
from eventcore_prometheus import PrometheusExporter


@pytest.mark.once
def test_ten_thousand_command_types_make_a_page_of_at_most_two_megabytes() -> None:
    telemetry = Telemetry(config={}, exporters=[])
    instruments = CommandInstruments(telemetry, "default")
    for number in range(10_000):
        series = instruments.bind(f"PlaceOrder{number:05}")
        for outcome in ("committed", "rejected"):
            for record in (series.load, series.decide, series.append, series.streams_read, series.loaded, series.emitted):
                record(1)
            series.active(1)
            series.ended("committed" if outcome == "committed" else "rejected", 0.01, 1)
    exporter = PrometheusExporter(port=0)
    telemetry.register_exporter(exporter)
    try:
        telemetry.start_blocking()
        assert exporter.url is not None
        with urllib.request.urlopen(exporter.url, timeout=30) as answer:
            page = answer.read()
    finally:
        telemetry.shutdown_blocking()
    assert 1_000_000 < len(page) < 2_000_000
    # Nothing is lost: what has no series of its own is in those for the rest.
    totals = [float(line.rpartition(b" ")[2]) for line in page.splitlines() if line.startswith(b"eventcore_commands_total{")]
    assert sum(totals) == 20_000
    counts = [line for line in page.splitlines() if line.startswith(b"eventcore_command_duration_seconds_count{")]
    assert sum(float(line.rpartition(b" ")[2]) for line in counts) == 20_000
    assert any(b'command_type="_overflow_",outcome="rejected"' in line for line in counts)
