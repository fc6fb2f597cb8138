"""Exporters that only count: the measurement shows the cost of eventcore and not that of a backend."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from eventcore.exporting import CounterData, GaugeData, HistogramData, SpanData, hookimpl

__all__ = ["CountingExporter", "CountingSpanExporter", "StalledExporter"]


@final
class CountingExporter:
    """Takes all four kinds of data through a real pipeline, and counts them."""

    interval = 1.0

    def __init__(self) -> None:
        self.spans = 0
        self.points = 0

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        self.points += sum(len(counter.points) for counter in counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData]) -> None:
        self.points += sum(len(gauge.points) for gauge in gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData]) -> None:
        self.points += sum(len(histogram.points) for histogram in histograms)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        self.spans += len(spans)


@final
class StalledExporter:
    """Takes no data: its first hook returns only when the exporter is shut down."""

    interval = 1.0

    def __init__(self) -> None:
        self.stalled = threading.Event()
        self._released = threading.Event()

    def _stall(self) -> None:
        self.stalled.set()
        self._released.wait()

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        self._stall()

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        self._stall()

    @hookimpl
    def shutdown(self) -> None:
        self._released.set()


@final
class CountingSpanExporter(SpanExporter):
    """A span exporter for the OpenTelemetry SDK that only counts."""

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += len(spans)
        return SpanExportResult.SUCCESS
