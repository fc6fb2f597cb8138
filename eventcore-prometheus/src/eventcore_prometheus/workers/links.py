"""Messages between two processes of one service, over a Unix socket that never blocks."""

from __future__ import annotations

import enum
import socket
from collections.abc import Hashable
from typing import Final, TypeVar, final

import msgspec

_HEAD: Final = 5
_RECEIVED_AT_ONCE: Final = 256 * 1024
# Far above any page; a peer that announces more does not speak this protocol.
_LARGEST: Final = 1 << 30

T = TypeVar("T")


@final
class Kind(enum.IntEnum):
    """What a message means; its class below is what it carries."""

    HELLO = 1
    WELCOME = 2
    ASK = 3
    PAGE = 4
    WANT = 5
    WHOLE = 6
    COPY = 7
    FORGET = 8


@final
class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first message of a worker to the holder: its process and exporter, and the number that it already has."""

    process: str
    exporter: str
    worker: int | None


@final
class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """The answer: the numbers of worker and holder, and where the page is served; a problem, if the worker is refused."""

    worker: int
    holder: int
    host: str = ""
    port: int = 0
    problem: str = ""


@final
class Ask(msgspec.Struct, frozen=True, array_like=True):
    """The holder asks a worker for a new page within ``timeout`` seconds."""

    number: int
    timeout: float


@final
class PageSent(msgspec.Struct, frozen=True, array_like=True):
    """A worker's page: the answer to an ``Ask``, or 0 for one that nobody asked for; ``None`` if no page could be made."""

    number: int
    page: bytes | None


@final
class Want(msgspec.Struct, frozen=True, array_like=True):
    """A worker asks the holder for the page of all workers, for a scrape that has reached the worker's own ASGI mount."""

    number: int
    timeout: float


@final
class Whole(msgspec.Struct, frozen=True, array_like=True):
    """The answer: the page of all workers, or why there is none."""

    number: int
    page: bytes | None
    problem: str = ""


@final
class Copy(msgspec.Struct, frozen=True, array_like=True):
    """The holder copies a worker's page to its successor.

    Attributes:
        live: false for a worker that has ended.
        shown: whether the page was shown after that.
    """

    worker: int
    live: bool
    page: bytes
    shown: bool = False


@final
class Forget(msgspec.Struct, frozen=True, array_like=True):
    """The last page of an ended worker is no longer shown: its number may be used again."""

    worker: int


def decode(data: bytes | bytearray | memoryview, kind: type[T]) -> T:
    """What a message carries.

    Raises:
        OSError: the peer does not speak this protocol.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise OSError(f"a message that cannot be read: {error}") from error


@final
class Link:
    """One connection. Only the thread of ``Workers`` uses it.

    Attributes:
        worker: the number of the worker at the other end; ``None`` before its ``Hello``.
        process: the process at the other end; empty before its ``Hello``.
        exporter: the exporter of that process; empty before its ``Hello``.
        late: whether it did not answer the last scrape; the next one does not wait for it.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.worker: int | None = None
        self.process = ""
        self.exporter = ""
        self.late = False
        self._received = bytearray()
        # Messages that wait, by what they are about: a newer one replaces an older one, so that a frozen process costs no more
        # memory than one message of each. The message that is being sent stands apart.
        self._waiting: dict[Hashable, bytes] = {}
        self._sending = memoryview(b"")

    @property
    def pending(self) -> bool:
        """Whether something is to be sent."""
        return bool(self._sending or self._waiting)

    def post(self, kind: Kind, message: msgspec.Struct, about: Hashable = None) -> None:
        """Send a message as soon as the peer takes it, in place of one that waits and is about the same."""
        body = msgspec.msgpack.encode(message)
        key = (kind, about)
        self._waiting.pop(key, None)
        self._waiting[key] = b"".join((len(body).to_bytes(4, "big"), bytes((kind,)), body))
        self.flush()

    def flush(self) -> None:
        """Send what the peer takes now.

        Raises:
            OSError: the peer has ended.
        """
        while True:
            if not self._sending:
                if not self._waiting:
                    return
                self._sending = memoryview(self._waiting.pop(next(iter(self._waiting))))
            try:
                sent = self.socket.send(self._sending)
            except BlockingIOError:
                return
            self._sending = self._sending[sent:]

    def receive(self) -> list[tuple[Kind, bytes]]:
        """The messages that have arrived.

        Raises:
            EOFError: the peer has ended.
            OSError: the connection is broken, or the peer does not speak this protocol.
        """
        ended = False
        while True:
            try:
                data = self.socket.recv(_RECEIVED_AT_ONCE)
            except BlockingIOError:
                break
            if not data:
                ended = True
                break
            self._received += data
        messages: list[tuple[Kind, bytes]] = []
        received, at = self._received, 0
        while len(received) - at >= _HEAD:
            size = int.from_bytes(received[at : at + 4], "big")
            if size > _LARGEST:
                raise OSError("the peer does not speak this protocol")
            if len(received) - at < _HEAD + size:
                break
            try:
                kind = Kind(received[at + 4])
            except ValueError as error:
                raise OSError(f"a message of an unknown kind: {error}") from error
            messages.append((kind, bytes(received[at + _HEAD : at + _HEAD + size])))
            at += _HEAD + size
        del received[:at]
        # What a process has sent before it was killed still counts.
        if ended and not messages:
            raise EOFError("the other process has ended")
        return messages

    def ended(self) -> bool:
        """Whether the peer has ended and everything that it has sent was received."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the connection of this process."""
        self.socket.close()
