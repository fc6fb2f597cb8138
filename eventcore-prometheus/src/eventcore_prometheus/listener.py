"""The listener: a small HTTP server on its own threads, with limits on time, size and number of connections."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from eventcore_prometheus.handler import Request
from eventcore_prometheus.scraping import Response
from eventcore_prometheus.server import POLL, Server

_CONNECTIONS_PER_REQUEST: Final = 4


class Listener:
    """Listens on one address from construction until ``close``.

    Args:
        host: the name or address to bind.
        port: the port to bind; 0 for a free port that the system chooses.
        respond: makes the response to a request. It runs in the thread of the connection.
        requests: how many requests are served at the same time. Four times as many connections may
            be open.
        refused: called for each connection that is refused because too many are open.
        logger: the exporter's logger; requests and faults are logged at debug level.

    Raises:
        OSError: the address cannot be used; the message says why and what to do.
    """

    def __init__(
        self,
        host: str,
        port: int,
        respond: Callable[[Request], Response],
        *,
        requests: int,
        refused: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._server = _bind(host, port, respond, requests * _CONNECTIONS_PER_REQUEST, refused, logger)
        self.address: tuple[str, int] = self._server.socket.getsockname()[:2]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL,), name=f"eventcore-prometheus-{self.address[1]}", daemon=True
        )
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Stop listening. Running requests may end within ``timeout`` seconds, then their connections are closed."""
        deadline = time.monotonic() + timeout
        self._server.shutdown()
        self._server.server_close()
        self._server.end_connections(deadline)
        self._thread.join(max(deadline - time.monotonic(), 0.0))


def _bind(
    host: str,
    port: int,
    respond: Callable[[Request], Response],
    connections: int,
    refused: Callable[[], None],
    logger: logging.Logger,
) -> Server:
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise OSError(
            error.errno, f"cannot listen on {host}:{port}: {host!r} is no address of this machine ({error})"
        ) from error
    server = Server(family, address, respond, connections, refused, logger)
    try:
        server.server_bind()
        server.server_activate()
    except OSError as error:
        server.server_close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {_advice(error)}") from error
    return server


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                "the port is taken by another process, or by another exporter of this process; stop it, or choose another port "
                "(setting 'port'; 0 lets the system choose)"
            )
        case errno.EACCES:
            return "this process may not use the port; choose one above 1023 (setting 'port')"
        case errno.EADDRNOTAVAIL:
            return (
                "this machine does not have the address; set 'host' to 127.0.0.1 for this machine only, or to 0.0.0.0 for all"
            )
        case _:
            return error.strerror or str(error)
