"""A small backend of its own: a process that takes metrics and spans as JSON lines over TCP, and answers each line.

``python -m tests.testing.exporters.line_server PORT FILE`` appends each line to the file before it answers.
While there is a file ``busy`` beside it, each line is refused with the seconds that are written there.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path


def serve(port: int, path: Path) -> None:
    """Take lines until the process is stopped."""
    listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
    lock = threading.Lock()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_take, args=(connection, path, lock), daemon=True).start()


def _take(connection: socket.socket, path: Path, lock: threading.Lock) -> None:
    busy = path.with_name("busy")
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            if busy.exists():
                connection.sendall(f"wait {busy.read_text()}\n".encode())
                continue
            with lock, path.open("ab") as file:
                file.write(line)
            connection.sendall(b"ok\n")


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
