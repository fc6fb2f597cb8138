"""Listeners and raw connections for the tests of the listener."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from eventcore.serving import Listener, Request, plain


@contextmanager
def connected(address: tuple[str, int], sent: bytes = b"") -> Iterator[socket.socket]:
    """A raw connection that has sent ``sent``."""
    with closing(socket.create_connection(address, timeout=10)) as connection:
        connection.sendall(sent)
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Everything that is received until the server closes the connection."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass  # the server closed while it had unread data
    return received


def read_response(connection: socket.socket) -> bytes:
    """One response whose body ends with a line of text."""
    received = b""
    while not (b"\r\n\r\n" in received and received.endswith(b"\n") and not received.endswith(b"\r\n\r\n")):
        data = connection.recv(65536)
        assert data, received
        received += data
    return received


Listen = Callable[..., Listener]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Makes listeners at a free port; without a ``respond`` they answer with method, path and query."""
    made: list[Listener] = []

    def start(respond: Any = None, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Listener:
        def echo(request: Request) -> Any:
            return plain(200, f"{request.method} {request.path} {request.query}")

        made.append(Listener(host, port, respond or echo, **options))
        return made[-1]

    yield start
    for each in made:
        each.close(1.0)
