"""An exporter for the line server that does everything right; the planted faults are subclasses of it. And its setup."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    HistogramData,
    MetricData,
    RetryLater,
    Scope,
    Secret,
    Signal,
    SpanData,
    hookimpl,
)
from eventcore.testing import (
    ExporterSetup,
    Received,
    ReceivedEvent,
    ReceivedExemplar,
    ReceivedLink,
    ReceivedPoint,
    ReceivedSpan,
)
from eventcore.testing.exporters.recording import received_point, received_span
from tests.real_parts.ports import free_ports
from tests.real_parts.waiting import wait_until

TOKEN = "t0ps3cr3t"  # the secret that the tests look for


class LineExporter(Exporter):
    """Sends one line for each cycle, and waits for the answer."""

    interval: float | None = 3600.0

    def __init__(self, port: int, token: Secret) -> None:
        self.port = port
        self.token = token
        self.waiting: dict[Signal, list[Any]] = {"metrics": [], "spans": []}
        self.connection: socket.socket | None = None

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.context = context
        self.resource = dict(context.resource.attributes)
        context.on_fork(before=self.disconnect)

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        self.waiting[signal] = []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        self.add_metrics(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:
        self.add_metrics(gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:
        self.add_metrics(histograms)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        self.waiting["spans"] += map(self.span, spans)

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if waiting := self.waiting[signal]:
            self.send({signal: waiting}, timeout)
        self.waiting[signal] = []

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        self.disconnect()

    def add_metrics(self, metrics: Sequence[MetricData]) -> None:
        self.waiting["metrics"] += [self.point(data, point) for data in metrics for point in data.points]

    def point(self, data: MetricData, point: Any) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(received_point(data, point), str_keys=True)
        if "value" in fields and fields["value"] is not None and not math.isfinite(fields["value"]):
            fields["value"] = str(fields["value"])
        return fields

    def span(self, span: SpanData) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(received_span(span), builtin_types=())
        fields["name"] = span.name
        return fields

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        line = json.dumps({**content, "resource": self.resource}).encode() + b"\n"
        sent = False
        try:
            connection = self.connect(timeout)
            connection.settimeout(timeout)
            sent = True
            connection.sendall(line)
            answer = connection.recv(64)
        except OSError as error:
            self.disconnect()
            raise RetryLater(reason=f"{type(error).__name__}", outcome_unknown=sent) from error
        if answer != b"ok\n":
            self.disconnect()
            raise self.refusal(answer)

    def refusal(self, answer: bytes) -> RetryLater:
        if answer.startswith(b"wait "):
            return RetryLater(float(answer[5:]), "the server is busy")
        return RetryLater(reason="the connection ended", outcome_unknown=True)

    def connect(self, timeout: float) -> socket.socket:
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), timeout)
        return self.connection

    def disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            # Wakes a hook that waits for an answer in another thread; `close` alone does not.
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()


class DeltaLineExporter(LineExporter):
    """The same with differences."""

    temporality = "delta"


class AsyncLineExporter(LineExporter):
    """The same with hooks that run on an event loop."""

    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @hookimpl
    async def start(self, context: ExporterContext) -> None:  # type: ignore[override]  # as above
        self.context = context
        self.resource = dict(context.resource.attributes)

    @hookimpl
    async def flush(self, signal: Signal, timeout: float) -> None:
        if waiting := self.waiting[signal]:
            line = json.dumps({signal: waiting, "resource": self.resource}).encode() + b"\n"
            answer = b""
            try:
                reader, writer = self.streams = self.streams or await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(line)
                answer = await reader.readline()
            except OSError as error:
                raise RetryLater(reason=type(error).__name__, outcome_unknown=self.streams is not None) from error
            finally:
                # Also when the hook is cancelled at its timeout: the answer to this line would be read for the next one.
                if answer != b"ok\n":
                    self.leave()
            if answer != b"ok\n":
                raise self.refusal(answer)
        self.waiting[signal] = []

    @hookimpl
    async def shutdown(self, timeout: float) -> None:  # type: ignore[override]  # a hook may be either
        self.leave()

    def leave(self) -> None:
        streams, self.streams = self.streams, None
        if streams is not None:
            streams[1].transport.abort()


class DirectLineExporter(Exporter):
    """Each hook delivers by itself: there is neither `begin` nor `flush`."""

    interval: float | None = 3600.0

    def __init__(self, port: int, token: Secret) -> None:
        self.line = LineExporter(port, token)

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.line.start(context)

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        self.metrics(counters, timeout)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:
        self.metrics(gauges, timeout)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:
        self.metrics(histograms, timeout)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        self.line.send({"spans": [self.line.span(span) for span in spans]}, timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        self.line.disconnect()

    def metrics(self, metrics: Sequence[MetricData], timeout: float) -> None:
        points = [self.line.point(data, point) for data in metrics for point in data.points]
        if points:
            self.line.send({"metrics": points}, timeout)


class LineSetup(ExporterSetup):
    """Runs the line server, and reads its file."""

    secrets: ClassVar[Sequence[str]] = (TOKEN,)

    def __init__(self, directory: Path, kind: Callable[[int, Secret], Exporter] = LineExporter) -> None:
        self.kind = kind
        self.path = directory / "lines"
        self.path.touch()
        (self.port,) = free_ports(1)
        self._start()

    def _start(self) -> None:
        here = Path(__file__).with_name("line_server.py")
        self.process = subprocess.Popen([sys.executable, "-S", str(here), str(self.port), str(self.path)])
        wait_until(self._accepts, 10, "the line server accepts")

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def make(self) -> object:
        return self.kind(self.port, Secret(TOKEN))

    def received(self) -> Received:
        points: list[ReceivedPoint] = []
        spans: list[ReceivedSpan] = []
        resource: dict[str, Any] | None = None
        for line in self.path.read_bytes().splitlines():
            content = json.loads(line)
            points += map(_point, content.get("metrics", ()))
            spans += map(_span, content.get("spans", ()))
            resource = content["resource"]
        return Received(points, spans, resource)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self._start()

    @contextmanager
    def stall(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    @contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        marker = self.path.with_name("busy")
        marker.write_text(f"{seconds}")
        try:
            yield
        finally:
            marker.unlink()


def _point(fields: dict[str, Any]) -> ReceivedPoint:
    if isinstance(fields.get("value"), str):
        fields["value"] = float(fields["value"])
    if fields.get("buckets") is not None:
        fields["buckets"] = {float(bound): count for bound, count in fields["buckets"].items()}
    if fields.get("quantiles") is not None:
        fields["quantiles"] = {float(quantile): value for quantile, value in fields["quantiles"].items()}
    exemplars = [ReceivedExemplar(**each) for each in fields["exemplars"]]
    return ReceivedPoint(**fields | {"scope": Scope(**fields["scope"]), "exemplars": exemplars})


def _span(fields: dict[str, Any]) -> ReceivedSpan:
    fields["events"] = [ReceivedEvent(**each | {"attributes": _frozen(each["attributes"])}) for each in fields["events"]]
    fields["links"] = [ReceivedLink(**each | {"attributes": _frozen(each["attributes"])}) for each in fields["links"]]
    fields["attributes"] = _frozen(fields["attributes"])
    return ReceivedSpan(**fields | {"scope": Scope(**fields["scope"])})


def _frozen(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
