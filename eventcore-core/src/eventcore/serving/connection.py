"""One connection: reads requests and writes responses, within limits of time and size."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from math import inf
from typing import TYPE_CHECKING, Final, final

from eventcore.ground import describe_error
from eventcore.serving.messages import BadRequest, Request, Response, parse_head, plain, status_line

if TYPE_CHECKING:
    from eventcore.serving.access import Guard
    from eventcore.serving.certificates import Certificates

_HEAD_BYTES: Final = 16 * 1024
_LONGEST_LINE: Final = 8 * 1024
_RECEIVED_AT_ONCE: Final = 4096
# The first byte of every TLS connection: the record type "handshake".
_TLS_HANDSHAKE: Final = b"\x16"
# A client that reads has this long between two pieces before its connection counts as one that waits for the client.
_READING: Final = 1.0


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may use.

    Attributes:
        connections: how many may be open at the same time. A newcomer beyond that takes the place
            of the one that has waited longest for its client.
        head_time: seconds for sending the head of a request, and for the handshake of TLS.
        idle_time: seconds between two requests of one connection.
        progress_time: seconds in which a client must take ``progress_bytes`` of a response, or what
            remains of it.
        progress_bytes: bytes.
    """

    connections: int = 32
    head_time: float = 5.0
    idle_time: float = 30.0
    progress_time: float = 10.0
    progress_bytes: int = 64 * 1024


@final
@dataclass(frozen=True, slots=True)
class Service:
    """What all connections of a listener share.

    Attributes:
        respond: makes the response to a request; runs in the thread of the connection.
        certificates: for TLS; ``None`` for plain HTTP.
    """

    respond: Callable[[Request], Response]
    guard: Guard
    certificates: Certificates | None
    limits: Limits
    logger: logging.Logger


@final
class Connection:
    """A connection that was accepted. ``serve`` runs in a thread of its own.

    Attributes:
        waits_since: since when the server waits for the client (``time.monotonic``); ``inf`` while
            the client waits for a response. Assigned by the connection's thread, read by others.
    """

    def __init__(self, accepted: socket.socket, client: str, service: Service) -> None:
        self._socket = accepted
        self._client = client
        self._service = service
        self._received = bytearray()
        self.waits_since = time.monotonic()

    def serve(self) -> None:
        """Answer requests until the client, a limit or ``end`` ends the connection; then close it."""
        try:
            if self._service.certificates is None or self._begin_tls(self._service.certificates):
                wait = self._service.limits.head_time
                while self._serve_one(wait):
                    wait = self._service.limits.idle_time
        except (OSError, EOFError) as error:
            # A timeout, a reset, or a failed handshake: the client's affair.
            self._log("closed: %s", error)
        finally:
            self.close()

    def end(self, how: int = socket.SHUT_RDWR) -> None:
        """Make the connection's thread stop. With ``SHUT_RD`` a running response can still be sent. Safe from any thread."""
        with contextlib.suppress(OSError):  # the client has already closed the connection
            # Not the method of an SSL socket: that would let the connection's thread go on without encryption.
            socket.socket.shutdown(self._socket, how)

    def close(self) -> None:
        """Close the socket of this process. In a forked child, the parent's connection goes on."""
        self._socket.close()

    def refuse(self) -> None:
        """Answer 503 and close, without waiting for the client."""
        response = plain(503, "too many connections at once", ("Retry-After", "1"))
        with contextlib.suppress(OSError):
            self._socket.setblocking(False)
            # A client that speaks TLS could not read it.
            if self._service.certificates is None:
                self._socket.send(_head_of(response, keep_alive=False) + b"".join(response.body))
            self.end()
        self.close()

    def _begin_tls(self, certificates: Certificates) -> bool:
        deadline = time.monotonic() + self._service.limits.head_time
        self._socket.settimeout(self._service.limits.head_time)
        first = self._socket.recv(1, socket.MSG_PEEK)
        if first != _TLS_HANDSHAKE:
            if first:
                self._send(
                    plain(400, "this port speaks HTTPS, and the request came without encryption: use https://"),
                    "GET",
                    keep_alive=False,
                )
                self._read_to_end(deadline)
            return False
        self._socket = certificates.current().wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        self._socket.do_handshake()
        return True

    def _serve_one(self, wait: float) -> bool:
        """Answer one request that begins within ``wait`` seconds; whether another one may follow."""
        service = self._service
        try:
            head = self._read_head(wait)
            if head is None:
                return False
            request = parse_head(head)
        except BadRequest as error:
            self._send(plain(error.status, f"bad request: {error}"), "GET", keep_alive=False)
            self._read_to_end(time.monotonic() + 1.0)
            return False
        self._log("%s %s", request.method, request.path)
        keep_alive = request.keep_alive
        # Who is not known yet gives way to newcomers, also while a password is checked: or it would keep everybody out.
        self.waits_since = time.monotonic()
        try:
            response = service.guard.refusal(request)
            if response is None:
                self.waits_since = inf
                response = service.respond(request)
            elif "authorization" in request.headers:
                # The next guess has to begin with a connection, for which others may be first.
                keep_alive = False
        except Exception as error:
            service.logger.warning(
                "a request for %s failed: %s", _printable(request.path), describe_error(error), exc_info=True
            )
            response = plain(500, "this request failed; the log says why")
        self._send(response, request.method, keep_alive=keep_alive)
        self.waits_since = time.monotonic()
        return keep_alive

    def _read_head(self, wait: float) -> bytes | None:
        """The head of the next request; ``None`` if the client ends the connection instead.

        A deadline for the whole head: the timeout of a socket limits a single ``recv``, and a client
        that sends a byte now and then would never exceed it.
        """
        deadline = time.monotonic() + wait
        begun = False
        while True:
            del self._received[: len(self._received) - len(self._received.lstrip(b"\r\n"))]
            if self._received and not begun:
                begun = True
                deadline = min(deadline, time.monotonic() + self._service.limits.head_time)
            if (head := self._take_head()) is not None:
                return head
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise TimeoutError("the request was not received in time")
            self._socket.settimeout(seconds)
            data = self._socket.recv(_RECEIVED_AT_ONCE)
            if not data:
                return None
            self._received += data

    def _take_head(self) -> bytes | None:
        received = self._received
        ends = [(at, at + len(end)) for end in (b"\n\r\n", b"\n\n") if (at := received.find(end)) >= 0]
        at, after = min(ends, default=(-1, 0))
        head = received if at < 0 else received[:at]
        if len(head) > _HEAD_BYTES or (len(head) > _LONGEST_LINE and max(map(len, head.split(b"\n"))) > _LONGEST_LINE):
            raise BadRequest("the head of the request is too large", 431)
        if at < 0:
            return None
        del received[:after]
        return bytes(head).removesuffix(b"\r")

    def _send(self, response: Response, method: str, *, keep_alive: bool) -> None:
        limits = self._service.limits
        deadline, moved = time.monotonic() + limits.progress_time, 0
        pending = _head_of(response, keep_alive=keep_alive)
        pieces = iter(response.body if method != "HEAD" else ())
        # The head goes with the first piece, in one packet if possible.
        pending += next(pieces, b"")
        while pending:
            view = memoryview(pending)
            while view:
                now = time.monotonic()
                if moved >= limits.progress_bytes:
                    deadline, moved = now + limits.progress_time, 0
                self.waits_since = now + _READING
                self._socket.settimeout(max(deadline - now, 0.001))
                sent = self._socket.send(view)
                moved += sent
                view = view[sent:]
            self.waits_since = inf
            pending = next(pieces, b"")

    def _read_to_end(self, deadline: float) -> None:
        """Take what the client still sends: closing with unread data would reset the connection, and lose the answer."""
        self.end(socket.SHUT_WR)
        while (seconds := deadline - time.monotonic()) > 0:
            self._socket.settimeout(seconds)
            if not self._socket.recv(65536):
                return

    def _log(self, text: str, *values: object) -> None:
        logger = self._service.logger
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s: %s", self._client, _printable(text % values))


def _head_of(response: Response, *, keep_alive: bool) -> bytes:
    lines = [
        status_line(response.status),
        f"Date: {formatdate(usegmt=True)}\r\n",
        *(f"{name}: {value}\r\n" for name, value in response.headers),
        f"Content-Length: {response.length}\r\n",
        # A client of HTTP/1.0 keeps the connection only if it is told so.
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n",
    ]
    return "".join(lines).encode("latin-1")


def _printable(text: str) -> str:
    return text.encode("unicode_escape").decode()
