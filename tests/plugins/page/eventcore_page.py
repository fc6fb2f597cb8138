"""A pull exporter: its page shows the names and totals of the counters of a fresh cycle."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eventcore.exporting import ExporterContext, hookimpl


class PageExporter:
    interval = None

    def __init__(self, port: int | None = None) -> None:
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self._lines: list[str] = []
        self._page = ""

    @property
    def url(self) -> str | None:
        return f"http://127.0.0.1:{self._server.server_port}/" if self._server is not None else None

    @property
    def configured_url(self) -> str | None:
        return f"http://127.0.0.1:{self._port}/" if self._port else None

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                context.export_now(5.0).result(5.0)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(exporter._page.encode())

            def log_message(self, *arguments: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            # Otherwise two processes could listen on one port.
            allow_reuse_address = False
            daemon_threads = True

        if self._port is not None:
            self._server = Server(("127.0.0.1", self._port), Handler)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @hookimpl
    def export_counters(self, counters: Any) -> None:
        self._lines += [f"{counter.name.replace('.', '_')} {point.value}" for counter in counters for point in counter.points]

    @hookimpl
    def flush(self) -> None:
        self._page, self._lines = "\n".join(self._lines), []

    @hookimpl
    def shutdown(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
