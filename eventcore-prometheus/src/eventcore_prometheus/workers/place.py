"""Where the processes of one service meet: a private directory of the user, with a lock and a Unix socket for each service.

Processes are of the same service when they have the same user, the same port, the same readers and the same ``service.name``.
A service without a name has only siblings: processes that the same parent has started from the same program. Its parent must
run the same Python, because a shell or an init system starts programs that have nothing to do with each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import socket as socket_module  # a place has a socket of its own
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

# Part of each key: processes whose versions speak differently do not meet.
_PROTOCOL: Final = 2
_KEY_LENGTH: Final = 20
# The system's limit for the path of a Unix socket, less the longest file name here.
_LONGEST_DIRECTORY: Final = 70


@final
class PlaceError(Exception):
    """The lock or the socket of a service cannot be made, so that its processes cannot meet."""


@final
@dataclass(frozen=True, slots=True)
class Place:
    """The lock and the socket of one service.

    Attributes:
        lock: path of a file that stays empty; the process that answers for all holds its lock.
        socket: path of the socket where that process takes the pages of the others.
    """

    lock: Path
    socket: Path

    def try_lock(self) -> int | None:
        """Take the lock: its file descriptor, to be closed with ``unlock``; ``None`` while another process has it.

        Raises:
            OSError: the directory cannot be used.
        """
        import fcntl

        while True:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another process may have removed the file between the two calls: its lock then means nothing.
                if os.fstat(descriptor).st_ino == os.stat(self.lock).st_ino:
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def moved(self) -> Place:
        """This place in the directory where processes meet now: the one that it had was removed.

        Raises:
            OSError: no private directory can be had.
        """
        directory = _private_directory()
        return Place(directory / self.lock.name, directory / self.socket.name)

    def unlock(self, descriptor: int) -> None:
        """Remove the files, and let the next process take the lock."""
        for path in (self.socket, self.lock):
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)

    def touch(self) -> bool:
        """Give both files the present time; false if one of them is missing."""
        try:
            for path in (self.lock, self.socket):
                os.utime(path)
        except OSError:
            return False
        return True

    def listen(self) -> socket_module.socket:
        """The socket for the other processes. Only the process that has the lock may call this."""
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()  # a killed process has left it
        made = socket_module.socket(socket_module.AF_UNIX, socket_module.SOCK_STREAM)
        try:
            made.bind(str(self.socket))
            made.listen(128)
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
        return made

    def remove_abandoned(self) -> None:
        """Remove the files of services whose processes were killed, so that the directory does not grow."""
        for path in self.lock.parent.glob("*.lock"):
            other = Place(path, path.with_suffix(".sock"))
            with contextlib.suppress(OSError):
                if path != self.lock and (descriptor := other.try_lock()) is not None:
                    other.unlock(descriptor)


def is_supported() -> bool:
    """Whether this system has Unix sockets and locks of files."""
    return hasattr(socket_module, "AF_UNIX") and os.name == "posix"


def is_sibling() -> bool:
    """Whether the parent has made this process as one of its workers: by forking itself, or with ``multiprocessing``."""
    if multiprocessing.parent_process() is not None:
        return True
    parent, own = (_read(f"/proc/{pid}/cmdline") for pid in (os.getppid(), "self"))
    return parent is not None and parent == own


def name_of_process() -> str:
    """What tells this process from all others of the host: containers that share a directory have equal process ids."""
    try:
        return f"{os.readlink('/proc/self/ns/pid')}:{os.getpid()}"
    except OSError:
        return str(os.getpid())


def place_of(port: int | str | None, service: str, readers: str = "") -> tuple[Place, ...]:
    """The places of this process: where it meets its equals, and, for a service without a name, where its children find it.

    Args:
        port: the port, or the path of the Unix socket, that the service is scraped at; ``None``
            when only the application's own server is.
        service: the ``service.name``; empty for a service without a name.
        readers: who may read there, as a digest.

    Raises:
        OSError: no private directory can be had.
    """
    directory = _private_directory()
    common = (str(_PROTOCOL), str(port), readers, _network())
    if service and port is not None:
        return (_place(directory, *common, "named", service),)
    # Without a port, nothing keeps two deployments of one service apart but their parents.
    family = (service, sys.argv[0] if sys.argv else "")
    own = _place(directory, *common, *family, str(os.getpid()))
    if port is None or _runs_this_python(os.getppid()):
        return (_place(directory, *common, *family, str(os.getppid())), own)
    return (own,)


def _place(directory: Path, *words: str) -> Place:
    key = hashlib.sha256("\0".join(words).encode(errors="surrogatepass")).hexdigest()[:_KEY_LENGTH]
    return Place(directory / f"{key}.lock", directory / f"{key}.sock")


def _private_directory() -> Path:
    """A directory that only this user can enter."""
    problem = "no candidate"
    for path in _candidates():
        if len(str(path)) > _LONGEST_DIRECTORY:
            problem = f"{path} is too long for a Unix socket"
            continue
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            # `lstat`, because somebody else may have made a link of this name in a directory that all may write to.
            status = path.lstat()
        except OSError as error:
            problem = f"{path}: {error.strerror}"
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return path
        problem = f"{path} is not a directory that only user {os.geteuid()} can use"
    raise OSError(f"the processes of this service cannot meet: {problem}; remove it, or set workers to 'off'")


def _candidates() -> Iterator[Path]:
    user = os.geteuid()
    yield Path(f"/run/user/{user}/eventcore")
    yield Path(tempfile.gettempdir()) / f"eventcore-{user}"
    yield Path(f"/tmp/eventcore-{user}")  # noqa: S108  # its owner and rights are checked


def _network() -> str:
    """What tells containers apart that share a directory: each has ports of its own."""
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError:
        return ""


def _runs_this_python(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/self/exe")
    except OSError:
        # Another user's process cannot be read. Without /proc, everything but the init system may be the parent.
        return not Path("/proc/self/exe").exists() and pid != 1


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
