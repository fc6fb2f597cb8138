"""One signal, exported by an exporter of OpenTelemetry's SDK."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace.export import SpanExportResult

from eventcore.exporting import (
    CounterData,
    ExporterContext,
    GaugeData,
    HistogramData,
    Rejected,
    Signal,
    SpanData,
)
from eventcore_otel.ambient import SUPPRESSED
from eventcore_otel.choosing import GROUPS, OTLP_HTTP
from eventcore_otel.environment import Signal as SdkSignal
from eventcore_otel.resource import complete
from eventcore_otel.sdk.translation import Gathered, Translator
from eventcore_otel.settings import Destination, Settings

_SUCCESS: Final = (SpanExportResult.SUCCESS, MetricExportResult.SUCCESS)
_FAILURE: Final = (SpanExportResult.FAILURE, MetricExportResult.FAILURE)


class SdkSession:
    """Translates the chunks of a cycle when they come, and gives all of them to the SDK's exporter in ``flush``.

    The SDK's contract is followed: an exporter retries by itself, and what it answers ``FAILURE`` for is not sent again. What
    it raises counts as not delivered, and core tries again. A call that does not return is core's to contain, as that of any
    exporter.

    Args:
        settings: the exporter's settings.
        context: what core passed to ``start``.
        signal: what is exported.
    """

    def __init__(self, settings: Settings, context: ExporterContext, signal: Signal) -> None:
        name: SdkSignal = "metrics" if signal == "metrics" else "traces"
        given = settings.exporters[name]
        self._exporter: Any = _made(name, given, settings) if isinstance(given, str) else given
        self._translator = Translator(complete(context, settings).attributes)
        self._spans: list[Any] = []
        self._metrics: Gathered = {}
        self._closed = False

    def begin(self, signal: Signal) -> None:
        """Drop the chunks of a cycle that ended without ``flush``."""
        self._spans, self._metrics = [], {}

    def counters(self, counters: Sequence[CounterData]) -> None:
        """Translate a chunk and keep it until ``flush``."""
        self._translator.gather(counters, self._metrics)

    def gauges(self, gauges: Sequence[GaugeData]) -> None:
        """Translate a chunk and keep it until ``flush``."""
        self._translator.gather(gauges, self._metrics)

    def histograms(self, histograms: Sequence[HistogramData]) -> None:
        """Translate a chunk and keep it until ``flush``."""
        self._translator.gather(histograms, self._metrics)

    def spans(self, spans: Sequence[SpanData]) -> None:
        """Translate a chunk and keep it until ``flush``."""
        self._spans += map(self._translator.span, spans)

    def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        """Export everything since ``begin``; returns what the exporter says it could not deliver."""
        spans, metrics = self._spans, self._metrics
        self.begin(signal)
        deadline = time.monotonic() + timeout
        if signal == "spans":
            return self._export(len(spans), lambda: self._exporter.export(spans)) if spans else None
        if not (count := sum(len(points) for _, points in metrics.values())):
            return None
        data = self._translator.metrics(metrics)
        left = max(0.0, deadline - time.monotonic())
        return self._export(count, lambda: self._exporter.export(data, timeout_millis=left * 1000))

    def close(self) -> None:
        """Shut the SDK's exporter down; it may be called while another thread is in its ``export``."""
        # Called once more when a hook has returned that was running meanwhile.
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()

    def _export(self, count: int, call: Callable[[], object]) -> Rejected | None:
        # As the SDK's own processors do: instrumented libraries must not trace what the exporter sends.
        token = otel_context.attach(Context({**otel_context.get_current(), **SUPPRESSED}))
        try:
            answer = call()
        finally:
            otel_context.detach(token)
        if any(answer is each for each in _SUCCESS):
            return None
        name = type(self._exporter).__name__
        if any(answer is each for each in _FAILURE):
            return Rejected(count, f"{name}.export answered FAILURE; its own log says why")
        return Rejected(count, f"{name}.export returned a {type(answer).__name__}; expected SUCCESS or FAILURE")


def _made(signal: SdkSignal, name: str, settings: Settings) -> Any:
    """An exporter from OpenTelemetry's entry points.

    Raises:
        ValueError: it is not installed any more, or it is no exporter.
    """
    [found, *_] = (*entry_points(group=GROUPS[signal], name=name), None)
    if found is None:
        raise ValueError(f"the exporter {name!r} is not installed (entry-point group {GROUPS[signal]!r})")
    factory = found.load()
    exporter = factory(**_http_options(settings, signal)) if name == OTLP_HTTP else factory()
    if not callable(getattr(exporter, "export", None)):
        raise ValueError(f"{name!r} ({found.value}) is no exporter: it has no method export")
    return exporter


def _http_options(settings: Settings, signal: SdkSignal) -> dict[str, Any]:
    """What the exporter for OTLP over HTTP would read from variables, as this exporter has understood it."""
    from opentelemetry.exporter.otlp.proto.http import Compression

    destination: Destination = getattr(settings, signal)
    tls = destination.tls
    return {
        "endpoint": destination.url,
        "headers": {name: value.reveal() for name, value in destination.headers},
        "timeout": destination.timeout,
        "compression": Compression.Gzip if destination.gzip else Compression.NoCompression,
        "certificate_file": tls.certificate if tls else None,
        "client_certificate_file": tls.client_certificate if tls else None,
        "client_key_file": tls.client_key if tls else None,
    }
