"""The connections of the listener: a bounded number of threads, one for each connection."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from eventcore_prometheus.handler import Handler, Request
from eventcore_prometheus.scraping import Response, unavailable

POLL: Final = 0.1
"""Seconds between looks at whether to stop."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    # Elsewhere than on POSIX this would let two processes listen on one port.
    allow_reuse_address = os.name == "posix"
    allow_reuse_port = False
    request_queue_size = 64

    def __init__(
        self,
        family: int,
        address: Any,
        respond: Callable[[Request], Response],
        connections: int,
        refused: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self.address_family = family
        super().__init__(address, Handler, bind_and_activate=False)
        self.respond = respond
        self.logger = logger
        self._refused = refused
        self._limit = connections
        # Each connection with the time since which its client is awaited, infinite while a response is made.
        self._connections: dict[socket.socket, float] = {}
        self._changed = threading.Condition()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            # Out of file descriptors, for example: asking again at once would keep a processor busy.
            time.sleep(POLL)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            full = len(self._connections) >= self._limit
            if not full:
                self._connections[request] = time.monotonic()
        if full:
            self._turn_away(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # socketserver's signature
        self.logger.debug("a connection from %s failed", client_address, exc_info=True)  # noqa: LOG014  # called in a handler

    def awaiting(self, connection: socket.socket, since: float) -> None:
        """Note since when the client is awaited."""
        with self._changed:
            if connection in self._connections:
                self._connections[connection] = since

    def end_connections(self, deadline: float) -> None:
        """Let responses end until the deadline; whoever is awaited goes at once."""
        with self._changed:
            for connection in self._connections:
                _shut(connection, socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._connections, max(deadline - time.monotonic(), 0.0))
            for connection in self._connections:
                _shut(connection, socket.SHUT_RDWR)

    def _forget(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.pop(connection, None)
            self._changed.notify_all()

    def _turn_away(self, connection: socket.socket) -> None:
        """Say that it is full, without waiting, and make room for the next: who lets us wait longest goes."""
        self._refused()
        with self._changed:
            slowest = min(self._connections, key=self._connections.__getitem__)
            if self._connections[slowest] < float("inf"):
                _shut(slowest, socket.SHUT_RDWR)
        response = unavailable("too many connections at once")
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {response.length}\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(head.encode() + b"".join(response.body))
        self.shutdown_request(connection)


def _shut(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # the client has gone already
        connection.shutdown(how)
