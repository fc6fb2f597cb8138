"""Parses the text of an endpoint into a gRPC target and whether to use TLS."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

DEFAULT_ENDPOINT: Final = "http://localhost:4317"

_PORTS: Final = {"http": 4317, "https": 443}
_EXPECTED: Final = "expected a URL like 'http://localhost:4317' (https:// for TLS) or a gRPC target like 'collector:4317'"


class Endpoint(NamedTuple):
    """A gRPC server.

    Attributes:
        target: the server's address in gRPC's syntax.
        tls: whether the URL's scheme asks for TLS; ``None`` for an endpoint without ``http://`` or
            ``https://``.
    """

    target: str
    tls: bool | None

    @classmethod
    def parse(cls, text: str, source: str) -> Endpoint:
        """Parse an endpoint.

        ``http://host:port`` and ``https://host:port`` are URLs; the default ports are 4317 and 443.
        Any other text is passed to gRPC unchanged (``host:port``, ``dns:///host:port``,
        ``unix:/path``).

        Args:
            text: the endpoint.
            source: the name of the parameter or variable that contains the text, for error
                messages.

        Raises:
            ValueError: the text names no host, or has a part that gRPC cannot use (path, query,
                user, password).

        >>> Endpoint.parse("https://collector.example", "endpoint")
        Endpoint(target='collector.example:443', tls=True)
        >>> Endpoint.parse("collector:4317", "endpoint")
        Endpoint(target='collector:4317', tls=None)
        """
        if not text or any(character.isspace() for character in text):
            raise ValueError(f"{source}: {_EXPECTED}")
        if not text.lower().startswith(("http://", "https://")):
            if "@" in text or ("://" in text and not text.startswith(("dns://", "unix://", "ipv4:", "ipv6:", "xds://"))):
                raise ValueError(f"{source}: not an endpoint that gRPC knows; {_EXPECTED}")
            return cls(text, None)
        try:
            url = urlsplit(text)
            port = url.port
        except ValueError as error:
            raise ValueError(f"{source}: {error}; {_EXPECTED}") from error
        _refuse_unusable(url, source)
        host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        return cls(f"{host}:{port or _PORTS[url.scheme]}", url.scheme == "https")


def _refuse_unusable(url: SplitResult, source: str) -> None:
    if url.username is not None or url.password is not None:
        raise ValueError(
            f"{source}: contains a user or password, which gRPC does not send; set the header 'authorization' instead"
        )
    if not url.hostname:
        raise ValueError(f"{source}={url.geturl()!r}: names no host; {_EXPECTED}")
    if url.path not in ("", "/") or url.query or url.fragment:
        hint = (
            "; this looks like an OTLP/HTTP endpoint, and this exporter speaks gRPC (usually port 4317)"
            if "/v1/" in url.path
            else ""
        )
        raise ValueError(f"{source}={url.geturl()!r}: gRPC takes no path or query{hint}; {_EXPECTED}")
