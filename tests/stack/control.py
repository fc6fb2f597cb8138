"""Restarts and stops parts of a running stack on request, as systemd or compose would: for the commands on runbook pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Control:
    """A listener on 127.0.0.1 that calls ``actions[NAME]`` at ``POST /NAME``."""

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                action = actions.get(self.path.removeprefix("/"))
                if action is None:
                    self.send_error(404)
                    return
                action()
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
                """Nothing: the caller prints what happens."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def command(self, name: str) -> str:
        """The shell command for an action."""
        return f"curl -fsS -X POST http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
