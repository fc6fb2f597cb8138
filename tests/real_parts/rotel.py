"""A real OpenTelemetry collector that prints what it receives."""

import os
import socket
import sysconfig
from pathlib import Path

from tests.real_parts.debug_log import read_debug_log
from tests.real_parts.ports import free_ports
from tests.real_parts.received import ReceivedPoint, ReceivedSpan
from tests.real_parts.server import ServerFailed, ServerProcess


class Rotel:
    """One collector, which receives over OTLP gRPC, stores nothing, and logs every field.

    Args:
        program: the path of ``rotel-agent``.
        directory: an empty folder for its log.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._log = directory / "rotel.log"
        self._server: ServerProcess | None = None
        self._ports = free_ports(2)
        for remaining in (2, 1, 0):
            try:
                self.start()
                break
            except ServerFailed:
                # Another process may have taken a port after free_ports returned it.
                if not remaining:
                    raise
                self._ports = free_ports(2)

    @property
    def grpc_endpoint(self) -> str:
        """The address of the collector, ``http://127.0.0.1:PORT``; a restart keeps it."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """The process id of the running collector."""
        assert self._server is not None, "the collector is stopped"
        return self._server.pid

    def start(self) -> None:
        """Start the collector, also again after ``stop``, at the same address."""
        grpc, http = self._ports
        command = [str(self._program), "start", "--exporter", "blackhole", "--disable-batching"]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"]
        command += ["--debug-log", "traces", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"]
        command += ["--pid-file", str(self._directory / "rotel.pid")]
        # The program is linked against libpython; an interpreter outside the system's folders has it in its own LIBDIR.
        libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
        env = {"LD_LIBRARY_PATH": os.pathsep.join(folder for folder in libraries if folder)}
        self._server = ServerProcess(command, self._log, env, self._directory)
        self._server.wait_until_ready(self._accepts, 10)

    def stop(self) -> None:
        """Stop the collector; its log stays readable."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def points(self, name: str | None = None) -> list[ReceivedPoint]:
        """The data points received until now, oldest first; those of the metric ``name``, or all."""
        return [point for point in read_debug_log(self.log())[0] if name in (None, point.name)]

    def spans(self, name: str | None = None) -> list[ReceivedSpan]:
        """The spans received until now, oldest first; those called ``name``, or all."""
        return [span for span in read_debug_log(self.log())[1] if name in (None, span.name)]

    def log(self) -> str:
        """Everything that the collector has printed until now."""
        return self._log.read_text(errors="replace")

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._ports[0]), timeout=1):
                return True
        except OSError:
            return False
