"""The example service as it runs: two workers of a server on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from tests.real_parts.ports import free_ports
from tests.real_parts.postgres import PostgresServer

DELAY: Final = 1.0
"""Seconds from SIGTERM until commands are refused."""

UVICORN: Final = (
    "uvicorn",
    "--factory",
    "examples.service.app:create_app",
    "--port",
    "{port}",
    "--workers",
    "2",
    "--no-access-log",
)
GUNICORN: Final = (
    *("gunicorn", "examples.service.app:create_app()", "--bind", "127.0.0.1:{port}", "--workers", "2"),
    *("--worker-class", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "30", "--no-control-socket"),
)


class Service:
    """The service on a database of its own, and its log."""

    def __init__(self, server: PostgresServer, log: Path, command: Sequence[str] = UVICORN) -> None:
        self.database = server.new_database()
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(port=port) for part in command)],
                stdout=output,
                stderr=output,
                env=os.environ
                | {"BANK_DATABASE": server.url(self.database), "BANK_DRAIN_DELAY": str(DELAY), "EVENTCORE_EXPORTERS": "none"},
            )

    def ready(self) -> bool:
        """Whether a worker says that it is ready."""
        try:
            return httpx.get(f"{self.url}/health/readyz", timeout=1.0).status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        """What all processes have written."""
        return self._log.read_text()

    def close(self) -> None:
        """Kill the server; of gunicorn, the workers notice it and end."""
        self.process.kill()
        self.process.wait()
