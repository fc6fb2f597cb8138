"""Messages between a store's process and an exporter's process, over a pair of connected sockets."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any, Final, final

import msgspec

_LENGTH: Final = struct.Struct("!I")
_CHUNK: Final = 1 << 18
# The type of a time in the options of a socket: seconds and microseconds.
_TIME: Final = struct.Struct("@ll")


class ChannelClosed(Exception):
    """The other process has ended, or has closed its side."""


@final
class Channel:
    """Sends and receives messages: plain values as MessagePack, each behind its length in four bytes.

    Any thread may send. One thread at a time may receive.

    Args:
        connection: one of the two sockets; the channel closes it.
        patience: seconds that ``receive`` waits for a message.
    """

    def __init__(self, connection: socket.socket, patience: float) -> None:
        self._socket = connection
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder()
        # Held while a message is sent: those of two threads must not mix.
        self._sending = threading.Lock()
        self._received = bytearray()
        # Not `poll` or `settimeout`: they give the GIL up twice for a message, and beside a busy event loop
        # it takes up to 5 ms to get it back.
        seconds = int(patience)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(seconds, int((patience - seconds) * 1e6)))

    def send(self, *messages: object) -> None:
        """Send messages. Waits while the other process reads nothing.

        Raises:
            ChannelClosed: the other process has ended.
            Exception: the message holds a value that MessagePack cannot hold.
        """
        bodies = [self._encoder.encode(message) for message in messages]
        data = b"".join(part for body in bodies for part in (_LENGTH.pack(len(body)), body))
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, *, wait: bool = True) -> Any:
        """The next message; ``None`` when none has come, within the channel's patience or, without ``wait``, by now.

        Raises:
            ChannelClosed: there will be none: the other process has ended.
        """
        while (message := self._take()) is None:
            try:
                received = self._socket.recv(_CHUNK, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError as error:
                raise ChannelClosed from error
            if not received:
                raise ChannelClosed
            self._received += received
        return message

    def close(self) -> None:
        """Close this process's side. The other process, if it is the last one to hold the other side, sees the end."""
        self._socket.close()

    def _take(self) -> Any:
        """The first message that has been received as a whole."""
        received = self._received
        if len(received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(received)
        end = _LENGTH.size + length
        if len(received) < end:
            return None
        try:
            with memoryview(received) as whole, whole[_LENGTH.size : end] as body:
                return self._decoder.decode(body)
        finally:
            del received[:end]
