"""The listener: its responses, and the limits on what a client can use."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.prometheus.conftest import recorded
from tests.real_parts.waiting import wait_until

Drive = Callable[..., Any]
Request = Callable[..., Any]


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with closing(socket.create_connection(address, timeout=10)) as connection:
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


def test_get_serves_a_fresh_page_each_time(drive: Drive, request_: Request) -> None:
    driven = drive()
    first, second = request_(driven.url), request_(driven.url)
    assert first.status == second.status == 200
    assert first.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(first.headers["content-length"]) == len(first.body)
    assert "cycles_total 1\n" in first.text
    assert "cycles_total 2\n" in second.text


def test_openmetrics_is_served_to_who_asks_for_it(drive: Drive, request_: Request) -> None:
    answer = request_(drive().url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert recorded(answer.text) == "# HELP cycles Cycles.\n# TYPE cycles counter\ncycles_total 1\n# EOF\n"


def test_gzip_is_used_where_it_is_accepted(drive: Drive, request_: Request) -> None:
    answer = request_(drive().url, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert b"cycles_total 1\n" in gzip.decompress(answer.body)


def test_head_says_what_get_would_and_sends_no_body(drive: Drive, request_: Request) -> None:
    driven = drive()
    head, get = request_(driven.url, "HEAD"), request_(driven.url)
    assert (head.status, head.body) == (200, b"")
    # The page counts its own scrapes, so that its length differs.
    differs = {"date": "", "content-length": ""}
    assert {**head.headers, **differs} == {**get.headers, **differs}
    # Monitors of web servers send it: it is no scrape, and neither is what has another path or method.
    request_(f"{driven.url}/other")
    request_(driven.url, "POST")
    assert (driven.exporter.scrapes.served, driven.exporter.scrapes.failed) == (1, 0)


def test_a_client_that_accepts_no_format_gets_the_text_format_and_has_scraped(drive: Drive, request_: Request) -> None:
    driven = drive()
    answer = request_(driven.url, headers={"Accept": "image/png;q=nonsense, application/openmetrics-text;version=9"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert driven.exporter.scrapes.served == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_not_allowed(drive: Drive, request_: Request, method: str) -> None:
    driven = drive()
    answer = request_(driven.url, method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert driven.total == 0


def test_another_path_says_where_the_metrics_are(drive: Drive, request_: Request) -> None:
    driven = drive(path="/internal/metrics")
    root = driven.url.removesuffix("/internal/metrics")
    missing = request_(f"{root}/metrics")
    assert missing.status == 404
    assert "the metrics are at /internal/metrics" in missing.text
    assert 'href="/internal/metrics"' in request_(f"{root}/").text
    assert "cycles_total" in request_(f"{driven.url}?query=ignored").text


def test_a_connection_is_kept_for_the_next_scrape(drive: Drive) -> None:
    driven = drive()
    connection = HTTPConnection(driven.address[0], driven.address[1], timeout=10)
    with closing(connection):
        for expected in (1, 2, 3):
            connection.request("GET", "/metrics")
            sock = connection.sock
            assert f"cycles_total {expected}\n".encode() in connection.getresponse().read()
            assert connection.sock is sock


def test_by_default_it_can_be_reached_from_this_machine_only(drive: Drive) -> None:
    assert drive().address[0] == "127.0.0.1"


def test_ipv6_works_as_well(drive: Drive, request_: Request) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    driven = drive(host="::1")
    assert driven.url.startswith("http://[::1]:")
    assert request_(driven.url).status == 200


def test_a_taken_port_is_a_clear_error_and_start_can_be_tried_again(drive: Drive, request_: Request) -> None:
    driven = drive()
    host, port = driven.address
    with pytest.raises(OSError, match="taken") as caught:
        drive(port=port)
    assert f"cannot listen on {host}:{port}" in str(caught.value)
    assert "choose another port" in str(caught.value)
    driven.shutdown()
    assert driven.exporter.address is None
    driven.start()
    assert request_(driven.url).status == 200


@pytest.mark.parametrize(
    ("host", "problem"), [("no.such.host.invalid", "is no address"), ("192.0.2.1", "does not have the address")]
)
def test_an_address_of_another_machine_is_a_clear_error(drive: Drive, host: str, problem: str) -> None:
    with pytest.raises(OSError, match=problem):
        drive(host=host)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X-Large: 1234567890\r\n" * 2000 + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nX-Large: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_a_request_head_that_is_too_large_is_refused(drive: Drive, head: bytes) -> None:
    driven = drive()
    with connected(driven.address) as client:
        client.sendall(head)
        assert read_all(client).split(b" ", 2)[1] in (b"431", b"414")
    assert driven.total == 0


@pytest.mark.parametrize(
    "head", [b"\x00\xff\x16\x03\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"one two three four\r\n\r\n"]
)
def test_garbage_is_a_bad_request_and_the_listener_goes_on(drive: Drive, request_: Request, head: bytes) -> None:
    driven = drive()
    with connected(driven.address) as client:
        client.sendall(head)
        answer = read_all(client)
        assert b"400" in answer or b"505" in answer
    assert request_(driven.url).status == 200


def test_a_body_is_never_taken_for_the_next_request(drive: Drive) -> None:
    driven = drive()
    with connected(driven.address) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nContent-Length: 40\r\n\r\nGET /metrics HTTP/1.1\r\nX-Smuggled: 1\r\n\r\n")
        answer = read_all(client)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in answer


def test_idle_connections_do_not_keep_a_scrape_out(drive: Drive, request_: Request) -> None:
    driven = drive(max_requests=1)
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(driven.address)) for _ in range(10)]
        assert request_(driven.url).status == 200
        assert read_all(idle[0]) == b""
    assert driven.exporter.scrapes.refused == 0


def test_too_many_scrapes_at_once_are_answered_with_503(drive: Drive, request_: Request) -> None:
    driven = drive(max_requests=2)
    gate = threading.Event()
    driven.cycle = lambda: (gate.wait(10), driven.count_up())
    with ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(request_, driven.url) for _ in range(2)]
        wait_until(lambda: driven.begun == 2)
        refused = request_(driven.url)
        gate.set()
        assert [each.result().status for each in waiting] == [200, 200]
    assert (refused.status, "too many scrapes" in refused.text) == (503, True)
    assert (driven.exporter.scrapes.served, driven.exporter.scrapes.refused) == (2, 1)


def test_fifty_clients_are_all_served(drive: Drive, request_: Request) -> None:
    driven = drive(max_requests=50)
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda _: request_(driven.url), range(200)))
    assert {answer.status for answer in answers} == {200}
    assert all("cycles_total" in answer.text for answer in answers)


def test_a_client_that_disconnects_harms_no_other_and_nothing_is_written_to_stderr(
    drive: Drive, request_: Request, capfd: pytest.CaptureFixture[str]
) -> None:
    driven = drive()
    for _ in range(5):
        with connected(driven.address) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert request_(driven.url).status == 200
    driven.shutdown()
    assert capfd.readouterr() == ("", "")


def test_shutdown_lets_a_scrape_end_and_closes_what_idles(drive: Drive, request_: Request) -> None:
    driven = drive()
    url = driven.url
    gate = threading.Event()
    driven.cycle = lambda: (gate.wait(10), driven.count_up())
    with connected(driven.address) as idle, ThreadPoolExecutor(2) as clients:
        scrape = clients.submit(request_, driven.url)
        wait_until(lambda: driven.begun == 1)
        stop = clients.submit(driven.shutdown, 10.0)
        assert read_all(idle) == b""
        gate.set()
        assert scrape.result().status == 200
        stop.result()
    with pytest.raises(ConnectionRefusedError):
        request_(url)


def test_shutdown_keeps_its_deadline_while_a_scrape_hangs(drive: Drive, request_: Request) -> None:
    driven = drive()
    gate = threading.Event()
    driven.cycle = lambda: (gate.wait(10), driven.count_up())
    with ThreadPoolExecutor(1) as clients:
        scrape = clients.submit(request_, driven.url)
        wait_until(lambda: driven.begun == 1)
        begun = time.monotonic()
        driven.shutdown(0.5)
        assert time.monotonic() - begun < 1.5
        gate.set()
        with pytest.raises(OSError, match=r"reset|closed|without response"):
            scrape.result()


def test_a_target_in_the_absolute_form_is_the_page_too(drive: Drive) -> None:
    driven = drive()
    with connected(driven.address) as client:
        client.sendall(b"GET http://monitored.example/metrics HTTP/1.1\r\nHost: monitored.example\r\nConnection: close\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200")
