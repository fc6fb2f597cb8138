"""What the listener takes for a request, and what it answers."""

from __future__ import annotations

import pytest

from eventcore.serving import Request, Response, plain
from tests.serving.conftest import Listen, connected, read_all, read_response


def test_a_request_is_taken_apart(listen: Listen) -> None:
    seen: list[Request] = []

    def respond(request: Request) -> Response:
        seen.append(request)
        return plain(200, "ok", ("X-Own", "1"))

    head = b"GET /a%20b?x=1&y HTTP/1.1\r\nHost: h\r\nAccept: a\r\naccept:  b \r\nX-Empty:\r\n\r\n"
    with connected(listen(respond).address, head) as client:
        answer = read_response(client)
    (request,) = seen
    assert (request.method, request.path, request.query) == ("GET", "/a%20b", "x=1&y")
    assert (request.headers.get("ACCEPT"), request.headers.get_all("Accept")) == ("a,b", ("a", "b"))
    assert "x-empty" in request.headers
    assert request.headers.get("X-Missing", "none") == "none"
    lines = answer.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert b"X-Own: 1" in lines
    assert b"Content-Length: 3" in lines
    assert any(line.startswith(b"Date: ") and line.endswith(b" GMT") for line in lines)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: TE, Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive, close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", False),
    ],
)
def test_a_connection_is_kept_where_both_versions_of_http_say_so(listen: Listen, head: bytes, kept: bool) -> None:
    with connected(listen().address, head) as client:
        answer = read_response(client)
        # A client of HTTP/1.0 keeps the connection only if it is told so.
        assert (b"Connection: keep-alive" in answer) == kept
        if kept:
            client.sendall(head)
            assert read_response(client).startswith(b"HTTP/1.1 200")
        else:
            assert read_all(client) == b""


def test_requests_that_come_together_are_answered_in_order(listen: Listen) -> None:
    heads = b"GET /1 HTTP/1.1\r\n\r\n\r\nGET /2 HTTP/1.1\n\nGET /3 HTTP/1.1\r\nConnection: close\r\n\r\n"
    with connected(listen().address, heads) as client:
        answers = read_all(client)
    assert [part[:2] for part in answers.split(b"GET ")[1:]] == [b"/1", b"/2", b"/3"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n: no name\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nSpaced : 1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nFolded: 1\r\n 2\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\tTab: 1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nNull: a\x00b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nReturn: a\rb\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nQu\xc3\xa9: 1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET  / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /a b HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"505"),
        (b"GET / http/1.1\r\n\r\n", b"400"),
        (b"G\x01T / HTTP/1.1\r\n\r\n", b"400"),
        (b"G(T / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
)
def test_a_malformed_head_is_refused_and_reaches_nobody(listen: Listen, head: bytes, status: bytes) -> None:
    seen: list[Request] = []

    def respond(request: Request) -> Response:
        seen.append(request)
        return plain(200, "ok")

    with connected(listen(respond).address, head) as client:
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in answer
    assert seen == []


def test_a_respond_that_raises_is_a_500_that_is_logged_and_the_connection_goes_on(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    def respond(request: Request) -> Response:
        if request.path == "/bad":
            raise ValueError("told only to the log")
        return plain(200, "good")

    with connected(listen(respond).address, b"GET /bad HTTP/1.1\r\n\r\n") as client:
        answer = read_response(client)
        assert answer.startswith(b"HTTP/1.1 500")
        assert b"told only" not in answer
        client.sendall(b"GET /good HTTP/1.1\r\n\r\n")
        assert b"good" in read_response(client)
    assert "a request for /bad failed: ValueError: told only to the log" in caplog.text


def test_head_gets_the_length_and_no_body(listen: Listen) -> None:
    with connected(listen().address, b"HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n") as client:
        answer = read_all(client)
    assert b"Content-Length: 9" in answer
    assert answer.endswith(b"\r\n\r\n")
