"""Combines the exporter's parameters with the environment: a parameter that is ``None`` is read from ``OTEL_*`` variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, TypeVar

from eventcore.exporting import Attributes, AttributeValue, Secret
from eventcore_otel.endpoint import DEFAULT_ENDPOINT, Endpoint
from eventcore_otel.environment import Environment, Signal, Variable

_T = TypeVar("_T")

_DEFAULT_TIMEOUT: Final = 10.0
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
    """

    target: str
    tls: Tls | None
    headers: tuple[tuple[str, Secret], ...]
    timeout: float
    gzip: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one exporter.

    Attributes:
        metrics: where metrics are sent.
        traces: where spans are sent.
        resource: attributes that the exporter adds to the resource of core.
        warning: a preference in the environment that the exporter does not follow, to be logged;
            empty if there is none.
    """

    metrics: Destination
    traces: Destination
    resource: Attributes
    warning: str

    @classmethod
    def resolve(cls, parameters: Parameters, variables: Mapping[str, str] | None = None) -> Settings:
        """Combine parameters and environment.

        Args:
            parameters: from code or configuration; they take precedence.
            variables: environment variables; by default those of the process.

        Raises:
            ValueError: the message lists every fault, each with its parameter or variable. It never
                contains a header's value.
        """
        resolver = _Resolver(parameters, Environment(os.environ if variables is None else variables))
        metrics, traces = resolver.destination("metrics"), resolver.destination("traces")
        resource = resolver.attempt(resolver.resource) or ()
        if resolver.faults:
            raise ValueError("; ".join(dict.fromkeys(resolver.faults)))
        return cls(metrics, traces, resource, resolver.warning())


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

    def destination(self, signal: Signal) -> Destination:
        self.attempt(self._check_protocol, signal)
        target, tls = self.attempt(self._endpoint, signal) or ("", None)
        return Destination(
            target=target,
            tls=tls,
            headers=self.attempt(self._headers, signal) or (),
            timeout=self.attempt(self._timeout, signal) or _DEFAULT_TIMEOUT,
            gzip=self.attempt(self._gzip, signal) or False,
        )

    def resource(self) -> Attributes:
        """Resource attributes; later sources replace earlier ones: OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, parameters."""
        attributes: dict[str, AttributeValue] = {}
        if variable := self.environment.general("OTEL_RESOURCE_ATTRIBUTES"):
            attributes.update(variable.pairs())
        if variable := self.environment.general("OTEL_SERVICE_NAME"):
            attributes["service.name"] = variable.text
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
        return tuple(attributes.items())

    def warning(self) -> str:
        """The text of ``Settings.warning``: a preference that is not followed is no reason to refuse all other settings."""
        variable = self.environment.general("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")
        if variable is None or variable.text.lower() == "cumulative":
            return ""
        return f"{variable.name}={variable.text!r} is not followed: metrics are sent as cumulative totals"

    def _check_protocol(self, signal: Signal) -> None:
        if (variable := self.environment.exporter(signal, "PROTOCOL")) and variable.text != "grpc":
            raise variable.fault(
                "grpc, the one protocol this exporter speaks; unset it or set it to grpc, with an endpoint for gRPC"
            )

    def _endpoint(self, signal: Signal) -> tuple[str, Tls | None]:
        variable = self.environment.exporter(signal, "ENDPOINT")
        if self.parameters.endpoint is not None:
            endpoint, source = Endpoint.parse(self.parameters.endpoint, "endpoint"), "endpoint"
        elif variable:
            endpoint, source = Endpoint.parse(variable.text, variable.name), variable.name
        else:
            endpoint, source = Endpoint.parse(DEFAULT_ENDPOINT, "endpoint"), "endpoint"
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
            flag = self.environment.exporter(signal, "INSECURE")
            insecure = flag.boolean() if flag else False
        return endpoint.target, None if insecure else self._tls(signal)

    def _tls(self, signal: Signal) -> Tls:
        def path(parameter: str | None, option: str) -> str | None:
            if parameter is not None:
                return parameter
            variable = self.environment.exporter(signal, option)
            return variable.text if variable else None

        tls = Tls(
            certificate=path(self.parameters.certificate, "CERTIFICATE"),
            client_certificate=path(self.parameters.client_certificate, "CLIENT_CERTIFICATE"),
            client_key=path(self.parameters.client_key, "CLIENT_KEY"),
        )
        if (tls.client_certificate is None) != (tls.client_key is None):
            raise ValueError(
                "client_certificate and client_key: expected both or neither (also as OTEL_EXPORTER_OTLP_CLIENT_*)"
            )
        return tls

    def _headers(self, signal: Signal) -> tuple[tuple[str, Secret], ...]:
        if self.parameters.headers is not None:
            return tuple(_header(name, value, "headers") for name, value in self.parameters.headers.items())
        if variable := self.environment.exporter(signal, "HEADERS", secret=True):
            return tuple(_header(name, value, variable.name) for name, value in variable.pairs().items())
        return ()

    def _timeout(self, signal: Signal) -> float:
        if (timeout := self.parameters.timeout) is not None:
            if not (isfinite(timeout) and timeout > 0):
                raise ValueError(f"timeout={timeout!r}: expected seconds, more than 0")
            return float(timeout)
        variable = self.environment.exporter(signal, "TIMEOUT")
        return variable.seconds() if variable else _DEFAULT_TIMEOUT

    def _gzip(self, signal: Signal) -> bool:
        variable = self.environment.exporter(signal, "COMPRESSION")
        if self.parameters.compression is not None:
            variable = Variable("compression", self.parameters.compression)
        if variable is None:
            return False
        if variable.text not in ("gzip", "none"):
            raise variable.fault("gzip or none")
        return variable.text == "gzip"


def _header(name: object, value: object, source: str) -> tuple[str, Secret]:
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
