"""Chooses the exporter of each signal: eventcore's own over OTLP gRPC, none, or one of the SDK's world."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from eventcore_otel.environment import Environment, Signal, Variable

OTLP: Final = "otlp"
"""eventcore's own exporter, over OTLP gRPC."""
NONE: Final = "none"
"""The signal is not exported."""
OTLP_HTTP: Final = "otlp_proto_http"
"""The SDK's exporter for OTLP over HTTP, by its entry point."""
GROUPS: Final[dict[Signal, str]] = {
    "metrics": "opentelemetry_metrics_exporter",
    "traces": "opentelemetry_traces_exporter",
}
"""The entry-point groups in which distributions publish exporters for OpenTelemetry's SDK."""

_OWN: Final = (OTLP, "otlp_proto_grpc")
_HTTP_PACKAGE: Final = "opentelemetry-exporter-otlp-proto-http"


def choose(signal: Signal, name: str, parameter: str) -> str:
    """The exporter that a parameter names.

    Raises:
        ValueError: no installed distribution has an exporter of this name.
    """
    if name in _OWN:
        return OTLP
    if name != NONE and name not in (known := _installed(signal)):
        raise ValueError(f"{parameter}={name!r}: expected an installed exporter ({_listed(known)}) or an exporter object")
    return name


def choose_by_variables(signal: Signal, environment: Environment, protocol: str | None) -> str:
    """The exporter that ``OTEL_TRACES_EXPORTER`` or ``OTEL_METRICS_EXPORTER`` names; ``otlp`` when it names none.

    Args:
        signal: what is exported.
        environment: the variables.
        protocol: how OTLP is spoken, if a parameter says so; it takes precedence over the variables.
    """

    def read(variable: Variable) -> str:
        names = [name for part in variable.text.lower().split(",") if (name := part.strip())]
        if signal == "metrics" and "prometheus" in names:
            names.remove("prometheus")
            hint = "Prometheus scrapes and is not sent to: install eventcore-prometheus"
            environment.warn(variable, f"{variable} is not followed in part: {hint}")
        if len(names) > 1:
            hint = "register a further exporter for the others, such as [exporters.otel_2] with plugin = 'otel'"
            environment.warn(variable, f"{variable} is followed in part: {names[0]} is used; {hint}")
        if not names:
            return NONE
        if names[0] not in (*_OWN, NONE, *(known := _installed(signal))):
            raise variable.fault(f"an installed exporter ({_listed(known)})")
        return names[0]

    name = environment.read(f"OTEL_{signal.upper()}_EXPORTER", read) or OTLP
    if name == OTLP and not protocol:
        protocol = environment.exporter(signal, "PROTOCOL", lambda variable: _protocol(signal, variable))
    if name in _OWN:
        return OTLP_HTTP if protocol == "http/protobuf" else OTLP
    return name


def choose_by_protocol(signal: Signal, protocol: str) -> str:
    """The exporter that the parameter ``protocol`` asks for.

    Raises:
        ValueError: it is not installed.
    """
    if protocol not in ("grpc", "http/protobuf"):
        raise ValueError(f"protocol={protocol!r}: expected 'grpc' or 'http/protobuf'")
    if protocol == "http/protobuf" and OTLP_HTTP not in _installed(signal):
        raise ValueError(f"protocol={protocol!r}: needs the SDK's exporter: pip install {_HTTP_PACKAGE}")
    return protocol


def _protocol(signal: Signal, variable: Variable) -> str:
    protocol = variable.one_of("grpc", "http/protobuf")
    if protocol == "http/protobuf" and OTLP_HTTP not in _installed(signal):
        raise ValueError(f"{variable} needs the SDK's exporter (pip install {_HTTP_PACKAGE}); OTLP is sent over gRPC")
    return protocol


def _installed(signal: Signal) -> tuple[str, ...]:
    # Prometheus' exporter is a reader of the SDK, which nothing can be sent to.
    return tuple(sorted(entry_points(group=GROUPS[signal]).names - {"prometheus"}))


def _listed(known: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys((OTLP, *known, NONE)))
