"""An exporter that keeps what it gets, and a telemetry whose values and spans a test can check."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    NumberPoint,
    Signal,
    SpanData,
    Temporality,
    hookimpl,
)
from eventcore.telemetry import Pipeline, Telemetry
from eventcore.testing.exporters.assertions import TelemetryAssertions
from eventcore.testing.exporters.received import (
    Received,
    ReceivedEvent,
    ReceivedExemplar,
    ReceivedLink,
    ReceivedPoint,
    ReceivedSpan,
)

_LIMIT: Final = 10.0
_PREFIXES: Final = ("EVENTCORE_", "OTEL_")


class RecordingExporter(Exporter, TelemetryAssertions):
    """Keeps what core exports, cycle by cycle. It may be read from any thread.

    Args:
        temporality: ``"delta"`` to get differences, which ``metrics`` adds up.
        interval: seconds between metrics cycles. The default leaves it to ``flush``.

    >>> from eventcore import Telemetry
    >>> telemetry, exporter = Telemetry(config={}, exporters=[]), RecordingExporter()
    >>> name = telemetry.register_exporter(exporter)
    >>> telemetry.counter("orders.shipped").add(2)
    >>> bool(telemetry.flush_blocking(5))
    True
    >>> exporter.assert_counter("orders.shipped", 2)
    >>> bool(telemetry.shutdown_blocking(5))
    True
    """

    def __init__(self, temporality: Temporality = "cumulative", interval: float = 3600.0) -> None:
        self.temporality: Temporality = temporality
        self.interval = interval
        self._lock = threading.Lock()
        self._building: dict[Signal, list[Any]] = {"metrics": [], "spans": []}
        self._cycles: list[list[MetricData]] = []
        self._spans: list[SpanData] = []
        self._resource: dict[str, Any] | None = None

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        """Keep the resource."""
        self._resource = dict(context.resource.attributes)

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        """Drop what a failed cycle of the signal has left."""
        self._building[signal] = []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        """Keep counters until ``flush``."""
        self._building["metrics"] += counters

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:
        """Keep gauges until ``flush``."""
        self._building["metrics"] += gauges

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:
        """Keep histograms until ``flush``."""
        self._building["metrics"] += histograms

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        """Keep spans until ``flush``."""
        self._building["spans"] += spans

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> None:
        """Commit the cycle."""
        with self._lock:
            built, self._building[signal] = self._building[signal], []
            if signal == "spans":
                self._spans += built
            else:
                self._cycles.append(built)

    def cycles(self) -> Sequence[Sequence[MetricData]]:
        """The metrics of each cycle, oldest first. The points of one instrument may be in several entries of a cycle."""
        with self._lock:
            return list(self._cycles)

    def metrics(self) -> Iterable[MetricData]:
        """The newest value of every series; with ``temporality="delta"``, the sum of its differences."""
        found: dict[str, tuple[MetricData, dict[Labels, Any]]] = {}
        for cycle in self.cycles():
            for data in cycle:
                _, points = found.setdefault(data.name, (data, {}))
                is_difference = self.temporality == "delta" and not isinstance(data, GaugeData)
                for point in data.points:
                    before = points.get(point.labels) if is_difference else None
                    points[point.labels] = point if before is None else _added(before, point)
        return [msgspec.structs.replace(data, points=tuple(points.values())) for data, points in found.values()]

    def spans(self) -> Sequence[SpanData]:
        """The spans, oldest first."""
        with self._lock:
            return list(self._spans)

    def received(self) -> Received:
        """Everything, as ``ExporterSetup.received`` returns it."""
        points = [received_point(data, point) for cycle in self.cycles() for data in cycle for point in data.points]
        return Received(points, [received_span(span) for span in self.spans()], self._resource)

    def clear(self) -> None:
        """Forget what came until now."""
        with self._lock:
            self._cycles, self._spans = [], []


class RecordingTelemetry(Telemetry, TelemetryAssertions):
    """A telemetry for one test: what is recorded can be checked, nothing leaves the process, and every trace is sampled.

    It has no exporter but a ``RecordingExporter``, and ignores configuration files and the variables ``EVENTCORE_*`` and
    ``OTEL_*``. ``open_store(…, telemetry=telemetry)`` records to it. The fixture ``telemetry`` makes one and shuts it down.

    Args:
        verbosity: ``"verbose"`` to have the metrics of that level, too.

    Attributes:
        recorder: what gets the spans and, after a ``flush``, the metrics.
    """

    def __init__(self, *, verbosity: Literal["normal", "verbose"] = "normal") -> None:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_PREFIXES)}
        try:
            # A path, so that no `eventcore.toml` of the working directory is read.
            super().__init__(config=os.devnull, exporters=[], traces_per_second="all", verbosity=verbosity)
        finally:
            os.environ.update(hidden)
        self.recorder: Final = RecordingExporter()
        self.register_exporter(self.recorder, name="recording")

    def metrics(self) -> Iterable[MetricData]:
        """The current value of every series, callbacks included."""
        return list(self.collect(_LIMIT))

    def spans(self) -> Sequence[SpanData]:
        """The spans that have ended until now, oldest first; after ``shutdown``, those that had ended until then.

        Raises:
            TimeoutError: they did not come within 10 seconds.
        """
        report = self.flush_blocking(_LIMIT)
        # One that is stopped has got all that it will ever get.
        if not report and any(exporter.state != "stopped" for exporter in self.exporters()):
            raise TimeoutError(f"the spans did not come within {_LIMIT:g} s: {report}")
        return self.recorder.spans()

    def wake_exporters(self) -> None:
        """Let the exporters look at the clock now, for tests that have moved it."""
        for pipeline in self.exporters():
            if isinstance(pipeline, Pipeline):
                pipeline.status.notify()


def received_point(data: MetricData, point: NumberPoint | HistogramPoint) -> ReceivedPoint:
    """What a backend has of a point that keeps everything."""
    fields: dict[str, Any] = {
        "name": data.name,
        "labels": dict(point.labels),
        "unit": data.unit,
        "description": data.description,
        "start_time_ns": point.start_time_ns,
        "time_ns": point.time_ns,
        "scope": data.scope,
        "exemplars": [
            ReceivedExemplar(
                value=each.value, trace_id=f"{each.trace_id:032x}", span_id=f"{each.span_id:016x}", time_ns=each.time_ns
            )
            for each in point.exemplars
        ],
    }
    if isinstance(data, HistogramData) and isinstance(point, HistogramPoint):
        buckets = dict(zip((*data.boundaries, float("inf")), point.buckets, strict=True))
        fields |= {"count": point.count, "sum": point.sum, "min": point.min, "max": point.max, "buckets": buckets}
        return ReceivedPoint(kind="histogram", **fields)
    assert isinstance(point, NumberPoint)
    return ReceivedPoint(kind="counter" if isinstance(data, CounterData) else "gauge", value=point.value, **fields)


def received_span(span: SpanData) -> ReceivedSpan:
    """What a backend has of a span that keeps everything."""
    return ReceivedSpan(
        name=span.name,
        trace_id=f"{span.context.trace_id:032x}",
        span_id=f"{span.context.span_id:016x}",
        parent_id=f"{span.parent_span_id:016x}" if span.parent_span_id else "",
        kind=span.kind,
        start_time_ns=span.start_time_ns,
        end_time_ns=span.end_time_ns,
        attributes=dict(span.attributes),
        events=[ReceivedEvent(name=each.name, time_ns=each.time_ns, attributes=dict(each.attributes)) for each in span.events],
        links=[
            ReceivedLink(
                trace_id=f"{link.context.trace_id:032x}",
                span_id=f"{link.context.span_id:016x}",
                attributes=dict(link.attributes),
            )
            for link in span.links
        ],
        status=span.status,
        status_description=span.status_description,
        scope=span.scope,
        tracestate=span.context.tracestate,
    )


def _added(one: Any, other: Any) -> Any:
    """Two differences of a series as one."""
    if isinstance(one, NumberPoint):
        return msgspec.structs.replace(other, value=one.value + other.value, start_time_ns=one.start_time_ns)
    return msgspec.structs.replace(
        other,
        count=one.count + other.count,
        sum=one.sum + other.sum,
        buckets=tuple(map(int.__add__, one.buckets, other.buckets)),
        start_time_ns=one.start_time_ns,
    )
