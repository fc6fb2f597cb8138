"""The hooks of an exporter. Every hook is optional, and so is every argument of a hook.

An exporter is an object whose methods are marked with ``hookimpl``. The hooks that it implements
say what it can export:

>>> class PrintTotals:
...     @hookimpl
...     def export_counters(self, counters):
...         for counter in counters:
...             for point in counter.points:
...                 print(counter.name, dict(point.labels), point.value)

A ``def`` hook runs in the worker thread of the exporter's pipeline, and may block. An ``async def``
hook runs on an event loop that the pipeline keeps for this exporter from ``start`` to ``shutdown``.
Hooks of one exporter are called one at a time; only ``shutdown`` may come while another hook runs.

A *cycle* is the export hooks of one signal (metrics or spans), each called several times with a
small chunk, then ``flush``. The points of one instrument may be spread over consecutive chunks. The
cycle is committed when ``flush`` returns. Without a ``flush`` hook the export hooks deliver
themselves: then each chunk of spans is committed when ``export_spans`` returns. A hook that raises
says that nothing of the uncommitted data was delivered: the pipeline sends the same spans, or newly
collected metrics, in a new cycle later.
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
"""Marks a method as the implementation of the hook of its name.

``@hookimpl(specname="flush")`` implements a hook by a method of another name.
``@hookimpl(optionalhook=True)`` implements a hook that only a newer version of core has; an older
one ignores it.
"""


def _spec(function: _F) -> _F:
    return _hookspec(firstresult=True)(function)


class ExporterHooks:
    """The specification that exporters are checked against when they are registered.

    In every hook, ``timeout`` is the number of seconds that the hook may take. An ``async def``
    hook is cancelled then. A ``def`` hook cannot be cancelled: its exporter is ``stalled`` until
    the hook returns, and no other hook is called meanwhile.

    The export hooks and ``flush`` return ``None`` when the data was taken, or ``Rejected`` when the
    backend refused part of it for good. They raise ``RetryLater``, or any other exception, when
    nothing was delivered.
    """

    @_spec
    def start(self, context: ExporterContext) -> None:
        """Open connections and start listening. It is the first hook; ``__init__`` only keeps
        settings.

        After an exception the exporter is ``failing``, and ``start`` is called again after a
        backoff, until it returns or the exporter is stopped.

        Args:
            context: the exporter's name, logger and resource, and how to ask for a cycle.
        """

    @_spec
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Rejected | None:
        """Take totals, which only grow since the ``start_time_ns`` of their point."""

    @_spec
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> Rejected | None:
        """Take current values. Up-down counters come as gauges whose ``additive`` is true."""

    @_spec
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> Rejected | None:
        """Take distributions since the ``start_time_ns`` of their point. Bucket counts are not cumulative over buckets."""

    @_spec
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Rejected | None:
        """Take ended spans."""

    @_spec
    def flush(self, timeout: float) -> Rejected | None:
        """End a cycle: deliver what the export hooks were given. The cycle is committed when this returns."""

    @_spec
    def shutdown(self, timeout: float) -> None:
        """Close connections and stop listening.

        Called after the last delivery, and only if ``start`` has succeeded. When another hook does
        not return in time, ``shutdown`` is called while that hook runs, so that it can close the
        connection which the hook waits for; and once more when the hook has returned.
        ``context.stopping`` is set before.
        """

    @_spec
    def trace_context(self) -> Callable[[], TraceContext | None] | None:
        """Return a callable that gives the current trace context of another tracing system, or
        ``None``. Called after ``start``.

        The callable is called whenever a span begins, in the task or thread that begins it. It must
        take about a microsecond and do no I/O; it returns ``None`` when no context is current.
        After an exception it is not called again.
        """


class Exporter:
    """An optional base class with typed stubs of the hooks. None of its methods is a hook by
    itself.

    Override the hooks that your backend can take, with all their arguments, and mark each with
    ``hookimpl``:

    >>> class SpanNames(Exporter):
    ...     @hookimpl
    ...     def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
    ...         print(*(span.name for span in spans))

    Attributes:
        interval: seconds between metrics cycles, greater than 0. ``None`` declares a pull exporter,
            whose metrics are exported only when it asks by ``context.export_now()``.
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
