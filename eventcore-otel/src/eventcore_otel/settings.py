"""Combines the exporter's parameters with the environment: a parameter that is ``None`` is read from ``OTEL_*`` variables.

A fault of a parameter is an error. A fault of a variable is a warning: see ``environment``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

from eventcore.exporting import Attributes, AttributeValue, Secret
from eventcore_otel.choosing import NONE, OTLP, OTLP_HTTP, choose, choose_by_protocol, choose_by_variables
from eventcore_otel.connection import Connection
from eventcore_otel.endpoint import DEFAULT_ENDPOINT, Endpoint
from eventcore_otel.environment import Environment, Signal, Variable

Activate: TypeAlias = Literal["auto", "always", "never"]
Temporality: TypeAlias = Literal["cumulative", "delta", "lowmemory"]

_T = TypeVar("_T")

_SIGNALS: Final[tuple[Signal, ...]] = ("metrics", "traces")
_TEMPORALITIES: Final = ("cumulative", "delta", "lowmemory")
_EXPORT_TIMEOUTS: Final[dict[Signal, str]] = {"metrics": "OTEL_METRIC_EXPORT_TIMEOUT", "traces": "OTEL_BSP_EXPORT_TIMEOUT"}
_DEFAULT_TIMEOUT: Final = 10.0
_DEFAULT_HTTP_ENDPOINT: Final = "http://localhost:4318"
_HEADER_NAME: Final = re.compile(r"[a-z0-9_.-]+")
# gRPC sends only printable ASCII as the value of a text header.
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The arguments of the exporter's constructor; ``None`` for each that was left out."""

    endpoint: str | None = None
    service_name: str | None = None
    headers: Mapping[str, Secret | str] | None = field(default=None, repr=False)
    insecure: bool | None = None
    timeout: float | None = None
    compression: str | None = None
    resource_attributes: Mapping[str, object] | None = None
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    span_exporter: object = None
    metric_exporter: object = None
    protocol: str | None = None
    temporality: str | None = None
    connection: Connection = field(default_factory=Connection)
    service_version: str | None = None
    resource_detectors: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files.

    Attributes:
        certificate: root certificates; ``None`` for gRPC's own.
        client_certificate: the client's certificate; ``None`` to send none. Set together with
            ``client_key``.
        client_key: the private key of ``client_certificate``.
    """

    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where and how one signal is sent.

    Attributes:
        target: the server in gRPC's syntax.
        tls: ``None`` for a connection without TLS.
        headers: names in lower case, with their values.
        timeout: seconds that one attempt may take.
        gzip: whether requests are compressed.
        url: the endpoint of this signal for OTLP over HTTP, which the SDK's exporter speaks; empty
            over gRPC.
    """

    target: str
    tls: Tls | None
    headers: tuple[tuple[str, Secret], ...]
    timeout: float
    gzip: bool
    url: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one exporter.

    Attributes:
        metrics: where metrics are sent.
        traces: where spans are sent.
        resource: attributes that the exporter adds to the resource of core.
        exporters: who exports each signal: ``otlp`` for this exporter itself, ``none``, the name of
            an entry point of an SDK exporter, or such an exporter.
        temporality: what the points of metrics count.
        exemplars: whether exemplars are sent.
        interval: seconds between metrics cycles, from a variable; ``None`` when it is not set.
        pipeline: values for core's pipeline, from variables.
        warnings: variables that the exporter does not follow, to be logged.
        connection: how to connect to the receivers.
        detectors: names of resource detectors.
    """

    metrics: Destination
    traces: Destination
    resource: Attributes
    exporters: Mapping[Signal, object] = field(default_factory=lambda: dict.fromkeys(_SIGNALS, OTLP))
    temporality: Temporality = "cumulative"
    exemplars: bool = True
    interval: float | None = None
    pipeline: Mapping[str, Any] = field(default_factory=dict[str, Any])
    warnings: tuple[str, ...] = ()
    connection: Connection = field(default_factory=Connection)
    detectors: tuple[str, ...] = ()

    @classmethod
    def resolve(cls, parameters: Parameters, variables: Mapping[str, str] | None = None) -> Settings:
        """Combine parameters and environment.

        Args:
            parameters: from code or configuration; they take precedence.
            variables: environment variables; by default those of the process.

        Raises:
            ValueError: the message lists the faults of all parameters. It never contains a header's
                value.
        """
        environment = Environment(os.environ if variables is None else variables)
        resolver = _Resolver(parameters, environment)
        exporters: dict[Signal, object] = {}
        for signal in _SIGNALS:
            exporters[signal] = resolver.attempt(resolver.exporter, signal) or OTLP
        if environment.read("OTEL_SDK_DISABLED", Variable.boolean):
            exporters = dict.fromkeys(_SIGNALS, NONE)
        metrics = resolver.destination("metrics", exporters["metrics"])
        traces = resolver.destination("traces", exporters["traces"])
        resource = resolver.attempt(resolver.resource) or ()
        temporality = resolver.attempt(resolver.temporality) or "cumulative"
        resolver.faults += parameters.connection.faults()
        if parameters.connection.credentials is not None and None in (metrics.tls, traces.tls):
            resolver.faults.append(
                "credentials: expected only where TLS is used; the endpoint says http://, or insecure is true"
            )
        if resolver.faults:
            raise ValueError("; ".join(dict.fromkeys(resolver.faults)))
        return cls(
            metrics,
            traces,
            resource,
            exporters,
            temporality,
            exemplars=_exemplars(environment),
            interval=environment.read("OTEL_METRIC_EXPORT_INTERVAL", Variable.interval),
            pipeline={**_for_sdk(exporters["traces"]), **_pipeline(environment)},
            warnings=(*environment.warnings, *_not_followed(environment)),
            connection=parameters.connection,
            detectors=_detectors(parameters, environment),
        )

    @property
    def signals(self) -> tuple[Literal["metrics", "spans"], ...]:
        """The signals that are exported."""
        metrics, traces = (self.exporters[signal] != NONE for signal in _SIGNALS)
        return (*(("metrics",) if metrics else ()), *(("spans",) if traces else ()))

    def shown(self, signal: Signal) -> str:
        """Who exports a signal and where to, without secrets."""
        chosen = self.exporters[signal]
        if isinstance(chosen, str) and chosen not in (OTLP, OTLP_HTTP):
            return chosen
        destination = self.metrics if signal == "metrics" else self.traces
        return repr(destination.target) if isinstance(chosen, str) else type(chosen).__name__


class _Resolver:
    """Resolves one setting at a time and collects the faults, so that all of them come in one error."""

    def __init__(self, parameters: Parameters, environment: Environment) -> None:
        self.parameters = parameters
        self.environment = environment
        self.faults: list[str] = []

    def attempt(self, resolve: Callable[..., _T], *arguments: Signal) -> _T | None:
        try:
            return resolve(*arguments)
        except ValueError as error:
            self.faults.append(str(error))
            return None

    def exporter(self, signal: Signal) -> object:
        """Who exports the signal; the parameters take precedence over the variables."""
        name = "metric_exporter" if signal == "metrics" else "span_exporter"
        given = self.parameters.metric_exporter if signal == "metrics" else self.parameters.span_exporter
        if given is not None and not isinstance(given, str):
            if not callable(getattr(given, "export", None)):
                raise ValueError(f"{name}: expected an exporter of OpenTelemetry's SDK or its name, not {type(given).__name__}")
            return given
        protocol, connection = self.parameters.protocol, self.parameters.connection
        for_grpc = connection.get_headers is not None or connection.credentials is not None
        if protocol is not None:
            choose_by_protocol(signal, protocol)
            if for_grpc and protocol != "grpc":
                raise ValueError(
                    "headers from a function, and credentials, need protocol='grpc': the SDK's exporter takes texts"
                )
        elif for_grpc or self.parameters.endpoint is not None:
            # The parameters are documented as those of gRPC. A variable that is meant for the SDK must not change that.
            protocol = "grpc"
        if given is not None and (chosen := choose(signal, given, name)) != OTLP:
            return chosen
        if given is not None:
            return OTLP_HTTP if protocol == "http/protobuf" else OTLP
        return choose_by_variables(signal, self.environment, protocol)

    def destination(self, signal: Signal, exporter: object) -> Destination:
        over_http = exporter == OTLP_HTTP
        target, tls = self.attempt(self._http_target if over_http else self._endpoint, signal) or ("", None)
        return Destination(
            target=target,
            tls=tls,
            headers=self.attempt(self._headers, signal) or (),
            timeout=self.attempt(self._timeout, signal) or _DEFAULT_TIMEOUT,
            gzip=self.attempt(self._gzip, signal) or False,
            url=target if over_http else "",
        )

    def resource(self) -> Attributes:
        """Attributes of the parameters. Core has read ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME``."""
        attributes: dict[str, AttributeValue] = {}
        for name, value in (self.parameters.resource_attributes or {}).items():
            if not isinstance(value, (str, bool, int, float)):
                raise ValueError(
                    f"resource_attributes[{name!r}]: expected a str, bool, int or float, not {type(value).__name__}"
                )
            attributes[name] = value
        if self.parameters.service_name is not None:
            if not self.parameters.service_name:
                raise ValueError("service_name: expected a text that is not empty")
            attributes["service.name"] = self.parameters.service_name
        if self.parameters.service_version is not None:
            if not self.parameters.service_version:
                raise ValueError("service_version: expected a text that is not empty")
            attributes["service.version"] = self.parameters.service_version
        return tuple(attributes.items())

    def temporality(self) -> Temporality:
        """What the points of counters and histograms count."""
        given = self.parameters.temporality
        if given is not None and given not in _TEMPORALITIES:
            raise ValueError(f"temporality={given!r}: expected {', '.join(_TEMPORALITIES[:-1])} or {_TEMPORALITIES[-1]}")
        name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
        variable = self.environment.read(name, lambda variable: variable.one_of(*_TEMPORALITIES))
        chosen: Any = given or _preferred(self.parameters.metric_exporter) or variable
        return chosen or "cumulative"

    def _endpoint(self, signal: Signal) -> tuple[str, Tls | None]:
        if self.parameters.endpoint is not None:
            endpoint, source = Endpoint.parse(self.parameters.endpoint, "endpoint"), "endpoint"
        else:
            found = self.environment.exporter(signal, "ENDPOINT", self._endpoint_of_variable)
            endpoint, source = found or (Endpoint.parse(DEFAULT_ENDPOINT, "endpoint"), "endpoint")
        insecure = self.parameters.insecure
        if endpoint.tls is not None:
            # http:// with insecure=False would send unencrypted what should be encrypted; https:// with insecure=True would
            # fail at every call. Only the parameter is compared with the scheme: OTEL_EXPORTER_OTLP_INSECURE is ignored for a
            # URL with a scheme, as the specification says.
            if insecure is not None and insecure == endpoint.tls:
                scheme = "https" if endpoint.tls else "http"
                raise ValueError(f"insecure={insecure} contradicts the scheme {scheme}:// of {source}: leave one of them out")
            insecure = not endpoint.tls
        elif insecure is None:
            insecure = self.environment.exporter(signal, "INSECURE", Variable.boolean) or False
        return endpoint.target, None if insecure else self._tls(signal)

    def _endpoint_of_variable(self, variable: Variable) -> tuple[Endpoint, str]:
        url = variable.text
        if url.lower().startswith(("http://", "https://")) and "@" not in url:
            # A path belongs to OTLP over HTTP. As in the SDK, gRPC uses the rest.
            base = "/".join(url.split("/")[:3]).partition("?")[0].partition("#")[0]
            if base != url.rstrip("/"):
                self.environment.warn(variable, f"{variable} is followed in part: gRPC takes no path; {base} is used")
            url = base
        return Endpoint.parse(url, variable.name), variable.name

    def _http_target(self, signal: Signal) -> tuple[str, Tls | None]:
        """The URL of the signal, as the specification makes it of the endpoint, and the files of TLS."""
        path = f"v1/{signal}"
        if (given := self.parameters.endpoint) is not None:
            url = _http_url(given, "endpoint")
            return (url if url.endswith(f"/{path}") else f"{url.rstrip('/')}/{path}"), self._tls(signal)

        def read(name: str) -> str | None:
            return self.environment.read(name, lambda variable: _http_url(variable.text, variable.name))

        # The variable of one signal is the whole URL, the general one is the base.
        if (whole := read(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")) is not None:
            return whole, self._tls(signal)
        base = read("OTEL_EXPORTER_OTLP_ENDPOINT") or _DEFAULT_HTTP_ENDPOINT
        return f"{base.rstrip('/')}/{path}", self._tls(signal)

    def _tls(self, signal: Signal) -> Tls:
        parameters, names = self.parameters, ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
        given = (parameters.certificate, parameters.client_certificate, parameters.client_key)
        if (given[1] is None) != (given[2] is None):
            raise ValueError("client_certificate and client_key: expected both or neither")
        found = [self.environment.exporter(signal, name, _itself) for name in names]
        certificate = given[0] or (found[0].text if found[0] else None)
        if given[1] is not None:
            return Tls(certificate, given[1], given[2])
        if found[1] is None or found[2] is None:
            if alone := found[1] or found[2]:
                self.environment.warn(alone, f"{alone} is ignored: expected both a client certificate and its key")
            return Tls(certificate)
        return Tls(certificate, found[1].text, found[2].text)

    def _headers(self, signal: Signal) -> tuple[tuple[str, Secret], ...]:
        if self.parameters.connection.get_headers is not None:
            return ()
        if self.parameters.headers is not None:
            return tuple(header(name, value, "headers") for name, value in self.parameters.headers.items())
        return self.environment.exporter(signal, "HEADERS", self._headers_of_variable, secret=True) or ()

    def _headers_of_variable(self, variable: Variable) -> tuple[tuple[str, Secret], ...]:
        """Every header that is well formed: a fault of another one must not lose the token."""
        headers: dict[str, Secret] = {}
        for position, name, value in variable.pairs():
            try:
                if not name:
                    raise ValueError("expected key=value pairs separated by commas, percent-encoded")
                key, secret = header(name, value, f"pair {position}")
            except ValueError as error:
                self.environment.warn(variable, f"{variable} is followed in part: pair {position} is left out: {error}")
            else:
                headers[key] = secret
        return tuple(headers.items())

    def _timeout(self, signal: Signal) -> float:
        if (timeout := self.parameters.timeout) is not None:
            if not (isfinite(timeout) and timeout > 0):
                raise ValueError(f"timeout={timeout!r}: expected seconds, more than 0")
            return float(timeout)
        found = self.environment.exporter(signal, "TIMEOUT", Variable.attempt_seconds)
        limit = self.environment.read(_EXPORT_TIMEOUTS[signal], Variable.timeout)
        timeout = found or _DEFAULT_TIMEOUT
        return min(timeout, limit or timeout)

    def _gzip(self, signal: Signal) -> bool:
        if (given := self.parameters.compression) is not None:
            if given not in ("gzip", "none"):
                raise ValueError(f"compression={given!r}: expected gzip or none")
            return given == "gzip"
        return self.environment.exporter(signal, "COMPRESSION", lambda variable: variable.one_of("gzip", "none")) == "gzip"


def _detectors(parameters: Parameters, environment: Environment) -> tuple[str, ...]:
    """The names of resource detectors; ``otel`` stands for variables that core has read."""
    names = parameters.resource_detectors
    if names is None:
        variable = environment.read("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", _itself)
        names = variable.text.split(",") if variable else ()
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip() not in ("", "otel")))


def _for_sdk(exporter: object) -> Mapping[str, Any]:
    """Exporters of the SDK are made for batches of the SDK's size."""
    return {} if exporter in (OTLP, NONE) else {"span_batch": 512}


def _preferred(exporter: object) -> str | None:
    """What an exporter of the SDK asks for, as the SDK's own reader finds it; ``None`` when it asks for nothing."""
    preferred: Any = getattr(exporter, "_preferred_temporality", None)
    if not isinstance(preferred, Mapping):
        return None
    entries = cast("Mapping[object, object]", preferred).items()
    names = {getattr(kind, "__name__", ""): getattr(value, "name", "") for kind, value in entries}
    if names.get("Counter") != "DELTA":
        return "cumulative"
    return "delta" if names.get("ObservableCounter") == "DELTA" else "lowmemory"


def _pipeline(environment: Environment) -> Mapping[str, Any]:
    """What variables say of core's pipeline."""
    timeouts = [environment.read(name, Variable.timeout) for name in _EXPORT_TIMEOUTS.values()]
    values: dict[str, Any] = {
        "span_interval": environment.read("OTEL_BSP_SCHEDULE_DELAY", Variable.delay),
        "span_queue": environment.read("OTEL_BSP_MAX_QUEUE_SIZE", Variable.number),
        "span_batch": environment.read("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", Variable.number),
        # A hook of either signal has this time; `Destination.timeout` is the limit of each.
        "export_timeout": max((seconds for seconds in timeouts if seconds is not None), default=None),
    }
    for name, most in (("span_queue", 1_000_000), ("span_batch", 100_000)):
        if values[name] is not None:
            values[name] = min(values[name], most)
    if values["span_batch"] is not None and values["span_queue"] is not None:
        values["span_batch"] = min(values["span_batch"], values["span_queue"])
    return {name: value for name, value in values.items() if value is not None}


def _exemplars(environment: Environment) -> bool:
    """Whether exemplars are sent: those of sampled spans, unless the variable says ``always_off``."""

    def read(variable: Variable) -> str:
        if (text := variable.one_of("trace_based", "always_off", "always_on")) == "always_on":
            environment.warn(variable, f"{variable} is not followed: exemplars come from sampled spans only (trace_based)")
        return text

    return environment.read("OTEL_METRICS_EXEMPLAR_FILTER", read) != "always_off"


def _not_followed(environment: Environment) -> tuple[str, ...]:
    """What the exporter has no counterpart for, and must say so."""
    aggregation = environment.read(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        lambda variable: variable if variable.text.lower() != "explicit_bucket_histogram" else None,
    )
    warnings = [f"{aggregation} is not followed: histograms have explicit buckets"] if aggregation else []
    files = (environment.read(name, _itself) for name in ("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"))
    hint = "configure eventcore in eventcore.toml, or by the other OTEL_* variables"
    warnings += [f"{file} is not followed: {hint}" for file in files if file is not None]
    return tuple(warnings)


def _itself(variable: Variable) -> Variable:
    return variable


def _http_url(text: str, source: str) -> str:
    if not text.lower().startswith(("http://", "https://")) or "@" in text or any(map(str.isspace, text)):
        raise ValueError(f"{source}: expected a URL like 'http://localhost:4318' for OTLP over HTTP, without user and password")
    return text


def header(name: object, value: object, source: str) -> tuple[str, Secret]:
    """A header as gRPC sends it.

    Raises:
        ValueError: gRPC cannot send it; the message never contains the value.
    """
    if not isinstance(name, str) or not isinstance(value, (Secret, str)):
        raise ValueError(f"{source}: expected header names and values of type str")
    key = name.lower()
    if not _HEADER_NAME.fullmatch(key):
        # Do not quote the name: in a mistyped list, a secret may be in its place.
        raise ValueError(f"{source}: the name of a header may contain only letters, digits, '-', '_' and '.'")
    if key.endswith("-bin") or key.startswith("grpc-"):
        raise ValueError(f"{source}: the name {key!r} is reserved by gRPC (grpc-*, *-bin)")
    secret = value if isinstance(value, Secret) else Secret(value)
    if not _HEADER_VALUE.fullmatch(secret.reveal()):
        raise ValueError(f"{source}: the value of {key!r} has characters that HTTP/2 cannot send; expected printable ASCII")
    return key, secret
