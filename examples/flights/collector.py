"""A real OpenTelemetry collector beside the replay: rotel, which logs what it receives."""

import importlib.util
import os
import socket
import subprocess
import sysconfig
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Collector", "CollectorUnavailable", "Received", "free_ports"]

_START_LIMIT: Final = 5.0
_STOP_LIMIT: Final = 5.0
_POLL: Final = 0.02


class CollectorUnavailable(Exception):
    """The collector cannot be started here; the message says why."""


class Received(msgspec.Struct, frozen=True):
    """The number of requests, spans and metrics that the collector has logged."""

    span_requests: int = 0
    spans: int = 0
    metric_requests: int = 0
    metrics: int = 0


class _LogLine(msgspec.Struct):
    msg: str = ""
    spans: int = 0
    metrics: int = 0


class Collector:
    """A running collector. Its methods block, so call them in a thread.

    Args:
        folder: an empty folder for the log.
        program: the path of ``rotel-agent``; left out, that in ``EVENTCORE_ROTEL``, else that of the package ``rotel``.

    Raises:
        CollectorUnavailable: the program is not installed or does not start.
    """

    def __init__(self, folder: Path, program: Path | None = None) -> None:
        self._program = program if program is not None else _installed()
        self._folder = folder
        self._log = folder / "rotel.log"
        # Another process may take a free port before the collector listens on it: try three times.
        for remaining in (2, 1, 0):
            try:
                self._start()
                return
            except CollectorUnavailable:
                if not remaining:
                    raise

    @property
    def received(self) -> Received:
        """What the collector has logged so far."""
        span_requests = spans = metric_requests = metrics = 0
        decoder = msgspec.json.Decoder(_LogLine)
        for line in self._log.read_bytes().splitlines():
            try:
                entry = decoder.decode(line)
            except msgspec.DecodeError:
                continue
            if entry.msg == "Received traces.":
                span_requests += 1
                spans += entry.spans
            elif entry.msg == "Received metrics.":
                metric_requests += 1
                metrics += entry.metrics
        return Received(span_requests, spans, metric_requests, metrics)

    def wait_for(self, spans: int, timeout: float) -> Received:
        """Wait until the collector has logged ``spans`` spans, at most ``timeout`` seconds. It logs after it has answered."""
        deadline = time.monotonic() + timeout
        while (received := self.received).spans < spans and time.monotonic() < deadline:
            time.sleep(_POLL)
        return received

    def stop(self) -> None:
        """Terminate the collector; kill it if it does not end in time."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        grpc, http = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{grpc}"
        command = [str(self._program), "start", "--exporter", "blackhole", "--log-format", "json"]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"]
        command += ["--debug-log", "traces", "--debug-log", "metrics", "--pid-file", str(self._folder / "rotel.pid")]
        # rotel-agent is linked against libpython. A Python that is not installed system-wide has it in a folder of its own.
        libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
        environment = {"LD_LIBRARY_PATH": os.pathsep.join(folder for folder in libraries if folder)}
        try:
            with self._log.open("wb") as output:
                # In a new session, Ctrl-C in the terminal does not reach the collector: the replay stops it at the end.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=self._folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise CollectorUnavailable(f"{self._program} cannot be run: {error.strerror or error}") from error
        try:
            self._wait_until_it_listens(grpc)
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_listens(self, port: int) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                said = self._log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
                raise CollectorUnavailable(f"{self._program.name} ended at once with exit code {code}: {said[-1][:300]}")
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return
            except OSError:
                time.sleep(_POLL)
        raise CollectorUnavailable(f"{self._program.name} did not listen on port {port} within {_START_LIMIT:.0f} s")


def _installed() -> Path:
    if named := os.environ.get("EVENTCORE_ROTEL"):
        return Path(named)
    spec = importlib.util.find_spec("rotel")
    program = Path(spec.origin).with_name("rotel-agent") if spec is not None and spec.origin is not None else None
    if program is None or not program.is_file():
        raise CollectorUnavailable("the package rotel is not installed, and EVENTCORE_ROTEL names no program")
    return program


def free_ports(count: int) -> list[int]:
    """``count`` different free ports of the loopback address."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [int(free.getsockname()[1]) for free in sockets]
