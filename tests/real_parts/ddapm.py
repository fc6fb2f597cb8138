"""A real agent that keeps the OTLP requests that it receives and returns them as JSON."""

import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.real_parts.otlp_json import points_of, spans_of
from tests.real_parts.ports import free_ports
from tests.real_parts.received import ReceivedPoint, ReceivedSpan
from tests.real_parts.server import ServerFailed, ServerProcess


class DdapmTestAgent:
    """One agent, which receives over OTLP gRPC.

    Args:
        program: the path of ``ddapm-test-agent``.
        directory: where its log goes; its own.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        for remaining in (2, 1, 0):
            self._agent, self._http, self._grpc = free_ports(3)
            command = [str(program), "--host", "127.0.0.1", "--port", str(self._agent)]
            command += ["--otlp-http-port", str(self._http), "--otlp-grpc-port", str(self._grpc)]
            self._server = ServerProcess(command, directory / "ddapm-test-agent.log", {}, directory)
            try:
                self._server.wait_until_ready(self._answers, 30)
                break
            except ServerFailed:
                # Another process may have taken a port after free_ports returned it.
                if not remaining:
                    raise

    @property
    def grpc_endpoint(self) -> str:
        """The address of the agent, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._grpc}"

    @property
    def http_endpoint(self) -> str:
        """The address of the agent for OTLP over HTTP, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._http}"

    def stop(self) -> None:
        """Stop the agent."""
        self._server.stop()

    def metrics(self) -> list[dict[str, Any]]:
        """The metric export requests received since the last ``clear``, as parsed OTLP JSON, oldest first."""
        return self._requests("metrics")

    def traces(self) -> list[dict[str, Any]]:
        """The trace export requests received since the last ``clear``, as parsed OTLP JSON, oldest first."""
        return self._requests("traces")

    def points(self, name: str | None = None) -> list[ReceivedPoint]:
        """The data points received since the last ``clear``, oldest first; those of the metric ``name``, or all."""
        return [point for point in points_of(self.metrics()) if name in (None, point.name)]

    def spans(self, name: str | None = None) -> list[ReceivedSpan]:
        """The spans received since the last ``clear``, oldest first; those called ``name``, or all."""
        return [span for span in spans_of(self.traces()) if name in (None, span.name)]

    def clear(self) -> None:
        """Remove everything received."""
        self._get(f"http://127.0.0.1:{self._agent}/test/session/clear")

    def _requests(self, signal: str) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = json.loads(self._get(f"http://127.0.0.1:{self._http}/test/session/{signal}"))
        # The agent lists the newest request first.
        return requests[::-1]

    def _get(self, url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=5) as response:
            body: bytes = response.read()
            return body

    def _answers(self) -> bool:
        try:
            self.clear()
            self.traces()
        except OSError:
            return False
        return True
