"""An exporter as it was written for the first contract of hooks: ``trace_context``, and ``flush`` without a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventcore.exporting import ExporterContext, TraceContext, hookimpl

OUTER = TraceContext(trace_id=0xABC, span_id=0xDEF, trace_flags=1)


class OlderExporter:
    """Keeps what it was given and has delivered."""

    def __init__(self) -> None:
        self.counters: dict[str, float] = {}
        self.parents: dict[str, Any] = {}
        self.flushes = 0

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.context = context

    @hookimpl
    def trace_context(self) -> Callable[[], TraceContext | None]:
        return lambda: OUTER

    @hookimpl
    def export_counters(self, counters: Any) -> None:
        self.counters |= {counter.name: point.value for counter in counters for point in counter.points}

    @hookimpl
    def export_spans(self, spans: Any, timeout: float) -> None:
        self.parents |= {span.name: span.context.trace_id for span in spans}

    @hookimpl
    def flush(self, timeout: float) -> None:
        self.flushes += 1

    @hookimpl
    def shutdown(self, timeout: float) -> None: ...
