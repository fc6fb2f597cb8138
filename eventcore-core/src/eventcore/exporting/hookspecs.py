"""The hooks of an exporter: every one is optional, and so is every argument.

A plugin is a class whose instances mark the hooks that they implement with ``hookimpl``; what it implements is what it can do:

>>> class PrintTotals:
...     @hookimpl
...     def export_counters(self, counters):
...         for counter in counters:
...             for point in counter.points:
...                 print(counter.name, dict(point.labels), point.value)

A hook is ``def`` (it runs in the pipeline's worker thread and may block) or ``async def`` (it runs on the pipeline's own event
loop). ``timeout`` is the number of seconds that the hook has left.

One *cycle* is the export hooks of one signal (metrics or spans), each called with small chunks, then ``flush``. It commits when
``flush`` has returned (a plugin without ``flush`` delivers in the export hooks themselves): an exception before that means that
nothing of the cycle was delivered, and the pipeline tries it again. The points of one instrument may be spread over consecutive
chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import pluggy

from eventcore.exporting.context import ExporterContext, Rejected
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import CounterData, GaugeData, HistogramData, SpanData

PROJECT: Final = "eventcore"

_F = TypeVar("_F", bound=Callable[..., Any])
_hookspec: Final = pluggy.HookspecMarker(PROJECT)

hookimpl: Final = pluggy.HookimplMarker(PROJECT)
"""Marks a method as the implementation of the hook of its name; ``@hookimpl(optionalhook=True)`` for hooks of a newer core."""


def _spec(function: _F) -> _F:
    return _hookspec(firstresult=True)(function)


class ExporterHooks:
    """The specification that exporters are checked against when they are registered."""

    @_spec
    def start(self, context: ExporterContext) -> None:
        """Open connections and start listening; ``__init__`` only keeps settings.

        Called once per process, and again in a forked child. After an exception the exporter is ``failing``, and ``start`` is
        tried again later.
        """

    @_spec
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Rejected | None:
        """Take totals since their start time."""

    @_spec
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> Rejected | None:
        """Take current values."""

    @_spec
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> Rejected | None:
        """Take distributions since their start time."""

    @_spec
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Rejected | None:
        """Take finished spans."""

    @_spec
    def flush(self, timeout: float) -> Rejected | None:
        """End a cycle: deliver what the export hooks were given. Returning commits the cycle."""

    @_spec
    def shutdown(self, timeout: float) -> None:
        """Let go of everything. May be called while an export hook runs, which should then return soon."""

    @_spec
    def trace_context(self) -> Callable[[], TraceContext | None] | None:
        """Give a callable that tells the ambient trace context of another tracing system, or ``None`` where there is none.

        Asked once, at start. The callable is called on the hot path, in the task that begins a span: a microsecond, no I/O.
        """


class Exporter:
    """A base class that one may inherit, so that a type checker knows the hooks; none of its methods is a hook by itself.

    Override the hooks that your backend can take and mark each with ``hookimpl``.

    Attributes:
        interval: seconds between metrics cycles; ``None`` declares a pull exporter, which asks for its cycles by
            ``context.export_now()``.
    """

    interval: float | None = 10.0

    def start(self, context: ExporterContext) -> Any:
        """See ``ExporterHooks.start``."""

    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Any:
        """See ``ExporterHooks.export_counters``."""

    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> Any:
        """See ``ExporterHooks.export_gauges``."""

    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> Any:
        """See ``ExporterHooks.export_histograms``."""

    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Any:
        """See ``ExporterHooks.export_spans``."""

    def flush(self, timeout: float) -> Any:
        """See ``ExporterHooks.flush``."""

    def shutdown(self, timeout: float) -> Any:
        """See ``ExporterHooks.shutdown``."""

    def trace_context(self) -> Any:
        """See ``ExporterHooks.trace_context``."""
