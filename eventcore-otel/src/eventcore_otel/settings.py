"""What the exporter needs to know, from its parameters and, where they are absent, from the environment."""

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
# What HTTP/2 lets gRPC send as a metadata value.
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The exporter's parameters as they were given; ``None`` where they were not."""

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
    """Files in PEM; ``None`` for gRPC's own root certificates, and for no client certificate."""

    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one signal goes, and how; ``tls`` is ``None`` for a plain connection, ``timeout`` in seconds."""

    target: str
    tls: Tls | None
    headers: tuple[tuple[str, Secret], ...]
    timeout: float
    gzip: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it.

    Attributes:
        metrics: where metrics go.
        traces: where spans go.
        resource: what the exporter adds to the resource of core.
        warning: what was asked for and is not done; empty when there is nothing.
    """

    metrics: Destination
    traces: Destination
    resource: Attributes
    warning: str

    @classmethod
    def resolve(cls, parameters: Parameters, variables: Mapping[str, str] | None = None) -> Settings:
        """Combine parameters and environment.

        Args:
            parameters: what was given in code or configuration; it wins.
            variables: the environment; the process's own by default.

        Raises:
            ValueError: with every fault, each naming its parameter or variable; values of headers never appear.
        """
        resolver = _Resolver(parameters, Environment(os.environ if variables is None else variables))
        metrics, traces = resolver.destination("metrics"), resolver.destination("traces")
        resource = resolver.attempt(resolver.resource) or ()
        if resolver.faults:
            raise ValueError("; ".join(dict.fromkeys(resolver.faults)))
        return cls(metrics, traces, resource, resolver.warning())


class _Resolver:
    def __init__(self, parameters: Parameters, environment: Environment) -> None:
        self.given = parameters
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
        """From the weakest to the strongest: OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, the parameters."""
        attributes: dict[str, AttributeValue] = {}
        if variable := self.environment.general("OTEL_RESOURCE_ATTRIBUTES"):
            attributes.update(variable.pairs())
        if variable := self.environment.general("OTEL_SERVICE_NAME"):
            attributes["service.name"] = variable.text
        for name, value in (self.given.resource_attributes or {}).items():
            if not isinstance(value, (str, bool, int, float)):
                raise ValueError(
                    f"resource_attributes[{name!r}]: expected a str, bool, int or float, not {type(value).__name__}"
                )
            attributes[name] = value
        if self.given.service_name is not None:
            if not self.given.service_name:
                raise ValueError("service_name: expected a text that is not empty")
            attributes["service.name"] = self.given.service_name
        return tuple(attributes.items())

    def warning(self) -> str:
        """A preference, not a demand: refusing it would take away the rest too."""
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
        if self.given.endpoint is not None:
            endpoint, source = Endpoint.parse(self.given.endpoint, "endpoint"), "endpoint"
        elif variable:
            endpoint, source = Endpoint.parse(variable.text, variable.name), variable.name
        else:
            endpoint, source = Endpoint.parse(DEFAULT_ENDPOINT, "endpoint"), "endpoint"
        insecure = self.given.insecure
        if endpoint.tls is not None:
            # An http:// URL beside insecure=False would send in plain text what was meant to be encrypted, and the reverse
            # fails at every call; in the environment the scheme wins, as the specification says.
            if insecure is not None and insecure == endpoint.tls:
                scheme = "https" if endpoint.tls else "http"
                raise ValueError(f"insecure={insecure} contradicts the scheme {scheme}:// of {source}: leave one of them out")
            insecure = not endpoint.tls
        elif insecure is None:
            flag = self.environment.exporter(signal, "INSECURE")
            insecure = flag.boolean() if flag else False
        return endpoint.target, None if insecure else self._tls(signal)

    def _tls(self, signal: Signal) -> Tls:
        def path(given: str | None, option: str) -> str | None:
            if given is not None:
                return given
            variable = self.environment.exporter(signal, option)
            return variable.text if variable else None

        tls = Tls(
            certificate=path(self.given.certificate, "CERTIFICATE"),
            client_certificate=path(self.given.client_certificate, "CLIENT_CERTIFICATE"),
            client_key=path(self.given.client_key, "CLIENT_KEY"),
        )
        if (tls.client_certificate is None) != (tls.client_key is None):
            raise ValueError(
                "client_certificate and client_key: expected both or neither (also as OTEL_EXPORTER_OTLP_CLIENT_*)"
            )
        return tls

    def _headers(self, signal: Signal) -> tuple[tuple[str, Secret], ...]:
        if self.given.headers is not None:
            return tuple(_header(name, value, "headers") for name, value in self.given.headers.items())
        if variable := self.environment.exporter(signal, "HEADERS", secret=True):
            return tuple(_header(name, value, variable.name) for name, value in variable.pairs().items())
        return ()

    def _timeout(self, signal: Signal) -> float:
        if (timeout := self.given.timeout) is not None:
            if not (isfinite(timeout) and timeout > 0):
                raise ValueError(f"timeout={timeout!r}: expected seconds, more than 0")
            return float(timeout)
        variable = self.environment.exporter(signal, "TIMEOUT")
        return variable.seconds() if variable else _DEFAULT_TIMEOUT

    def _gzip(self, signal: Signal) -> bool:
        variable = self.environment.exporter(signal, "COMPRESSION")
        if self.given.compression is not None:
            variable = Variable("compression", self.given.compression)
        if variable is None:
            return False
        if variable.text not in ("gzip", "none"):
            raise variable.fault("gzip or none")
        return variable.text == "gzip"


def _header(name: object, value: object, source: str) -> tuple[str, Secret]:
    if not isinstance(name, str) or not isinstance(value, (Secret, str)):
        raise ValueError(f"{source}: expected names and values that are texts")
    key = name.lower()
    if not _HEADER_NAME.fullmatch(key):
        # A mistyped list may have a token where the name belongs: neither is quoted.
        raise ValueError(f"{source}: a header's name may have letters, digits, '-', '_' and '.' only")
    if key.endswith("-bin") or key.startswith("grpc-"):
        raise ValueError(f"{source}: the name {key!r} is reserved by gRPC (grpc-*, *-bin)")
    secret = value if isinstance(value, Secret) else Secret(value)
    if not _HEADER_VALUE.fullmatch(secret.reveal()):
        raise ValueError(f"{source}: the value of {key!r} has characters that HTTP/2 does not carry; expected printable ASCII")
    return key, secret
