"""From ``start`` to ``shutdown``: what the exporter does while it is connected."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from eventcore.exporting import (
    Attributes,
    CounterData,
    ExporterContext,
    GaugeData,
    HistogramData,
    MetricData,
    Rejected,
    SpanData,
)
from eventcore_otel.encoding import Encoder
from eventcore_otel.outbox import MAX_REQUEST, Outbox, Part, key_of
from eventcore_otel.settings import Settings
from eventcore_otel.transport import Transport

_DataT = TypeVar("_DataT", bound=MetricData)


class Session:
    """Encodes chunk by chunk, holds the parts, sends them at the end of a cycle.

    Args:
        settings: the exporter's.
        context: what core gave to ``start``.

    Raises:
        ValueError: a certificate's file cannot be read.
    """

    def __init__(self, settings: Settings, context: ExporterContext) -> None:
        core_version = _version("eventcore-core")
        self._encoder = Encoder(_resource(context.resource.attributes, settings.resource, core_version), core_version)
        self._transport = Transport(settings, f"eventcore-otel/{_version('eventcore-otel')}")
        self._metrics = Outbox()
        self._spans = Outbox()

    def counters(self, counters: Sequence[CounterData]) -> None:
        """Hold a chunk of counters."""
        self._hold_metrics(self._encoder.counters, counters)

    def gauges(self, gauges: Sequence[GaugeData]) -> None:
        """Hold a chunk of gauges."""
        self._hold_metrics(self._encoder.gauges, gauges)

    def histograms(self, histograms: Sequence[HistogramData]) -> None:
        """Hold a chunk of histograms."""
        self._hold_metrics(self._encoder.histograms, histograms)

    def spans(self, spans: Sequence[SpanData]) -> None:
        """Hold a chunk of spans."""
        self._metrics.clear()
        if not spans:
            return
        self._spans.begin(key_of(spans[0]))
        if unsettled := self._spans.unsettled(spans):
            self._hold_spans(unsettled)

    def flush(self, timeout: float) -> Rejected | None:
        """Send what is held, within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        send = self._transport.send
        refused = [
            answer
            for answer in (
                self._metrics.deliver(lambda request, count: send("metrics", request, count, deadline - time.monotonic())),
                self._spans.deliver(lambda request, count: send("traces", request, count, deadline - time.monotonic())),
            )
            if answer is not None
        ]
        return refused[0] if refused else None

    def close(self) -> None:
        """End the connections."""
        self._transport.close()

    def _hold_metrics(self, encode: Callable[[Sequence[_DataT]], bytes], metrics: Sequence[_DataT]) -> None:
        # One cycle, one signal: spans that are still held belong to a cycle that ended without a flush.
        self._spans.clear()
        if count := sum(len(data.points) for data in metrics):
            first = next(data for data in metrics if data.points)
            self._metrics.begin((first.name, first.points[0].labels))
            self._metrics.hold(Part(encode(metrics), count))

    def _hold_spans(self, spans: Sequence[SpanData]) -> None:
        encoded = self._encoder.spans(spans)
        if len(encoded) > MAX_REQUEST and len(spans) > 1:
            half = len(spans) // 2
            self._hold_spans(spans[:half])
            self._hold_spans(spans[half:])
        else:
            self._spans.hold(Part(encoded, len(spans), [key_of(span) for span in spans]))


def _resource(core: Attributes, ours: Attributes, core_version: str) -> Attributes:
    return tuple(
        {
            "telemetry.sdk.name": "eventcore",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": core_version,
            **dict(core),
            **dict(ours),
        }.items()
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
