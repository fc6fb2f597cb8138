"""Values as core passes them to an exporter, and a driver that calls the hooks through pluggy, as a pipeline does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pluggy

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    ExporterHooks,
    GaugeData,
    HistogramData,
    HistogramPoint,
    NumberPoint,
    Rejected,
    Resource,
    SpanData,
    TraceContext,
)

START = 1_700_000_000_000_000_001
NOW = START + 60_000_000_000


def counter(name: str, values: dict[str, int | float]) -> CounterData:
    points = tuple(NumberPoint((("kind", kind),), value, START, NOW) for kind, value in values.items())
    return CounterData(name, "{order}", f"about {name}", ("kind",), points)


def gauge(name: str, value: float, *, additive: bool = False) -> GaugeData:
    return GaugeData(name, "s", f"about {name}", ("kind",), (NumberPoint((("kind", "a"),), value, START, NOW),), additive)


def histogram(name: str) -> HistogramData:
    point = HistogramPoint((("kind", "a"),), 6, 7.5, 0.01, 5.0, (1, 2, 3), START, NOW)
    return HistogramData(name, "s", f"about {name}", ("kind",), (0.1, 1.0), (point,))


def span(number: int = 1, **changes: Any) -> SpanData:
    fields: dict[str, Any] = {
        "name": f"span {number}",
        "kind": "internal",
        "context": TraceContext(0xABC0_0000_0000_0001, number, 1),
        "parent_span_id": 0,
        "start_time_ns": START,
        "end_time_ns": NOW,
    }
    return SpanData(**{**fields, **changes})


class Driver:
    """Calls an exporter's hooks the way a pipeline does, one cycle at a time."""

    def __init__(self, exporter: Exporter, resource: Resource | None = None) -> None:
        manager = pluggy.PluginManager("eventcore")
        manager.add_hookspecs(ExporterHooks)
        manager.register(exporter)
        manager.check_pending()
        self.hook = manager.hook
        self.stopping = threading.Event()
        default = Resource((("service.name", "from-core"), ("service.instance.id", "instance-1")))
        self.hook.start(
            context=ExporterContext(
                name="otel",
                resource=resource or default,
                settings={},
                logger=logging.getLogger("eventcore.exporters.otel"),
                stopping=self.stopping,
                export_now=_never,
            )
        )

    def metrics(
        self,
        *chunks: Sequence[CounterData] | Sequence[GaugeData] | Sequence[HistogramData],
        timeout: float = 5.0,
    ) -> Rejected | None:
        """Run one metrics cycle, chunk by chunk."""
        self.hook.begin(signal="metrics", attempt=1)
        names = {CounterData: "counters", GaugeData: "gauges", HistogramData: "histograms"}
        for chunk in chunks:
            name = names[type(chunk[0])]
            getattr(self.hook, f"export_{name}")(timeout=timeout, **{name: chunk})
        answer: Rejected | None = self.hook.flush(signal="metrics", timeout=timeout)
        return answer

    def spans(self, *chunks: Sequence[SpanData], timeout: float = 5.0) -> Rejected | None:
        """Run one cycle of spans, chunk by chunk."""
        self.hook.begin(signal="spans", attempt=1)
        for chunk in chunks:
            self.hook.export_spans(spans=chunk, timeout=timeout)
        answer: Rejected | None = self.hook.flush(signal="spans", timeout=timeout)
        return answer

    def shutdown(self, timeout: float = 2.0) -> None:
        """Call ``shutdown``."""
        self.stopping.set()
        self.hook.shutdown(timeout=timeout)


def _never(timeout: float) -> Future[None]:
    raise AssertionError("a push exporter asks for no cycles")
