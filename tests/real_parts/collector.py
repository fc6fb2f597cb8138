"""The OpenTelemetry Collector, which writes what it receives to files, and Jaeger, which stores traces."""

import json
import re
import signal
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.real_parts.otlp_json import points_of, spans_of
from tests.real_parts.ports import free_ports
from tests.real_parts.received import ReceivedPoint, ReceivedSpan
from tests.real_parts.server import ServerFailed, ServerProcess

_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUS: Final = ("UNSET", "OK", "ERROR")
_TEMPORALITY: Final = ("UNSPECIFIED", "DELTA", "CUMULATIVE")


class Collector:
    """One Collector, which receives over OTLP gRPC.

    Args:
        program: the path of the program that ``go/build.py`` builds.
        directory: an empty folder for its files.
        traces_to: the address of an OTLP receiver that gets the traces, too.
    """

    def __init__(self, program: Path, directory: Path, traces_to: str | None = None) -> None:
        self._files = {name: directory / f"{name}.jsonl" for name in ("metrics", "traces")}
        self._cleared = dict.fromkeys(self._files, 0)

        def start() -> ServerProcess:
            self._grpc, self._health, self._page = free_ports(3)
            configuration = directory / "collector.json"
            configuration.write_text(json.dumps(self._configuration(traces_to)))
            command = [str(program), "--config", str(configuration)]
            return ServerProcess(command, directory / "collector.log", {}, directory)

        self._server = _started(start, lambda: _get(f"http://127.0.0.1:{self._health}/") is not None)

    @property
    def grpc_endpoint(self) -> str:
        """The address of the Collector, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._grpc}"

    @property
    def pid(self) -> int:
        """The id of the Collector's process."""
        return self._server.pid

    def stop(self) -> None:
        """Stop the Collector; its files stay readable."""
        # Asked to stop, it waits for connections that exporters have not closed.
        self._server.stop(signal.SIGKILL)

    def clear(self) -> None:
        """Forget everything received until now, but for the page."""
        # A line that is not complete yet counts as received later.
        self._cleared = {name: file.read_bytes().rfind(b"\n") + 1 if file.exists() else 0 for name, file in self._files.items()}

    def requests(self, kind: str) -> list[dict[str, Any]]:
        """What was received of ``metrics`` or ``traces`` since the last ``clear``, as OTLP JSON, oldest first."""
        file = self._files[kind]
        # The last line may not be complete yet.
        lines = file.read_bytes()[self._cleared[kind] :].split(b"\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def points(self, name: str | None = None) -> list[ReceivedPoint]:
        """The data points received since the last ``clear``, oldest first; those of the metric ``name``, or all."""
        return [point for point in points_of(map(_plain, self.requests("metrics"))) if name in (None, point.name)]

    def spans(self, name: str | None = None) -> list[ReceivedSpan]:
        """The spans received since the last ``clear``, oldest first; those called ``name``, or all."""
        return [span for span in spans_of(map(_plain, self.requests("traces"))) if name in (None, span.name)]

    def page(self) -> str:
        """The page on which the Collector shows the metrics that it has received, for Prometheus."""
        return (_get(f"http://127.0.0.1:{self._page}/metrics") or b"").decode()

    def _configuration(self, traces_to: str | None) -> dict[str, Any]:
        files = {f"file/{name}": {"path": str(path), "flush_interval": "50ms"} for name, path in self._files.items()}
        exporters: dict[str, Any] = {**files, "prometheus": {"endpoint": f"127.0.0.1:{self._page}"}}
        if traces_to is not None:
            exporters["otlp"] = {"endpoint": traces_to.removeprefix("http://"), "tls": {"insecure": True}}
        to_traces = ["file/traces", *(["otlp"] if traces_to is not None else [])]
        pipelines = {
            "metrics": {"receivers": ["otlp"], "exporters": ["file/metrics", "prometheus"]},
            "traces": {"receivers": ["otlp"], "exporters": to_traces},
        }
        return {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{self._grpc}"}}}},
            "exporters": exporters,
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{self._health}"}},
            "service": {
                "extensions": ["health_check"],
                "pipelines": pipelines,
                "telemetry": {"metrics": {"level": "none"}},
            },
        }


class Jaeger:
    """One Jaeger, which stores traces in memory.

    Args:
        program: the path of the program that ``go/build.py`` builds.
        directory: an empty folder for its log.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        def start() -> ServerProcess:
            names = ("collector.otlp.grpc", "collector.otlp.http", "collector.grpc-server", "collector.http-server")
            ports = dict(zip((*names, "query.http-server", "query.grpc-server", "admin.http"), free_ports(7), strict=True))
            self._grpc, self._query = ports["collector.otlp.grpc"], ports["query.http-server"]
            arguments = [f"--{name}.host-port=127.0.0.1:{port}" for name, port in ports.items()]
            return ServerProcess([str(program), *arguments], directory / "jaeger.log", {}, directory)

        self._server = _started(start, lambda: _get(f"http://127.0.0.1:{self._query}/api/services") is not None)

    @property
    def grpc_endpoint(self) -> str:
        """The address for OTLP, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._grpc}"

    def stop(self) -> None:
        """Stop Jaeger, which forgets everything."""
        self._server.stop(signal.SIGKILL)

    def trace(self, trace_id: int) -> list[dict[str, Any]]:
        """The spans of a trace as Jaeger's query API returns them; empty until it has some."""
        body = _get(f"http://127.0.0.1:{self._query}/api/traces/{trace_id:032x}")
        found = json.loads(body)["data"] if body else []
        spans: list[dict[str, Any]] = found[0]["spans"] if found else []
        return spans


def _started(start: Callable[[], ServerProcess], ready: Callable[[], bool]) -> ServerProcess:
    for remaining in (2, 1, 0):
        server = start()
        try:
            server.wait_until_ready(ready, 20)
        except ServerFailed:
            # Another process may have taken a port after free_ports returned it.
            if not remaining:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def _get(url: str) -> bytes | None:
    """The body of an answer; ``None`` when there is no answer or it is an error."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            body: bytes = response.read()
            return body
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def _plain(value: Any) -> Any:
    """OTLP JSON as ddapm-test-agent writes it, which ``otlp_json`` reads: snake case, ids in base64, enumerations as text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    plain: dict[str, Any] = {}
    for name, content in value.items():
        if name in _IDS:
            content = b64encode(bytes.fromhex(content)).decode()
        elif name == "kind" and isinstance(content, int):
            content = f"SPAN_KIND_{_KINDS[content]}"
        elif name == "code":
            content = f"STATUS_CODE_{_STATUS[content]}"
        elif name == "aggregationTemporality":
            content = f"AGGREGATION_TEMPORALITY_{_TEMPORALITY[content]}"
        plain[re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)] = _plain(content)
    return plain
