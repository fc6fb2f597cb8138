"""Handles one connection of the listener: reads requests within limits of time and size, and writes responses."""

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

# Seconds that a client has for sending the head of a request, for beginning another one, and for taking a response.
_HEADER_TIME: Final = 5.0
_IDLE_TIME: Final = 30.0
_SEND_TIME: Final = 30.0
_HEADER_BYTES: Final = 16 * 1024
_LONGEST_LINE: Final = 8 * 1024


@final
@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request that are used."""

    method: str
    path: str
    headers: Message


class Host(Protocol):
    """The methods of the server that a connection calls."""

    logger: logging.Logger

    def respond(self, request: Request, /) -> Response:
        """The response to a request; runs in the connection's thread."""
        ...

    def awaiting(self, connection: socket.socket, since: float) -> None:
        """Note since when the server waits for the client; ``inf`` while the client waits for a response."""
        ...


class _TooLargeError(Exception):
    """The head of the request is larger than allowed."""


class _RequestReader(io.RawIOBase):
    """Reads a connection with a deadline and a byte limit for each request.

    A socket's timeout limits a single ``recv``; a client that sends a byte now and then would never
    exceed it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0
        self._bytes_left = 0
        self._request_begun = False

    def expect(self, wait: float) -> None:
        """Wait up to ``wait`` seconds for a new request to begin."""
        self._deadline, self._bytes_left, self._request_begun = time.monotonic() + wait, _HEADER_BYTES, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._bytes_left <= 0:
            raise _TooLargeError
        seconds_left = self._deadline - time.monotonic()
        if seconds_left <= 0:
            raise TimeoutError("the request was not received in time")
        self._connection.settimeout(seconds_left)
        count = self._connection.recv_into(memoryview(buffer)[: self._bytes_left])
        self._bytes_left -= count
        if not self._request_begun:
            self._request_begun = True
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
        # `send_error` reads these attributes, also when no request line has been read.
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
        # A body is not read. Close the connection after the response, or the body would be read as the next request.
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

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is that of http.server
        logger = self._server.logger
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s: %s", self.client_address[0], (format % args).encode("unicode_escape").decode())


def _path(target: str) -> str:
    """The path of a request target. Proxies may send the absolute form, with scheme and host (RFC 9112, section 3.2.2)."""
    target = target.partition("?")[0]
    scheme, separator, after_scheme = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + after_scheme.partition("/")[2]
    return target
