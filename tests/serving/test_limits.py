"""What a client can use of a listener: time, bytes, connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from eventcore.serving import Limits, Request, Response, plain
from tests.real_parts.waiting import wait_until
from tests.serving.conftest import Listen, connected, read_all, read_response


def test_a_client_that_sends_byte_by_byte_is_cut_off_and_delays_no_other(listen: Listen) -> None:
    listener = listen(limits=Limits(head_time=0.5))
    with connected(listener.address) as slow:
        begun = time.monotonic()

        def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\n" + b"X-Slow: 1\r\n" * 1000:
                try:
                    slow.send(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        with connected(listener.address, b"GET / HTTP/1.1\r\n\r\n") as other:
            assert read_response(other).startswith(b"HTTP/1.1 200")
        assert read_all(slow) == b""
        assert time.monotonic() - begun < 5
        thread.join()


def test_a_client_that_says_nothing_is_cut_off(listen: Listen) -> None:
    with connected(listen(limits=Limits(head_time=0.1)).address) as silent:
        assert read_all(silent) == b""


def test_a_client_that_says_nothing_more_is_cut_off(listen: Listen) -> None:
    with connected(listen(limits=Limits(idle_time=0.1)).address, b"GET / HTTP/1.1\r\n\r\n") as silent:
        assert read_all(silent).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_is_cut_off_and_one_that_reads_slowly_is_not(listen: Listen) -> None:
    piece = b"x" * 65536
    ended = threading.Event()

    def body(count: int) -> Iterator[bytes]:
        try:
            for _ in range(count):
                yield piece
        finally:
            ended.set()

    def respond(request: Request) -> Response:
        count = 1000 if request.path == "/large" else 40
        return Response(200, (), body(count), len(piece) * count)

    limits = Limits(progress_time=0.4)
    with connected(listen(respond, limits=limits).address, b"GET /large HTTP/1.1\r\n\r\n"):
        assert ended.wait(10)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    slow.settimeout(10)
    received, begun = 0, time.monotonic()
    with slow:
        slow.connect(listen(respond, limits=limits).address)
        slow.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        while data := slow.recv(65536):
            received += len(data)
            time.sleep(0.02)
    assert received > len(piece) * 40
    assert time.monotonic() - begun > limits.progress_time


def test_a_newcomer_takes_the_place_of_the_connection_that_idles_longest(listen: Listen) -> None:
    refused: list[None] = []
    listener = listen(limits=Limits(connections=3), on_refused=lambda: refused.append(None))
    with ExitStack() as stack:
        idle: list[socket.socket] = []
        for _ in range(3):
            idle.append(stack.enter_context(connected(listener.address, b"GET / HTTP/1.1\r\n\r\n")))
            read_response(idle[-1])
            # The listener notes since when a connection idles just after the client has its answer.
            time.sleep(0.1)
        # The first one speaks again, so the second one has been silent for longest.
        idle[0].sendall(b"GET /again HTTP/1.1\r\n\r\n")
        read_response(idle[0])
        time.sleep(0.1)
        with connected(listener.address, b"GET /new HTTP/1.1\r\n\r\n") as newcomer:
            assert b"/new" in read_response(newcomer)
        assert read_all(idle[1]) == b""
        for each in (idle[0], idle[2]):
            each.sendall(b"GET /still HTTP/1.1\r\n\r\n")
            assert b"/still" in read_response(each)
    assert refused == []


def test_a_newcomer_is_refused_with_503_while_all_connections_are_served(listen: Listen) -> None:
    gate, running = threading.Event(), threading.Semaphore(0)
    refused: list[None] = []

    def respond(request: Request) -> Response:
        running.release()
        gate.wait(10)
        return plain(200, "late")

    listener = listen(respond, limits=Limits(connections=2), on_refused=lambda: refused.append(None))
    with (
        connected(listener.address, b"GET / HTTP/1.1\r\n\r\n") as first,
        connected(listener.address, b"GET / HTTP/1.1\r\n\r\n") as second,
    ):
        assert running.acquire(timeout=10)
        assert running.acquire(timeout=10)
        with connected(listener.address) as third:
            assert read_all(third).startswith(b"HTTP/1.1 503")
        gate.set()
        assert b"late" in read_response(first)
        assert b"late" in read_response(second)
    assert len(refused) == 1


def test_a_client_that_does_not_read_gives_way_to_a_newcomer(listen: Listen) -> None:
    piece = b"x" * 65536

    def respond(request: Request) -> Response:
        if request.path == "/small":
            return plain(200, "small")
        return Response(200, (), (piece for _ in range(1000)), len(piece) * 1000)

    listener = listen(respond, limits=Limits(connections=1))

    def served() -> bool:
        with connected(listener.address, b"GET /small HTTP/1.1\r\nConnection: close\r\n\r\n") as newcomer:
            return read_all(newcomer).startswith(b"HTTP/1.1 200")

    with connected(listener.address, b"GET / HTTP/1.1\r\n\r\n") as stalled:
        stalled.recv(1)
        wait_until(served, 5, "the stalled connection gives way")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-Large: 1234567890\r\n" * 2000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX-Large: " + b"x" * 9_000 + b"\r\n\r\n",
    ],
)
def test_a_request_head_that_is_too_large_is_refused(listen: Listen, head: bytes) -> None:
    with connected(listen().address, head) as client:
        assert read_all(client).startswith(b"HTTP/1.1 431")


def test_close_keeps_its_deadline_while_a_response_hangs_and_lets_a_short_one_end(listen: Listen) -> None:
    gate, running = threading.Event(), threading.Semaphore(0)

    def respond(request: Request) -> Response:
        running.release()
        gate.wait(10)
        return plain(200, "late")

    hanging, short = listen(respond), listen(respond)
    with connected(hanging.address, b"GET / HTTP/1.1\r\n\r\n"), connected(short.address, b"GET / HTTP/1.1\r\n\r\n") as client:
        assert running.acquire(timeout=10)
        assert running.acquire(timeout=10)
        begun = time.monotonic()
        hanging.close(0.3)
        assert time.monotonic() - begun < 1.5
        closing = threading.Thread(target=short.close, args=(10.0,))
        closing.start()
        gate.set()
        assert b"late" in read_all(client)
        closing.join(5)
        assert not closing.is_alive()
