"""How the exporter connects: load balancing, keepalive, authority, further channel options, and live credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import isfinite
from typing import Any, Final, Literal, TypeAlias

from eventcore.exporting import Secret

LoadBalancing: TypeAlias = Literal["pick_first", "round_robin"]
HeaderValues: TypeAlias = Mapping[str, Secret | str]
GetHeaders: TypeAlias = Callable[[], HeaderValues | Awaitable[HeaderValues]]

_POLICIES: Final = ("pick_first", "round_robin")
# Seconds in which the answer to a ping must come.
_PING_TIMEOUT: Final = 20.0


@dataclass(frozen=True, slots=True)
class Connection:
    """Settings of the connections to all receivers. ``OpenTelemetryExporter`` describes each.

    Attributes:
        get_headers: returns the headers to send; asked again when they may be out of date.
        headers_lifetime: seconds for which headers are used; ``None``: until the receiver refuses
            them.
        credentials: a ``grpc.ChannelCredentials``, in place of those made of certificate files.
        keepalive: seconds between pings; ``None`` for no pings.
        load_balancing: how gRPC uses several addresses.
        authority: the name of the server in requests and in the check of its certificate.
        options: further channel options of gRPC.
    """

    get_headers: GetHeaders | None = field(default=None, repr=False)
    headers_lifetime: float | None = None
    credentials: Any = field(default=None, repr=False)
    keepalive: float | None = None
    load_balancing: str = "pick_first"
    authority: str | None = None
    options: Mapping[str, str | int] = field(default_factory=dict[str, str | int])

    def faults(self) -> Iterator[str]:
        """What is wrong with the settings, one text a fault."""
        for name, seconds in (("headers_lifetime", self.headers_lifetime), ("keepalive", self.keepalive)):
            if seconds is not None and not (isfinite(seconds) and seconds > 0):
                yield f"{name}={seconds!r}: expected seconds, more than 0"
        if self.headers_lifetime is not None and self.get_headers is None:
            yield "headers_lifetime: expected only where headers is a callable, which can be asked again"
        if self.load_balancing not in _POLICIES:
            yield f"load_balancing={self.load_balancing!r}: expected 'pick_first' or 'round_robin'"
        if self.authority == "":
            yield "authority: expected a host name that is not empty"
        for name, value in self.options.items():
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                yield f"channel_options[{name!r}]: expected a str or an int, not {type(value).__name__}"

    def channel_options(self, target: str) -> list[tuple[str, str | int]]:
        """The options for a channel to ``target``; the application's own come last and win."""
        options: dict[str, str | int] = {"grpc.lb_policy_name": self.load_balancing}
        if is_loopback(target):
            # gRPC would ask the proxy of the variable http_proxy to connect to its own machine.
            options["grpc.enable_http_proxy"] = 0
        if self.keepalive is not None:
            answer_within = int(min(self.keepalive, _PING_TIMEOUT) * 1000) or 1
            options |= {
                "grpc.keepalive_time_ms": int(self.keepalive * 1000) or 1,
                "grpc.keepalive_timeout_ms": answer_within,
                # Without it, a ping that gRPC sent for a reason of its own defers the next one by a minute.
                "grpc.http2.ping_timeout_ms": answer_within,
                "grpc.keepalive_permit_without_calls": 1,
                "grpc.http2.max_pings_without_data": 0,
            }
        if self.authority is not None:
            # The second one is for the name in the server's certificate.
            options |= {"grpc.default_authority": self.authority, "grpc.ssl_target_name_override": self.authority}
        return list((options | dict(self.options)).items())


def is_loopback(target: str) -> bool:
    """Whether a target in gRPC's syntax is on this machine.

    >>> [is_loopback(target) for target in ("localhost:4317", "127.0.0.1:1", "[::1]:1", "unix:/run/otel", "10.0.0.1:1")]
    [True, True, True, True, False]
    >>> is_loopback("dns:///localhost:4317"), is_loopback("ipv4:127.0.0.1:1,10.0.0.1:1"), is_loopback("collector:4317")
    (True, False, False)
    """
    scheme, colon, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    addresses = rest.rpartition("/")[2] if colon and scheme in ("dns", "ipv4", "ipv6") else target
    return all(_is_loopback_host(address) for address in addresses.split(","))


def _is_loopback_host(address: str) -> bool:
    host = address[1:].partition("]")[0] if address.startswith("[") else address.partition(":")[0]
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
