"""One connection of the listener: reads requests within limits of time and size, and writes the responses."""

from __future__ import annotations

import io
import logging
import socket
import time
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Protocol, cast, final

from eventcore_prometheus.scraping import Response

_HEADER_TIME: Final = 5.0
_IDLE_TIME: Final = 30.0
_SEND_TIME: Final = 30.0
_HEADER_BYTES: Final = 16 * 1024
_LONGEST_LINE: Final = 8 * 1024


@final
@dataclass(frozen=True, slots=True)
class Request:
    """What matters of a request."""

    method: str
    path: str
    headers: Message


class Host(Protocol):
    """What a connection needs of its server."""

    logger: logging.Logger

    def respond(self, request: Request, /) -> Response:
        """Make the response."""
        ...

    def awaiting(self, connection: socket.socket, since: float) -> None:
        """Note since when the client is awaited, infinite while it waits for us."""
        ...


class _TooLargeError(Exception):
    """The request's head is larger than any scraper's."""


class _RequestReader(io.RawIOBase):
    """Reads a connection with a deadline and a number of bytes for each request, however slowly they come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0
        self._left = 0
        self._begun = False

    def expect(self, wait: float) -> None:
        """A new request may begin within ``wait`` seconds."""
        self._deadline, self._left, self._begun = time.monotonic() + wait, _HEADER_BYTES, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._left <= 0:
            raise _TooLargeError
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request did not come in time")
        self._connection.settimeout(left)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        if not self._begun:
            self._begun = True
            self._deadline = min(self._deadline, time.monotonic() + _HEADER_TIME) if count else self._deadline
        return count


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "eventcore-prometheus"
    sys_version = ""
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._server = cast(Host, self.server)
        self.rfile.close()
        self._reader = _RequestReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)

    def handle(self) -> None:
        wait = _HEADER_TIME
        self.close_connection = False
        try:
            while not self.close_connection:
                self._reader.expect(wait)
                self.handle_one_request()
                wait = _IDLE_TIME
        except (TimeoutError, ConnectionError) as error:
            self.log_message("closed: %s", error)

    def handle_one_request(self) -> None:
        # What send_error needs when there is no request line that could be read.
        self.requestline = self.request_version = self.command = ""
        try:
            self.raw_requestline = self.rfile.readline(_LONGEST_LINE + 1)
            if not self.raw_requestline:
                self.close_connection = True
                return
            if len(self.raw_requestline) > _LONGEST_LINE:
                raise _TooLargeError
            if not self.parse_request():
                self.close_connection = True
                return
        except _TooLargeError:
            self.close_connection = True
            self.send_error(431)
            return
        self._server.awaiting(self.connection, float("inf"))
        # A body is not read, so what follows it on the connection could not be told from it.
        if "content-length" in self.headers or "transfer-encoding" in self.headers:
            self.close_connection = True
        self._answer(self._server.respond(Request(self.command, _path(self.path), self.headers)))
        self._server.awaiting(self.connection, time.monotonic())

    def _answer(self, response: Response) -> None:
        deadline = time.monotonic() + _SEND_TIME
        self.connection.settimeout(_SEND_TIME)
        self.send_response(response.status)
        for name, value in response.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(response.length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in response.body:
            self.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            self.wfile.write(piece)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name that http.server calls it by
        logger = self._server.logger
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s: %s", self.client_address[0], (format % args).encode("unicode_escape").decode())


def _path(target: str) -> str:
    """The path of a request's target, which a proxy may send in the absolute form (RFC 9112, section 3.2.2)."""
    target = target.partition("?")[0]
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return target
