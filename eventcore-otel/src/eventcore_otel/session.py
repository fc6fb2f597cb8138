"""The exporter's work between ``start`` and ``shutdown``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from eventcore.exporting import (
    CounterData,
    ExporterContext,
    GaugeData,
    HistogramData,
    Rejected,
    Signal,
    SpanData,
)
from eventcore_otel.encoding import Encoded, Encoder, encode_resource
from eventcore_otel.outbox import Outbox, key_of, sum_of
from eventcore_otel.resource import complete, version_of
from eventcore_otel.settings import Settings
from eventcore_otel.transport import Transport


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
        resource = encode_resource(*complete(context, settings))
        self._context = context
        self._encoder = Encoder(exemplars=settings.exemplars)
        self._transport = Transport(settings, f"eventcore-otel/{version_of('eventcore-otel')}", context.logger)
        self._outboxes: dict[Signal, Outbox] = {"metrics": Outbox(resource), "spans": Outbox(resource)}

    def begin(self, signal: Signal) -> None:
        """Drop the parts of a cycle of the signal that ended without ``flush``."""
        self._outboxes[signal].clear()
        if signal == "metrics":
            self._encoder.begin_metrics()

    def counters(self, counters: Sequence[CounterData]) -> None:
        self._add_metrics(self._encoder.counters(counters))

    def gauges(self, gauges: Sequence[GaugeData]) -> None:
        self._add_metrics(self._encoder.gauges(gauges))

    def histograms(self, histograms: Sequence[HistogramData]) -> None:
        self._add_metrics(self._encoder.histograms(histograms))

    def spans(self, spans: Sequence[SpanData]) -> None:
        outbox = self._outboxes["spans"]
        unanswered = outbox.without_answered(spans)
        keys = [key_of(span) for span in unanswered]
        begin = 0
        for group, items in self._encoder.spans(unanswered):
            outbox.add(group, items, keys[begin : begin + len(items)])
            begin += len(items)

    def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        """Send everything of the signal within ``timeout`` seconds; returns what the backend or the encoder rejected."""
        deadline = time.monotonic() + timeout
        name: Literal["metrics", "traces"] = "metrics" if signal == "metrics" else "traces"
        refused = self._outboxes[signal].send_all(
            lambda request, count: self._transport.send(name, request, count, deadline - time.monotonic())
        )
        if signal == "spans":
            return refused
        for instrument in self._encoder.without_sum:
            self._context.report_hidden(
                instrument, "the sum of one of its series is not finite; counts and buckets are exported"
            )
        left_out = [Rejected(count, reason) for reason, count in self._encoder.left_out.items()]
        return sum_of([refused, *left_out] if refused else left_out)

    def close(self) -> None:
        """Cancel the call in flight and close the connections."""
        self._transport.close()

    def _add_metrics(self, encoded: Encoded) -> None:
        for group, points in encoded:
            self._outboxes["metrics"].add(group, points)
