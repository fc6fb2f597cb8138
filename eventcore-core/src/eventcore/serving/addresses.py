"""Listening sockets: names become addresses, ports are bound, and what cannot be bound says why and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

UNIX: Final = "unix:"
"""A host that begins with this is the path of a Unix socket."""

_BACKLOG: Final = 64
# A free port of one address may be taken at another.
_ATTEMPTS_AT_A_FREE_PORT: Final = 16
_UNIX_MODE: Final = 0o660
# Seconds that a process waits for others that are just binding a Unix socket in the same directory; a probe takes at most one.
_LONGEST_TURN: Final = 3.0
# Where the machine lacks a family or an address of a name that has several.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@final
@dataclass(frozen=True, slots=True)
class Bound:
    """Listening sockets of one listener.

    Attributes:
        sockets: one for each address.
        host: as it was bound; the path with ``unix:`` for a Unix socket.
        port: 0 for a Unix socket.
    """

    sockets: Sequence[socket.socket]
    host: str
    port: int
    _inode: int = field(default=0)

    def close(self) -> None:
        """Stop listening. A Unix socket's file is removed, unless another process has replaced it."""
        if self.host.startswith(UNIX):
            path = self.host.removeprefix(UNIX)
            # Before the socket is closed: the file of another process could get the same number afterwards.
            with contextlib.suppress(OSError), _alone_at(path):
                if os.stat(path).st_ino == self._inode:
                    os.unlink(path)
        for each in self.sockets:
            each.close()


def bind(host: str, port: int) -> Bound:
    """Listen on every address of ``host``.

    Args:
        host: a name or an address; empty for all addresses of this machine, of both families;
            ``unix:`` and a path for a Unix socket.
        port: 0 for a free port, the same one at every address.

    Raises:
        OSError: with the number of the system's error; the message says why and what to do.
    """
    if host.startswith(UNIX):
        return _bind_path(host.removeprefix(UNIX))
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot listen on {host}:{port}: {host!r} is no address of this machine ({error})"
        ) from error
    # IPv4 first: its address is the one that is shown.
    addresses = sorted(
        dict.fromkeys((family, address) for family, *_, address in found), key=lambda each: each[0] != socket.AF_INET
    )
    for attempt in range(_ATTEMPTS_AT_A_FREE_PORT):
        try:
            sockets = _bind_all(addresses, only_ipv6=host != "::")
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < _ATTEMPTS_AT_A_FREE_PORT:
                continue
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {_advice(error)}") from error
        bound_host, bound_port = sockets[0].getsockname()[:2]
        return Bound(sockets, bound_host, bound_port)
    raise AssertionError("unreachable")


def _bind_all(addresses: Sequence[tuple[int, Any]], *, only_ipv6: bool) -> list[socket.socket]:
    """A socket for each address, all with one port. Addresses that this machine lacks are left out if another one works."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (address, port, *rest) in addresses:
            if port == 0 and sockets:
                port = sockets[0].getsockname()[1]
            try:
                sockets.append(_listen(family, (address, port, *rest), only_ipv6=only_ipv6))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if not sockets:
            raise missing or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _listen(family: int, address: Any, *, only_ipv6: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # On Windows, SO_REUSEADDR would let two processes listen on one port.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_ipv6))
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _bind_path(path: str) -> Bound:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone_at(path):
            try:
                made.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                    raise
                # A killed process leaves its socket's file.
                os.unlink(path)
                made.bind(path)
            # Before `listen`, so that nobody can connect with other rights.
            os.chmod(path, _UNIX_MODE)
            made.listen(_BACKLOG)
            made.setblocking(False)
            return Bound([made], UNIX + path, 0, os.stat(path).st_ino)
    except OSError as error:
        made.close()
        taken = "another process listens there, or the path is no socket; choose another path"
        problem = taken if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {UNIX}{path}: {problem}") from error


@contextlib.contextmanager
def _alone_at(path: str) -> Generator[None]:
    """Keep other processes from looking at a socket that does not listen yet: it looks as if a killed process had left it.

    The lock is that of the directory, so that no file is left. Where a directory cannot be read or has no locks, there is none.
    """
    import fcntl  # not on every system, but where there are Unix sockets

    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + _LONGEST_TURN
        while time.monotonic() < deadline:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        yield
    finally:
        # Closing is not enough: a child that was forked meanwhile has the lock, too.
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_UN)
        os.close(directory)


def _is_abandoned(path: str) -> bool:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


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
