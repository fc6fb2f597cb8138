"""The exporter's work between ``start`` and ``shutdown``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from eventcore.exporting import (
    CounterData,
    ExporterContext,
    GaugeData,
    HistogramData,
    MetricData,
    Rejected,
    Signal,
    SpanData,
)
from eventcore_otel.encoding import Encoder
from eventcore_otel.outbox import MAX_REQUEST, Outbox, Part, key_of
from eventcore_otel.resource import complete, version_of
from eventcore_otel.settings import Settings
from eventcore_otel.transport import Transport

_DataT = TypeVar("_DataT", bound=MetricData)


class Session:
    """Encodes each chunk when it comes and sends all chunks of a cycle in ``flush``.

    Only the pipeline's worker thread calls it, except ``close``, which may be called from any
    thread at any time.

    Args:
        settings: the exporter's settings.
        context: the context that core passed to ``start``.

    Raises:
        ValueError: a certificate file cannot be read.
    """

    def __init__(self, settings: Settings, context: ExporterContext) -> None:
        resource = complete(context.resource.attributes, settings.resource)
        self._encoder = Encoder(resource, version_of("eventcore-core"))
        self._transport = Transport(settings, f"eventcore-otel/{version_of('eventcore-otel')}")
        self._outboxes: dict[Signal, Outbox] = {"metrics": Outbox(), "spans": Outbox()}

    def begin(self, signal: Signal) -> None:
        """Drop the parts of a cycle of the signal that ended without ``flush``."""
        self._outboxes[signal].clear()

    def counters(self, counters: Sequence[CounterData]) -> None:
        self._add_metrics(self._encoder.counters, counters)

    def gauges(self, gauges: Sequence[GaugeData]) -> None:
        self._add_metrics(self._encoder.gauges, gauges)

    def histograms(self, histograms: Sequence[HistogramData]) -> None:
        self._add_metrics(self._encoder.histograms, histograms)

    def spans(self, spans: Sequence[SpanData]) -> None:
        if unanswered := self._outboxes["spans"].without_answered(spans):
            self._add_spans(unanswered)

    def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        """Send everything of the signal within ``timeout`` seconds; returns what the backend rejected."""
        deadline = time.monotonic() + timeout
        name: Literal["metrics", "traces"] = "metrics" if signal == "metrics" else "traces"
        return self._outboxes[signal].send_all(
            lambda request, count: self._transport.send(name, request, count, deadline - time.monotonic())
        )

    def close(self) -> None:
        """Cancel the call in flight and close the connections."""
        self._transport.close()

    def _add_metrics(self, encode: Callable[[Sequence[_DataT]], bytes], metrics: Sequence[_DataT]) -> None:
        if count := sum(len(data.points) for data in metrics):
            self._outboxes["metrics"].add(Part(encode(metrics), count))

    def _add_spans(self, spans: Sequence[SpanData]) -> None:
        """Encode spans into parts of at most ``MAX_REQUEST`` bytes each; a single larger span is a part by itself."""
        encoded = self._encoder.spans(spans)
        if len(encoded) > MAX_REQUEST and len(spans) > 1:
            half = len(spans) // 2
            self._add_spans(spans[:half])
            self._add_spans(spans[half:])
        else:
            self._outboxes["spans"].add(Part(encoded, len(spans), [key_of(span) for span in spans]))
