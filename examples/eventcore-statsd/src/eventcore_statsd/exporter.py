"""The exporter. Its hooks are ``def``: they run in a thread of their own, and may block."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    HistogramData,
    Rejected,
    RetryLater,
    Signal,
    Temporality,
    hookimpl,
)
from eventcore_statsd.lines import Format


class _Entry(NamedTuple):
    """One thing to send; of a counter with the interval that it belongs to, and what was added in it."""

    line: str
    interval: tuple[str, int] | None = None
    added: float = 0


class StatsdExporter(Exporter):
    """Sends counters and histograms as what was added since the last time, and gauges as they are.

    A histogram ``name`` becomes the counters ``name.count`` and ``name.sum``, and with DogStatsD ``name.bucket`` with the tag
    ``le``, the upper bound: how many values are in this bucket, not cumulative.

    Args:
        host: the server's host, for UDP.
        port: the server's port, for UDP.
        socket_path: the server's Unix datagram socket, in place of UDP.
        flavor: ``"dogstatsd"`` sends labels as tags; ``"statsd"`` appends their values to the name.
        prefix: what stands before each name, such as ``"shop."``.
        tags: further tags of every point, with DogStatsD.
        packet: the largest number of bytes of one datagram, 512 to 65,000.
    """

    signals: Sequence[Signal] = ("metrics",)
    temporality: Temporality = "delta"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8125,
        socket_path: str | None = None,
        flavor: Literal["dogstatsd", "statsd"] = "dogstatsd",
        prefix: str = "",
        tags: dict[str, str] | None = None,
        packet: Annotated[int, msgspec.Meta(ge=512, le=65_000)] = 1432,
    ) -> None:
        self.host = host
        self.port = port
        self.socket_path = socket_path
        self.packet = packet
        self._format = Format(prefix=prefix, has_tags=flavor == "dogstatsd", tags=tuple((tags or {}).items()))
        self._socket: socket.socket | None = None
        # What a cycle sends: of a counter its series, when the interval began, and what was added; of a gauge whole lines.
        self._added: list[tuple[str, int, float]] = []
        self._gauges: list[str] = []
        # What was sent of an interval whose cycle has then failed. The next attempt brings the interval again.
        self._sent: dict[tuple[str, int], float] = {}

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        # A forked child opens a socket of its own.
        context.on_fork(after_in_child=self._disconnect)

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        self._added, self._gauges = [], []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Rejected | None:
        refused = 0
        for data in counters:
            for point in data.points:
                if isfinite(point.value):
                    self._added.append((self._format.series(data.name, point.labels), point.start_time_ns, point.value))
                else:
                    refused += 1
        return Rejected(refused, "StatsD has no NaN and no infinity") if refused else None

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> Rejected | None:
        refused = 0
        for data in gauges:
            for point in data.points:
                if isfinite(point.value):
                    self._gauges.append(self._format.gauge(data.name, point.labels, point.value))
                else:
                    refused += 1
        return Rejected(refused, "StatsD has no NaN and no infinity") if refused else None

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:
        for data in histograms:
            for point in data.points:
                parts = self._format.histogram(data.name, point.labels, point, data.boundaries)
                self._added += [(series, point.start_time_ns, added) for series, added in parts]

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        deadline = time.monotonic() + timeout
        refused, batch, size = 0, list[_Entry](), 0
        for entry in self._entries():
            length = len(entry.line.encode()) + 1
            if batch and size + length > self.packet:
                refused += self._send(batch, deadline)
                batch, size = [], 0
            batch.append(entry)
            size += length
        refused += self._send(batch, deadline)
        self._sent = {}
        return Rejected(refused, "a line is longer than a datagram may be") if refused else None

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        self._disconnect()

    def _entries(self) -> Iterator[_Entry]:
        """What is still to be sent of this cycle."""
        for series, began, added in self._added:
            sent = self._sent.get((series, began))
            # A new counter is sent with its 0, so that the backend shows it.
            if sent != added:
                yield _Entry(self._format.count(series, added - (sent or 0)), (series, began), added)
        for line in self._gauges:
            yield _Entry(line)

    def _send(self, entries: Sequence[_Entry], deadline: float) -> int:
        """Send one datagram; how many entries are refused, because the datagram is too long.

        Raises:
            RetryLater: the server is not there, or takes nothing before the deadline.
        """
        if not entries:
            return 0
        try:
            opened = self._connected()
            opened.settimeout(max(deadline - time.monotonic(), 0.001))
            opened.send("\n".join(entry.line for entry in entries).encode())
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return len(entries)
            self._disconnect()
            raise RetryLater(reason=f"{self.socket_path or f'{self.host}:{self.port}'}: {error}") from error
        self._sent.update({entry.interval: entry.added for entry in entries if entry.interval is not None})
        return 0

    def _connected(self) -> socket.socket:
        if self._socket is None:
            if self.socket_path is not None:
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                address: Any = self.socket_path
            else:
                [(family, kind, _, _, address), *_] = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
                opened = socket.socket(family, kind)
            try:
                opened.connect(address)
            except BaseException:
                opened.close()
                raise
            self._socket = opened
        return self._socket

    def _disconnect(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()
