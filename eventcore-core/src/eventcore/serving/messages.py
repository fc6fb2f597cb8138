"""HTTP requests and responses, as far as the listener and those who answer need them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, final

_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class BadRequest(Exception):
    """The head of a request is not HTTP/1.0 or HTTP/1.1; the message says what is wrong.

    Args:
        status: 400, or 505 for another version of HTTP.
    """

    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.status = status


@final
class Headers:
    """The headers of a request. Names match in any case.

    >>> headers = Headers([("Accept", "text/plain"), ("accept", "text/html")])
    >>> headers.get("ACCEPT"), headers.get("Host", "nowhere"), "accept" in headers
    ('text/plain,text/html', 'nowhere', True)
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def get(self, name: str, default: str = "") -> str:
        """All values of a header, joined by commas: HTTP gives a repeated header the same meaning."""
        return ",".join(self._values[name.lower()]) if name in self else default

    def get_all(self, name: str) -> tuple[str, ...]:
        """The values of a header, one for each line of the request."""
        return tuple(self._values.get(name.lower(), ()))

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values


@final
@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body, which the listener does not read.

    Attributes:
        method: for example ``GET``.
        path: the path of the target, without the query.
        query: what follows ``?`` in the target; empty if nothing does.
        headers: the headers.
        keep_alive: whether the client wants to use the connection again.
    """

    method: str
    path: str
    query: str = ""
    headers: Headers = Headers()  # noqa: RUF009  # it is not changed after it was made
    keep_alive: bool = True


@final
@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response.

    Attributes:
        status: for example 200.
        headers: names and values. The listener adds ``Date``, ``Content-Length`` and ``Connection``.
        body: its pieces; a piece is sent before the next one is taken.
        length: the number of bytes of ``body``.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Iterable[bytes]
    length: int


def plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A response for people: one line of text.

    >>> plain(404, "nothing is here").body
    (b'nothing is here\\n',)
    """
    body = f"{text}\n".encode(errors="replace")
    return Response(status, (("Content-Type", "text/plain; charset=utf-8"), *headers), (body,), len(body))


def status_line(status: int) -> str:
    """The first line of a response."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n"


def parse_head(head: bytes) -> Request:
    """A request's head: request line and header lines, without the empty line that ends it.

    Lines end with CRLF or LF. Everything else follows RFC 9112 strictly: a line that another reader
    could understand in another way is refused.

    Raises:
        BadRequest: the head is malformed.
    """
    first, *lines = [line.removesuffix("\r") for line in head.decode("latin-1").split("\n")]
    for line in (first, *lines):
        if not line.replace("\t", " ").isprintable() and any(ord(each) < 32 and each != "\t" for each in line):
            raise BadRequest("the head of the request has control characters")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise BadRequest("the request line is not METHOD TARGET VERSION") from None
    if not method or not _TOKEN.issuperset(method) or not target.isascii() or not target:
        raise BadRequest("the request line is not METHOD TARGET VERSION")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        if version.startswith("HTTP/") and version[5:].replace(".", "", 1).isdigit():
            raise BadRequest("the versions that are spoken here are HTTP/1.0 and HTTP/1.1", 505)
        raise BadRequest("the request line is not METHOD TARGET VERSION")
    headers = Headers(map(_header, lines))
    if len(headers.get_all("host")) > 1:
        raise BadRequest("there are several Host headers")
    path, _, query = _origin_form(target).partition("?")
    return Request(method, path, query, headers, _keep_alive(version, headers))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    # A space before the colon and a folded line begin with or contain a space, which no name may have.
    if not colon or not name or not _TOKEN.issuperset(name):
        raise BadRequest("a header line is not NAME: VALUE")
    return name, value.strip(" \t")


def _origin_form(target: str) -> str:
    """The target as path and query. Proxies may send the absolute form, with scheme and host (RFC 9112, section 3.2.2)."""
    scheme, separator, after_scheme = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + after_scheme.partition("/")[2]
    return target


def _keep_alive(version: str, headers: Headers) -> bool:
    options = {option.strip().lower() for option in headers.get("connection").split(",")}
    if "close" in options:
        return False
    # A body is not read. Without closing, it would be read as the next request.
    if "content-length" in headers or "transfer-encoding" in headers:
        return False
    return version == "HTTP/1.1" or "keep-alive" in options
