"""The plugin. Its constructor keeps settings; a ``Session`` lives from ``start`` to ``shutdown``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from eventcore.exporting import (
    AmbientContext,
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    HistogramData,
    Rejected,
    Secret,
    Signal,
    SpanData,
    hookimpl,
)
from eventcore_otel.settings import Parameters, Settings

if TYPE_CHECKING:
    from eventcore_otel.session import Session

    Headers: TypeAlias = Mapping[str, Secret | str]
else:
    # Core reads this annotation to convert the setting from configuration, where every header's value is a secret. Core's
    # conversion does not accept a union that contains ``Secret``.
    Headers: TypeAlias = Mapping[str, Secret]


class OpenTelemetryExporter(Exporter):
    """Sends metrics and spans over OTLP gRPC to a collector, or to any backend that accepts OTLP.

    A parameter that is ``None`` is read from the standard ``OTEL_*`` variables: first from the
    variable of one signal (``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``,
    ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``), then from the general variable.

    Args:
        endpoint: ``http://host:port``, ``https://host:port`` for TLS, or a gRPC target such as
            ``host:port`` (with TLS, unless ``insecure`` is true). Default:
            ``http://localhost:4317``.
        service_name: the resource attribute ``service.name``. Default: that of core.
        headers: sent with every call, for example ``{"authorization": "Bearer …"}``. Their values
            are never shown.
        insecure: whether to connect without TLS. Only for an endpoint without ``http://`` or
            ``https://``.
        timeout: the longest time that one attempt may take, in seconds, more than 0. Default: 10.
            An attempt also ends at the pipeline's deadline. The variable
            ``OTEL_EXPORTER_OTLP_TIMEOUT`` is in milliseconds, as the specification says; a number
            below 100 is read as seconds, because OpenTelemetry's Python SDK reads seconds.
        compression: ``"gzip"`` or ``"none"``. Default: ``"none"``.
        resource_attributes: added to the resource of core; they replace attributes of the same
            name.
        certificate: a PEM file with the certificates that the server's certificate is checked
            against. Default: gRPC's own.
        client_certificate: a PEM file with the client's certificate, for servers that require one;
            needs ``client_key``.
        client_key: a PEM file with the client's private key.

    Raises:
        ValueError: parameters or variables have faults; the message lists every fault and what was
            expected.

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
        """Prepare the connection. It is made by the first export, so that a receiver that is down is not an error here."""
        # Imported here because gRPC and the protobuf messages load slowly, and commands such as `eventcore plugins` import the
        # plugin without starting it.
        from eventcore_otel.session import Session

        if self._session is not None:
            self._session.close()
        self._session = Session(self._settings, context)
        if self._settings.warning:
            context.logger.warning(self._settings.warning)

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:  # the hook's signature
        """Drop what an earlier cycle of the signal has left behind."""
        self._running().begin(signal)

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of counters and keep it until ``flush``."""
        self._running().counters(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of gauges and keep it until ``flush``."""
        self._running().gauges(gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of histograms and keep it until ``flush``."""
        self._running().histograms(histograms)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of spans and keep it until ``flush``."""
        self._running().spans(spans)

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        """Send the encoded chunks of the signal, in one attempt."""
        return self._running().flush(signal, timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:  # the hook's signature
        """Cancel the call in flight and close the connections. May run while another hook waits for an answer."""
        if self._session is not None:
            self._session.close()

    @hookimpl
    def ambient_context(self) -> AmbientContext:
        """Connect eventcore's spans and OpenTelemetry's."""
        from eventcore_otel.ambient import OpenTelemetryContext

        return OpenTelemetryContext()

    def _running(self) -> Session:
        if self._session is None:
            raise RuntimeError("the OpenTelemetry exporter was not started: call start() before any export hook")
        return self._session
