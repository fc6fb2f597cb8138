"""Exporters that take everything and keep next to nothing, so that what is measured is eventcore and not a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from eventcore.exporting import CounterData, GaugeData, HistogramData, SpanData, hookimpl

__all__ = ["CountingExporter", "CountingSpanExporter"]


@final
class CountingExporter:
    """Takes all four kinds through a real pipeline, and counts."""

    interval = 1.0

    def __init__(self) -> None:
        self.spans = 0
        self.points = 0

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        """Count totals."""
        self.points += sum(len(counter.points) for counter in counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData]) -> None:
        """Count values."""
        self.points += sum(len(gauge.points) for gauge in gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData]) -> None:
        """Count distributions."""
        self.points += sum(len(histogram.points) for histogram in histograms)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        """Count spans."""
        self.spans += len(spans)


@final
class CountingSpanExporter(SpanExporter):
    """The same for the OpenTelemetry SDK."""

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count spans."""
        self.spans += len(spans)
        return SpanExportResult.SUCCESS
