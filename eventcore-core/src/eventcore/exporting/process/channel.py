"""Messages between a store's process and an exporter's process, over a pair of connected sockets."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from typing import Any, Final, final

import msgspec

_LENGTH: Final = struct.Struct("!I")
_CHUNK: Final = 1 << 18


class ChannelClosed(Exception):
    """The other process has ended, or has closed its side."""


@final
class Channel:
    """Sends and receives messages: plain values as MessagePack, each behind its length in four bytes.

    Any thread may send. One thread at a time may receive.

    Args:
        connection: one of the two sockets; the channel closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder()
        # Held while a message is sent: those of two threads must not mix.
        self._sending = threading.Lock()
        self._received = bytearray()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def send(self, message: object) -> None:
        """Send a message. Waits while the other process reads nothing.

        Raises:
            ChannelClosed: the other process has ended.
            Exception: the message holds a value that MessagePack cannot hold.
        """
        body = self._encoder.encode(message)
        try:
            with self._sending:
                self._socket.sendall(_LENGTH.pack(len(body)) + body)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, timeout: float) -> Any:
        """The next message; ``None`` when none has come within ``timeout`` seconds.

        Raises:
            ChannelClosed: there will be none: the other process has ended.
        """
        deadline = time.monotonic() + timeout
        while (message := self._take()) is None:
            left = deadline - time.monotonic()
            try:
                # In milliseconds. Not `select`, which fails where a process has more than 1,024 files.
                if not self._poll.poll(max(left, 0.0) * 1000):
                    return None
                received = self._socket.recv(_CHUNK)
            except (OSError, ValueError) as error:
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
        body = bytes(received[_LENGTH.size : end])
        del received[:end]
        return self._decoder.decode(body)
