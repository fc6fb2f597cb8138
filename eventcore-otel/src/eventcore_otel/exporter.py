"""The plugin. Its constructor keeps settings; a session for each signal lives from ``start`` to ``shutdown``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
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
    TraceContext,
    hookimpl,
)
from eventcore_otel.choosing import NONE, OTLP
from eventcore_otel.connection import Connection, LoadBalancing
from eventcore_otel.grpc_log import silenced_core
from eventcore_otel.settings import Activate, Parameters, Settings, Temporality

if TYPE_CHECKING:
    import grpc
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

    from eventcore_otel.connection import GetHeaders
    from eventcore_otel.sdk.session import SdkSession
    from eventcore_otel.session import Session

    Headers: TypeAlias = Mapping[str, Secret | str] | GetHeaders
    ChannelCredentials: TypeAlias = grpc.ChannelCredentials
    SdkSpanExporter: TypeAlias = SpanExporter | str
    SdkMetricExporter: TypeAlias = MetricExporter | str
else:
    # Core reads these annotations to convert the settings from configuration, where every header's value is a secret, and
    # exporters are named. Core's conversion does not accept a union that contains ``Secret``.
    Headers: TypeAlias = Mapping[str, Secret]
    SdkSpanExporter: TypeAlias = str
    SdkMetricExporter: TypeAlias = str
    ChannelCredentials: TypeAlias = object  # of gRPC, which is imported when the exporter starts; only code can pass it


class OpenTelemetryExporter(Exporter):
    """Sends metrics and spans over OTLP gRPC to a collector, or to any backend that accepts OTLP.

    A signal may also be exported by any exporter of OpenTelemetry's SDK.

    A parameter that is ``None`` is read from the standard ``OTEL_*`` variables: first from the
    variable of one signal (``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``,
    ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``), then from the general variable. A variable that cannot
    be followed is ignored with one warning that names it.

    Args:
        endpoint: ``http://host:port``, ``https://host:port`` for TLS, or a gRPC target such as
            ``host:port`` (with TLS, unless ``insecure`` is true). Default:
            ``http://localhost:4317``.
        service_name: the resource attribute ``service.name``. Default: that of core.
        headers: sent with every call, for example ``{"authorization": "Bearer …"}``. Their values
            are never shown. In code also a callable that returns them, sync or async: it is asked
            before the first request, after ``headers_lifetime``, and when the receiver answers
            UNAUTHENTICATED. It runs in a thread of its own, an async one on an event loop of its
            own.
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
            against. Default: gRPC's own. This file and those of the client are read again when they
            change.
        client_certificate: a PEM file with the client's certificate, for servers that require one;
            needs ``client_key``.
        client_key: a PEM file with the client's private key.
        span_exporter: who exports spans: an exporter of OpenTelemetry's SDK (an object with
            ``export``), or the name of an installed one in the entry-point group
            ``opentelemetry_traces_exporter``, such as ``"console"``; ``"otlp"`` for this exporter
            itself, ``"none"`` for nobody. Default: ``OTEL_TRACES_EXPORTER``, else ``"otlp"``.
        metric_exporter: the same for metrics: group ``opentelemetry_metrics_exporter``, variable
            ``OTEL_METRICS_EXPORTER``.
        protocol: ``"grpc"``, or ``"http/protobuf"``, which the SDK's exporter speaks (package
            ``opentelemetry-exporter-otlp-proto-http``). Default: ``"grpc"`` if ``endpoint`` is
            given, else ``OTEL_EXPORTER_OTLP_PROTOCOL``, else ``"grpc"``.
        temporality: what points count. ``"cumulative"``: totals since the beginning of their series.
            ``"delta"``: what was added to counters and histograms since the last export.
            ``"lowmemory"``: the same, but counters whose totals a callback gives stay totals.
            Default: that of an exporter object in ``metric_exporter``, else
            ``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE``, else ``"cumulative"``.
        activate: where eventcore's spans are made current in OpenTelemetry, so that spans of
            instrumented libraries become their children. ``"auto"``: where OpenTelemetry is in use
            (a tracer provider is set for the process, or a span or baggage is current);
            ``"always"``; ``"never"``.
        trace_own_io: whether an instrumented database driver also traces the store's own
            statements, for which eventcore has spans.
        headers_lifetime: seconds for which the answer of a callable in ``headers`` is used, more
            than 0. Default: until the receiver answers UNAUTHENTICATED.
        credentials: a ``grpc.ChannelCredentials`` in place of the certificate files. Only in code.
        load_balancing: how several addresses are used, of a name (``dns:///collector:4317``) or of
            a list (``ipv4:10.0.0.1:4317,10.0.0.2:4317``). ``"pick_first"``: one, and another when
            it fails. ``"round_robin"``: all in turn.
        keepalive: seconds between pings that detect a dead connection, more than 0. Servers refuse
            pings that come too often; many allow one in 5 minutes, the OpenTelemetry Collector one
            in 10 seconds if ``keepalive.enforcement_policy`` says so. Default: no pings.
        authority: the server's name in requests and in its certificate, when it is not that of the
            endpoint.
        channel_options: further channel options of gRPC, such as
            ``{"grpc.max_send_message_length": 10000000}``; they win over the exporter's own.
        service_version: the resource attribute ``service.version``.
        resource_detectors: what finds further resource attributes: names in the entry-point group
            ``opentelemetry_resource_detector``, of which the SDK brings ``"host"``, ``"os"``,
            ``"process"`` and ``"service_instance"``; ``"container"``; ``"*"`` for all. They run
            when the exporter starts, 2 seconds at most. Attributes of core and of other parameters
            replace theirs. Default: ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS``, else none.

    Raises:
        ValueError: parameters have faults; the message lists every fault and what was expected.

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
        span_exporter: SdkSpanExporter | None = None,
        metric_exporter: SdkMetricExporter | None = None,
        protocol: Literal["grpc", "http/protobuf"] | None = None,
        temporality: Temporality | None = None,
        activate: Activate = "auto",
        trace_own_io: bool = False,
        headers_lifetime: float | None = None,
        credentials: ChannelCredentials | None = None,
        load_balancing: LoadBalancing = "pick_first",
        keepalive: float | None = None,
        authority: str | None = None,
        channel_options: Mapping[str, str | int] | None = None,
        service_version: str | None = None,
        resource_detectors: Sequence[str] | None = None,
    ) -> None:
        get_headers = headers if callable(headers) else None
        self._settings = Settings.resolve(
            Parameters(
                endpoint=endpoint,
                service_name=service_name,
                headers=None if callable(headers) else headers,
                insecure=insecure,
                timeout=timeout,
                compression=compression,
                resource_attributes=resource_attributes,
                certificate=certificate,
                client_certificate=client_certificate,
                client_key=client_key,
                span_exporter=span_exporter,
                metric_exporter=metric_exporter,
                protocol=protocol,
                temporality=temporality,
                connection=Connection(
                    get_headers=get_headers,
                    headers_lifetime=headers_lifetime,
                    credentials=credentials,
                    load_balancing=load_balancing,
                    keepalive=keepalive,
                    authority=authority,
                    options=channel_options or {},
                ),
                service_version=service_version,
                resource_detectors=resource_detectors,
            )
        )
        if activate not in ("auto", "always", "never"):
            raise ValueError(f"activate={activate!r}: expected 'auto', 'always' or 'never'")
        self._activate = activate
        self._trace_own_io = trace_own_io
        settings = self._settings
        self.interval = settings.interval or self.interval
        self.signals = settings.signals
        self.temporality = settings.temporality
        self.pipeline_defaults = settings.pipeline
        self._sessions: dict[Signal, Session | SdkSession] = {}

    def __repr__(self) -> str:
        settings = self._settings
        return f"OpenTelemetryExporter(metrics={settings.shown('metrics')}, traces={settings.shown('traces')})"

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        """Prepare the connection. It is made by the first export, so that a receiver that is down is not an error here."""
        # Modules that load slowly (gRPC, protobuf messages, the SDK) are imported here, and only those that are used: commands
        # such as `eventcore plugins` import the plugin without starting it.
        self._close()
        self._sessions = {}
        for warning in self._settings.warnings:
            context.logger.warning("%s", warning)
        own: Session | None = None
        signals: tuple[Signal, ...] = ("metrics", "spans")
        for signal in signals:
            chosen = self._settings.exporters["metrics" if signal == "metrics" else "traces"]
            if chosen == OTLP:
                own = own or self._session(context)
                self._sessions[signal] = own
            elif chosen != NONE:
                from eventcore_otel.sdk.session import SdkSession

                self._sessions[signal] = SdkSession(self._settings, context, signal)

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:  # the hook's signature
        """Drop what an earlier cycle of the signal has left behind."""
        self._running(signal).begin(signal)

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of counters and keep it until ``flush``."""
        self._running("metrics").counters(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of gauges and keep it until ``flush``."""
        self._running("metrics").gauges(gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of histograms and keep it until ``flush``."""
        self._running("metrics").histograms(histograms)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:  # the hook's signature
        """Encode a chunk of spans and keep it until ``flush``."""
        self._running("spans").spans(spans)

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        """Send the encoded chunks of the signal, in one attempt."""
        return self._running(signal).flush(signal, timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:  # the hook's signature
        """Cancel the call in flight and close the connections. May run while another hook waits for an answer."""
        self._close()

    @hookimpl
    def ambient_context(self) -> AmbientContext | Callable[[], TraceContext | None]:
        """Connect eventcore's spans and OpenTelemetry's."""
        from eventcore_otel.ambient import OpenTelemetryContext

        system = OpenTelemetryContext(always=self._activate == "always", trace_own_io=self._trace_own_io)
        return system.current if self._activate == "never" else system

    def _session(self, context: ExporterContext) -> Session:
        with silenced_core():
            from eventcore_otel.session import Session

            return Session(self._settings, context)

    def _running(self, signal: Signal) -> Session | SdkSession:
        try:
            return self._sessions[signal]
        except KeyError:
            raise RuntimeError("the OpenTelemetry exporter was not started: call start() before any export hook") from None

    def _close(self) -> None:
        with ExitStack() as closing:  # the second one also where the first one raises
            # One session may serve both signals.
            for session in {id(session): session for session in self._sessions.values()}.values():
                closing.callback(session.close)
