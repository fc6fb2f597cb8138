"""Where a listener can listen, and what it leaves behind."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from eventcore.serving import Request, Response, plain
from tests.serving.conftest import Listen, connected, read_all, read_response

GET = b"GET /here HTTP/1.1\r\nConnection: close\r\n\r\n"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def answer_at(host: str, port: int) -> bytes:
    with closing(socket.create_connection((host, port), timeout=10)) as connection:
        connection.sendall(GET)
        return read_all(connection)


def over_unix(path: Path) -> bytes:
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(GET)
        return read_all(connection)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["localhost", "", "::"])
def test_all_addresses_of_a_host_are_bound_at_one_port(listen: Listen, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if host == "localhost":
        # Not every machine has both of its addresses in its table of hosts.
        found = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    listener = listen(host=host)
    monkeypatch.undo()
    port = listener.address[1]
    assert b"/here" in answer_at("127.0.0.1", port)
    assert b"/here" in answer_at("::1", port)
    listener.close(1.0)
    for address in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=5)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_address_of_one_family_is_bound_alone(listen: Listen) -> None:
    listener = listen(host="::1")
    assert listener.url == f"http://[::1]:{listener.address[1]}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.address[1]), timeout=5)


def test_a_port_that_is_taken_at_one_address_of_a_host_is_a_clear_error(listen: Listen) -> None:
    taken = listen().address[1]
    for host in ("127.0.0.1", "localhost", ""):
        with pytest.raises(OSError, match=f"cannot listen on {host}:{taken}: the port is taken") as caught:
            listen(host=host, port=taken)
        assert "choose another port" in str(caught.value)


def test_a_unix_socket_is_for_its_user_and_group_and_is_removed_at_the_end(listen: Listen, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    listener = listen(host=f"unix:{path}")
    assert (listener.address, listener.url) == ((f"unix:{path}", 0), f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert b"/here" in over_unix(path)
    with pytest.raises(OSError, match=f"cannot listen on unix:{path}: another process listens there"):
        listen(host=f"unix:{path}")
    assert b"/here" in over_unix(path)
    listener.close(1.0)
    assert not path.exists()


def test_a_unix_socket_that_a_killed_process_has_left_is_replaced_and_any_other_file_is_not(
    listen: Listen, tmp_path: Path
) -> None:
    left = tmp_path / "left.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(left))
    listen(host=f"unix:{left}")
    assert b"/here" in over_unix(left)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    with pytest.raises(OSError, match="the path is no socket"):
        listen(host=f"unix:{precious}")
    assert precious.read_text() == "precious"


def test_a_unix_socket_that_does_not_listen_yet_is_not_taken_for_an_abandoned_one(
    listen: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.sock"
    bound, second_ended = threading.Event(), threading.Event()
    change_mode = os.chmod

    def chmod_slowly(file: str, mode: int) -> None:
        # The first one is between `bind` and `listen`, while the second one begins.
        if not bound.is_set():
            bound.set()
            second_ended.wait(0.3)
        change_mode(file, mode)

    monkeypatch.setattr("eventcore.serving.addresses.os.chmod", chmod_slowly)
    outcomes: list[str] = []

    def begin() -> None:
        try:
            listen(host=f"unix:{path}")
        except OSError as error:
            outcomes.append(errno.errorcode[error.errno or 0])
        else:
            outcomes.append("listens")

    first = threading.Thread(target=begin)
    first.start()
    assert bound.wait(5)
    begin()
    second_ended.set()
    first.join(5)
    assert sorted(outcomes) == ["EADDRINUSE", "listens"]
    assert b"/here" in over_unix(path)


def test_a_unix_socket_that_another_process_has_replaced_is_left_alone(listen: Listen, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    first = listen(host=f"unix:{path}")
    path.unlink()
    listen(host=f"unix:{path}")
    first.close(1.0)
    assert b"/here" in over_unix(path)


def test_a_forked_child_can_close_what_it_has_inherited_and_the_parent_goes_on(listen: Listen) -> None:
    gate, running = threading.Event(), threading.Event()

    def respond(request: Request) -> Response:
        running.set()
        gate.wait(10)
        return plain(200, "from the parent")

    listener = listen(respond)
    assert sockets_at(listener.address[1])
    with connected(listener.address, b"GET / HTTP/1.1\r\n\r\n") as client:
        assert running.wait(10)
        read, write = os.pipe()
        with warnings.catch_warnings():
            # Newer Pythons warn of a fork beside threads: the child must run nothing but what follows.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            # In the child only this thread exists.
            try:
                listener.close_in_child()
                os.write(write, b"closed" if not sockets_at(listener.address[1]) else b"open")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 10) == b"closed"
        for each in (read, write):
            os.close(each)
        gate.set()
        assert b"from the parent" in read_response(client)
    assert b"from the parent" in answer_at(*listener.address)


def sockets_at(port: int) -> list[int]:
    """The file descriptors of this process that are sockets of the server at a port."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as each:
                own = each.getsockname()
        except OSError:
            continue
        if isinstance(own, tuple) and own[1] == port:
            found.append(int(name))
    return found
