"""The listener's server: accepts connections and serves each in its own thread, up to a limit."""

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
"""Seconds between checks whether to stop."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    # On Windows, SO_REUSEADDR would let two processes listen on one port.
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
        # Open connections, each with the time since when the server waits for the client; `inf` while a response is made.
        # Guarded by `_changed`, which is notified when a connection ends.
        self._connections: dict[socket.socket, float] = {}
        self._changed = threading.Condition()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            # For example out of file descriptors: accepting again at once would use a whole processor.
            time.sleep(POLL)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            full = len(self._connections) >= self._limit
            if not full:
                self._connections[request] = time.monotonic()
        if full:
            self._refuse(request)
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
        """Note since when the server waits for the client of ``connection``; ``inf`` while the client waits for a response."""
        with self._changed:
            if connection in self._connections:
                self._connections[connection] = since

    def end_connections(self, deadline: float) -> None:
        """Close connections: idle ones at once, those with a running response when it ends, or at the deadline."""
        with self._changed:
            # Ends reads: an idle connection's thread stops, and a running response can still be sent.
            for connection in self._connections:
                _shut(connection, socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._connections, max(deadline - time.monotonic(), 0.0))
            for connection in self._connections:
                _shut(connection, socket.SHUT_RDWR)

    def _forget(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.pop(connection, None)
            self._changed.notify_all()

    def _refuse(self, connection: socket.socket) -> None:
        """Answer 503 and close, without waiting for the client.

        Also close the connection whose client has been silent for longest, so that idle clients
        cannot lock out others.
        """
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
    with contextlib.suppress(OSError):  # the client has already closed the connection
        connection.shutdown(how)
