"""A small backend of its own: a process that takes lines over TCP, each a token and a JSON document, and answers each line.

``python -m tests.testing.exporters.line_server PORT FILE`` appends each line to the file before it answers.
Files beside it tell it what to do with each line: ``accepted`` has the token that a line must begin with, ``busy`` the seconds
that the answer asks to wait for, ``refuse`` how many lines are taken before all others are refused and with which words,
``reject`` how many items are left out and with which words, and with ``cut`` the connection ends in place of the answer.
"""

from __future__ import annotations

import json
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
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            with lock:
                answer = _answer(line, path)
            if answer is None:
                return
            connection.sendall(answer.encode() + b"\n")


def _answer(line: bytes, path: Path) -> str | None:
    """Keep a line, or a part of it, and return the answer; ``None`` for none."""
    busy, refuse, reject, cut = (_text(path.with_name(name)) for name in ("busy", "refuse", "reject", "cut"))
    if busy is not None:
        return f"wait {busy}"
    token, _, document = line.partition(b" ")
    if token.decode() != _text(path.with_name("accepted")):
        return "denied"
    if refuse is not None:
        after, words = refuse.split(" ", 1)
        if after == "0":
            return words
        path.with_name("refuse").write_text(f"{int(after) - 1} {words}")
    answer = "ok"
    if reject is not None:
        content = json.loads(document)
        [signal] = content.keys() - {"resource"}
        number, words = reject.split(" ", 1)
        count = min(int(number), len(content[signal]))
        content[signal] = content[signal][count:]
        document = json.dumps(content).encode() + b"\n"
        answer = f"rejected {count} {words}" if count else f"ok {words}"
    with path.open("ab") as file:
        file.write(document)
    return answer if cut is None else None


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
