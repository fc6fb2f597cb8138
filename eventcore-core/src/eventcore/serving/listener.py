"""The listener: accepts connections and serves each in a thread of its own, up to a limit."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final, final

from eventcore.ground import describe_error
from eventcore.serving.access import Access, Guard
from eventcore.serving.addresses import UNIX, bind
from eventcore.serving.connection import Connection, Limits, Service
from eventcore.serving.messages import Request, Response

# Seconds before accepting again when the system has no file descriptor or thread left: at once would use a whole core.
_PAUSE: Final = 0.1


@final
class Listener:
    """Listens from construction until ``close``, on threads of its own.

    Args:
        host: a name or an address, of which all are bound (``localhost`` has one of each family);
            empty for all addresses of this machine; ``unix:`` and a path for a Unix socket, which
            its user and group may use.
        port: the port to bind; 0 for a free one that the system chooses.
        respond: makes the response to a request. It runs in the thread of the connection, and may
            block. If it raises, the response is 500 and the error is logged.
        access: TLS, and who may read.
        limits: what clients may use.
        on_refused: called for each connection that is refused because all are busy.
        logger: requests and faults of clients are logged at debug level.
        name: begins the names of the threads.

    Raises:
        OSError: the address or a certificate cannot be used; ``errno`` is the system's, and the
            message says why and what to do.

    >>> from eventcore.serving import Listener, plain
    >>> listener = Listener("127.0.0.1", 0, lambda request: plain(200, f"this is {request.path}"))
    >>> listener.url.startswith("http://127.0.0.1:")
    True
    >>> listener.close(1.0)
    """

    def __init__(
        self,
        host: str,
        port: int,
        respond: Callable[[Request], Response],
        *,
        access: Access | None = None,
        limits: Limits | None = None,
        on_refused: Callable[[], object] = lambda: None,
        logger: logging.Logger | None = None,
        name: str = "eventcore-listener",
    ) -> None:
        access = access if access is not None else Access()
        logger = logger if logger is not None else logging.getLogger("eventcore.serving")
        certificates = None
        if access.certificate is not None:
            # Imported here because plain HTTP does not need it.
            from eventcore.serving.certificates import Certificates

            certificates = Certificates(access, logger)
        self._service = Service(respond, Guard(access), certificates, limits or Limits(), logger)
        self._on_refused = on_refused
        self._name = name
        self._bound = bind(host, port)
        if access.asks_who and certificates is None and not _is_local(self._bound.host):
            logger.warning("passwords and tokens for %s travel without encryption: set a certificate", self._bound.host)
        # Guarded by `_changed`, which is notified when a connection ends.
        self._connections: set[Connection] = set()
        self._changed = threading.Condition()
        self._closing = False
        # A byte here makes the accepting thread look at `_closing`.
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept_all, name=f"{name}-{self._bound.port}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, of the first address if there are several; ``("unix:PATH", 0)`` for a Unix socket."""
        return self._bound.host, self._bound.port

    @property
    def url(self) -> str:
        """The URL of ``/`` without the slash, as seen from this machine; ``unix:PATH`` for a Unix socket."""
        host, port = self.address
        if host.startswith(UNIX):
            return host
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # not bound here
        scheme = "http" if self._service.certificates is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def close(self, timeout: float) -> None:
        """Stop listening. Running responses may end within ``timeout`` seconds, then their connections are closed."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closing = True
        with contextlib.suppress(OSError):  # closed before
            self._waker.send(b"\0")
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        with self._changed:
            # Ends reads: an idle connection's thread stops, and a running response can still be sent.
            for connection in self._connections:
                connection.end(socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._connections, max(deadline - time.monotonic(), 0.0))
            for connection in self._connections:
                connection.end()

    def close_in_child(self) -> None:
        """In a forked child, which has none of the threads: close the inherited sockets. The parent goes on listening."""
        # Without the lock: a thread of the parent may have held it at the fork.
        for each in (*self._bound.sockets, self._waker, self._woken):
            each.close()
        for connection in tuple(self._connections):
            connection.close()

    def _accept_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in self._bound.sockets:
                selector.register(each, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing:
                for key, _ in selector.select():
                    if key.fileobj is not self._woken:
                        self._accept(key.fileobj)
        self._bound.close()
        self._waker.close()
        self._woken.close()

    def _accept(self, listening: Any) -> None:
        try:
            accepted, client = listening.accept()
        except BlockingIOError:
            return  # the client has already gone
        except OSError as error:
            self._service.logger.debug("accepting failed: %s", error)
            time.sleep(_PAUSE)
            return
        connection = Connection(accepted, client[0] if client else UNIX, self._service)
        try:
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._admit(connection):
                self._on_refused()
                connection.refuse()
                return
            threading.Thread(target=self._serve, args=(connection,), name=f"{self._name}-connection", daemon=True).start()
        except Exception as error:  # noqa: BLE001  # no thread left, or a fault in a callback: the listener goes on
            self._service.logger.debug("a connection could not be served: %s", describe_error(error))
            connection.close()
            with self._changed:
                self._connections.discard(connection)
            time.sleep(_PAUSE)

    def _admit(self, newcomer: Connection) -> bool:
        """Whether there is room for a newcomer: the connection that has waited longest for its client makes room."""
        with self._changed:
            if self._closing:
                return False
            if len(self._connections) >= self._service.limits.connections:
                idlest = min(self._connections, key=lambda connection: connection.waits_since)
                if idlest.waits_since > time.monotonic():
                    return False
                self._connections.remove(idlest)
                idlest.end()
            self._connections.add(newcomer)
            return True

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._changed:
                self._connections.discard(connection)
                self._changed.notify_all()


def _is_local(host: str) -> bool:
    return host.startswith(UNIX) or ip_address(host.partition("%")[0]).is_loopback
