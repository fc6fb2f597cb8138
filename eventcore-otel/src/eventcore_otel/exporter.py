"""The plugin: settings when it is constructed, a session from ``start`` to ``shutdown``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    HistogramData,
    Rejected,
    Secret,
    SpanData,
    TraceContext,
    hookimpl,
)
from eventcore_otel.settings import Parameters, Settings

if TYPE_CHECKING:
    from eventcore_otel.session import Session

    Headers: TypeAlias = Mapping[str, Secret | str]
else:
    # Configuration makes secrets of them; core's validation takes no union of a secret with anything else.
    Headers: TypeAlias = Mapping[str, Secret]


class OpenTelemetryExporter(Exporter):
    """Sends metrics and spans over OTLP gRPC, to a collector or to any backend that speaks OTLP.

    A parameter that is absent is read from the standard ``OTEL_*`` variables, first in the form of one signal
    (``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``, ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``), then in the general one.

    Args:
        endpoint: ``http://host:port``, ``https://host:port`` for TLS, or a gRPC target such as ``host:port`` (with TLS, unless
            ``insecure``); ``http://localhost:4317`` by default.
        service_name: the resource attribute ``service.name``, in place of the one from core.
        headers: sent with every call, for example ``{"authorization": "Bearer …"}``; their values are never shown.
        insecure: whether to connect without TLS; only for an endpoint that has no ``http://`` or ``https://``.
        timeout: the most seconds that one attempt may take, 10 by default; the pipeline's own deadline may be nearer. The
            variable ``OTEL_EXPORTER_OTLP_TIMEOUT`` counts milliseconds, as the specification says; a number below 100 is
            taken as seconds, as OpenTelemetry's Python SDK counts.
        compression: ``"gzip"`` or ``"none"`` (the default).
        resource_attributes: added to the resource from core, and stronger than it.
        certificate: a file (PEM) with the certificates that the server's is checked against; gRPC's own by default.
        client_certificate: a file (PEM) with our certificate, for servers that ask for one; with ``client_key``.
        client_key: a file (PEM) with our private key.

    Raises:
        ValueError: with every fault of the parameters and variables, and what was expected.

    >>> OpenTelemetryExporter(endpoint="http://localhost:4317", service_name="shop", headers={"authorization": "Bearer t0k3n"})
    OpenTelemetryExporter(metrics='localhost:4317', traces='localhost:4317')
    """

    interval = 10.0

    def __init__(
        self,
        endpoint: str | None = None,
        service_name: str | None = None,
        headers: Headers | None = None,
        insecure: bool | None = None,
        timeout: float | None = None,
        compression: Literal["gzip", "none"] | None = None,
        resource_attributes: Mapping[str, str | bool | int | float] | None = None,
        certificate: str | None = None,
        client_certificate: str | None = None,
        client_key: str | None = None,
    ) -> None:
        self._settings = Settings.resolve(
            Parameters(
                endpoint=endpoint,
                service_name=service_name,
                headers=headers,
                insecure=insecure,
                timeout=timeout,
                compression=compression,
                resource_attributes=resource_attributes,
                certificate=certificate,
                client_certificate=client_certificate,
                client_key=client_key,
            )
        )
        self._session: Session | None = None

    def __repr__(self) -> str:
        return f"OpenTelemetryExporter(metrics={self._settings.metrics.target!r}, traces={self._settings.traces.target!r})"

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        """Prepare to connect; the connection is made at the first export, and a receiver that is down is no error."""
        # Imported here: gRPC and the protobuf messages are heavy, and a plugin is also loaded just to be looked at.
        from eventcore_otel.session import Session

        if self._session is not None:
            self._session.close()
        self._session = Session(self._settings, context)
        if self._settings.warning:
            context.logger.warning(self._settings.warning)

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:  # the hook has it
        """Encode a chunk of counters and hold it."""
        self._running().counters(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:  # the hook has it
        """Encode a chunk of gauges and hold it."""
        self._running().gauges(gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:  # the hook has it
        """Encode a chunk of histograms and hold it."""
        self._running().histograms(histograms)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:  # the hook has it
        """Encode a chunk of spans and hold it."""
        self._running().spans(spans)

    @hookimpl
    def flush(self, timeout: float) -> Rejected | None:
        """Send what is held, in one attempt."""
        return self._running().flush(timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:  # the hook has it
        """Cancel the call in flight and close the connections."""
        if self._session is not None:
            self._session.close()

    @hookimpl
    def trace_context(self) -> Callable[[], TraceContext | None]:
        """Give the function that tells the ambient OpenTelemetry span."""
        from eventcore_otel.ambient import current_trace_context

        return current_trace_context

    def _running(self) -> Session:
        if self._session is None:
            raise RuntimeError("the OpenTelemetry exporter was not started: core calls start() before any export")
        return self._session
