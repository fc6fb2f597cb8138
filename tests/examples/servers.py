"""What the receivers of the example exporters share: one process, which a setup stops, starts again and stalls."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventcore.testing import ExporterSetup
from tests.real_parts.server import ServerProcess


class ExampleServer(ABC):
    """One server process with a folder of its own.

    Args:
        program: the path of the program.
        directory: where its data, sockets and log go.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory

    @abstractmethod
    def launch(self) -> ServerProcess:
        """The started process."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    def start(self) -> None:
        """Start the server, also again after ``stop``, at the same address."""
        self._server = self.launch()
        self._server.wait_until_ready(self.answers, 20)

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._server.pid, number)


class ServerSetup(ExporterSetup):
    """A setup whose receiver is such a server."""

    def __init__(self, server: ExampleServer) -> None:
        self._example = server

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._example.stop()
        try:
            yield
        finally:
            self._example.start()

    @contextmanager
    def stall(self) -> Iterator[None]:
        self._example.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._example.signal(signal.SIGCONT)
