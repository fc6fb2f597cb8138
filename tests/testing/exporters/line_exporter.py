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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    GiveUp,
    HistogramData,
    MetricData,
    Rejected,
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
    # Where new tokens are found.
    token_file: Path | None = None
    is_lost = False

    def __init__(self, port: int, token: Secret) -> None:
        self.port = port
        self.token = token
        self.heard: set[str] = set()
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
        waiting, self.waiting[signal] = self.waiting[signal], []
        return self.send({signal: waiting}, timeout) if waiting else None

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

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        self.look_for_token()
        used, answer = self.token, self.ask(content, timeout)
        if answer == b"denied\n" and self.token == used:
            # The file may have changed since.
            self.look_for_token()
            answer = self.ask(content, timeout) if self.token != used else answer
        return self.outcome(answer)

    def ask(self, content: Mapping[str, Any], timeout: float) -> bytes:
        line = self.line_of(content)
        sent, answer = False, b""
        try:
            connection = self.connect(timeout)
            connection.settimeout(timeout)
            sent = True
            connection.sendall(line)
            while not answer.endswith(b"\n") and (part := connection.recv(4096)):
                answer += part
        except OSError as error:
            self.disconnect()
            raise RetryLater(reason=f"{type(error).__name__}", outcome_unknown=sent) from error
        return answer

    def line_of(self, content: Mapping[str, Any]) -> bytes:
        return f"{self.token.reveal()} {json.dumps({**content, 'resource': self.resource})}\n".encode()

    def outcome(self, answer: bytes) -> Rejected | None:
        what, _, text = answer.decode().rstrip("\n").partition(" ")
        if what == "ok":
            self.hear(text)
            return None
        if what == "rejected":
            count, _, reason = text.partition(" ")
            return Rejected(int(count), self.clean(reason))
        self.disconnect()
        raise self.refusal(answer)

    def refusal(self, answer: bytes) -> RetryLater | GiveUp:
        what, _, text = answer.decode().rstrip("\n").partition(" ")
        match what:
            case "wait":
                return RetryLater(float(text), "the server is busy")
            case "later":
                return RetryLater(reason=self.clean(text))
            case "never" | "denied":
                return GiveUp(self.clean(text or what))
            case _:
                return RetryLater(reason="the connection ended", outcome_unknown=True)

    def clean(self, text: str) -> str:
        """What the server says, without the token, which it may repeat."""
        text = text.replace(self.token.reveal(), "***")
        return text if len(text) <= 200 else f"{text[:200]}…"

    def hear(self, message: str) -> None:
        """What the server says although it took everything."""
        if message and message not in self.heard:
            self.heard.add(message)
            self.context.logger.warning("the server says: %s", self.clean(message))

    def look_for_token(self) -> None:
        if self.token_file is None:
            return
        try:
            self.token = Secret(self.token_file.read_text())
        except OSError as error:
            if not self.is_lost:
                self.context.logger.warning("the file of the token: %s; the one of before is used", error)
            self.is_lost = True
        else:
            self.is_lost = False

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
    async def flush(self, signal: Signal, timeout: float) -> Any:
        waiting, self.waiting[signal] = self.waiting[signal], []
        if not waiting:
            return None
        self.look_for_token()
        answer = b""
        try:
            reader, writer = self.streams = self.streams or await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(self.line_of({signal: waiting}))
            answer = await reader.readline()
        except OSError as error:
            raise RetryLater(reason=type(error).__name__, outcome_unknown=self.streams is not None) from error
        finally:
            # Also when the hook is cancelled at its timeout: the answer to this line would be read for the next one.
            if not answer.endswith(b"\n"):
                self.leave()
        return self.outcome(answer)

    @hookimpl
    async def shutdown(self, timeout: float) -> None:  # type: ignore[override]  # a hook may be either
        self.leave()

    def leave(self) -> None:
        streams, self.streams = self.streams, None
        if streams is not None:
            streams[1].transport.abort()


class SeveralLinesExporter(LineExporter):
    """Sends several lines for each cycle. Spans that an earlier attempt has delivered are left out of the next one."""

    most = 20

    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.taken: set[str] = set()

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        waiting, self.waiting[signal] = self.waiting[signal], []
        deadline = time.monotonic() + timeout
        answers: list[Rejected | None] = []
        missing = [each for each in waiting if each.get("span_id") not in self.taken]
        was_taken = len(missing) < len(waiting)
        for begin in range(0, len(missing), self.most):
            part = missing[begin : begin + self.most]
            try:
                answers.append(self.send({signal: part}, deadline - time.monotonic()))
            except GiveUp as error:
                if not begin and not was_taken:
                    raise
                answers.append(Rejected(len(missing) - begin, error.reason))
                break
            if signal == "spans":
                self.taken.update(each["span_id"] for each in part)
        if signal == "spans":
            self.taken.clear()
        rejected = [answer for answer in answers if answer is not None]
        return Rejected(sum(answer.count for answer in rejected), rejected[0].reason) if rejected else None


class DirectLineExporter(Exporter):
    """Each hook delivers by itself: there is neither `begin` nor `flush`."""

    interval: float | None = 3600.0

    def __init__(self, port: int, token: Secret) -> None:
        self.line = LineExporter(port, token)

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.line.start(context)

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Any:
        return self.metrics(counters, timeout)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> Any:
        return self.metrics(gauges, timeout)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> Any:
        return self.metrics(histograms, timeout)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Any:
        return self.line.send({"spans": [self.line.span(span) for span in spans]}, timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        self.line.disconnect()

    def metrics(self, metrics: Sequence[MetricData], timeout: float) -> Any:
        points = [self.line.point(data, point) for data in metrics for point in data.points]
        return self.line.send({"metrics": points}, timeout) if points else None


class LineSetup(ExporterSetup):
    """Runs the line server, and reads its file."""

    secrets: ClassVar[Sequence[str]] = (TOKEN, f"{TOKEN}-2", f"{TOKEN}-3", f"{TOKEN}-4")

    def __init__(self, directory: Path, kind: Callable[[int, Secret], Exporter] = LineExporter) -> None:
        self.kind = kind
        self.path = directory / "lines"
        self.path.touch()
        (self.port,) = free_ports(1)
        self._start()

        self.tokens = [*reversed(self.secrets or (TOKEN,))]
        self.token_file = directory / "token"
        self.rotate()

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
        made = self.kind(self.port, Secret(TOKEN))
        if isinstance(made, LineExporter):
            made.token_file = self.token_file
        return made

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

    def busy(self, seconds: float) -> AbstractContextManager[None]:
        return self._told("busy", f"{seconds}")

    def reject(self, count: int, reason: str) -> AbstractContextManager[None]:
        return self._told("reject", f"{count} {reason}")

    def refuse(self, after: int, reason: str, *, for_good: bool) -> AbstractContextManager[None]:
        return self._told("refuse", f"{after} {'never' if for_good else 'later'} {reason}")

    def cut(self) -> AbstractContextManager[None]:
        return self._told("cut", "")

    def rotate(self) -> None:
        token = self.tokens.pop()
        for name in ("accepted", "token"):
            self.path.with_name(name).write_text(token)

    @contextmanager
    def lose_secrets(self) -> Iterator[None]:
        away = self.token_file.rename(self.token_file.with_name("away"))
        try:
            yield
        finally:
            away.rename(self.token_file)

    @contextmanager
    def _told(self, what: str, text: str) -> Iterator[None]:
        """A file beside the server's, which tells it what to do."""
        marker = self.path.with_name(what)
        marker.write_text(text)
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
