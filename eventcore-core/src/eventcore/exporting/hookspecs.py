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

A *cycle* exports one signal, ``"metrics"`` or ``"spans"``: first ``begin(signal, attempt)``, then
the export hooks of that signal, each called several times with a small chunk, then ``flush(signal,
timeout)``. Cycles never overlap: no hook of the other signal is called between ``begin`` and the end
of the cycle. The points of one instrument may be spread over consecutive chunks.

The cycle is committed when ``flush`` returns. Without a ``flush`` hook the export hooks deliver
themselves: then each chunk of spans is committed when ``export_spans`` returns. A hook that raises
says that nothing of the uncommitted data was delivered: the pipeline sends the same spans, or newly
collected metrics, in a new cycle later. A cycle may also end between two hooks, because its time is
used up. No hook is called then. So drop in ``begin`` what you still hold of that signal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

import pluggy

from eventcore.exporting.context import AmbientContext, ExporterContext, Rejected, Signal, Temporality
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import CounterData, GaugeData, HistogramData, SpanData

PROJECT: Final = "eventcore"

CONTRACT_VERSION: Final = 2
"""The version of this specification. It grows when a hook or an argument is added or renamed."""

RENAMED_HOOKS: Final[Mapping[str, str]] = MappingProxyType({"trace_context": "ambient_context"})
"""Hooks of older versions that still work, each with the hook that took its place."""

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
    nothing was delivered, and ``GiveUp`` when the backend will never take it.
    """

    @_spec
    def start(self, context: ExporterContext) -> None:
        """Open connections and start listening. It is the first hook, called once in each process,
        also in a forked child; ``__init__`` only keeps settings.

        After an exception the exporter is ``failing``, and ``start`` is called again after a
        backoff, until it returns or the exporter is stopped.

        Args:
            context: the exporter's name, logger and resource, and how to ask for a cycle.
        """

    @_spec
    def begin(self, signal: Signal, attempt: int) -> None:
        """A cycle begins. Drop what you hold of this signal: the cycle brings it again.

        Args:
            signal: ``"metrics"`` or ``"spans"``.
            attempt: 1 for new data. For spans that an earlier cycle has failed to deliver, and for
                metrics after failed cycles: how many cycles this one makes in a row.
        """

    @_spec
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Rejected | None:
        """Take totals, which only grow since the ``start_time_ns`` of their point; where the
        ``temporality`` of the data is ``"delta"``, what was added between ``start_time_ns`` and ``time_ns``.
        """

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
    def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        """End the cycle of ``signal``: deliver what the export hooks were given since ``begin``. The
        cycle is committed when this returns.
        """

    @_spec
    def shutdown(self, timeout: float) -> None:
        """Close connections and stop listening.

        Called after the last delivery, also after a ``start`` that raised halfway: close what it has
        opened. When another hook does not return in time, ``shutdown`` is called while that hook runs, so that it can close the
        connection which the hook waits for; and once more when the hook has returned.
        ``context.stopping`` is set before.
        """

    @_spec
    def ambient_context(self) -> AmbientContext | Callable[[], TraceContext | None] | None:
        """Connect another tracing system: return an object with ``current()``, ``attach(context,
        own_io)`` and ``detach(token)``, or ``None``. Asked once, after ``start``.

        A plain callable counts as ``current``: eventcore's spans then become children of the other
        system's, but not the other way round. A further method ``in_use() -> bool`` may say that
        ``attach`` would do nothing, here and now; it spares the call. An answer that is no
        ``TraceContext``, and whatever they raise, is ignored, logged once, and shown in the
        exporter's state.
        """

    @_spec
    def trace_context(self) -> Callable[[], TraceContext | None] | None:
        """The older name of ``ambient_context``, which returned a callable or ``None``. It still
        works.
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
        signals: which of ``"metrics"`` and ``"spans"`` it can take, for an exporter whose settings
            decide this. A signal without its hooks is never exported.
        temporality: ``"cumulative"``: counters and histograms are totals since their series began.
            ``"delta"``: they are what was added since the last committed cycle; series to which
            nothing was added are left out; a histogram has no ``min`` and ``max``. ``"lowmemory"``:
            the same, but counters whose totals a callback gives stay cumulative.
        pipeline_defaults: values for keys of ``[exporters.NAME.pipeline]`` that the configuration
            leaves out.
    """

    interval: float | None = 10.0
    signals: Sequence[Signal] = ("metrics", "spans")
    temporality: Temporality = "cumulative"
    pipeline_defaults: Mapping[str, Any] = MappingProxyType({})

    def start(self, context: ExporterContext) -> Any:
        """See ``ExporterHooks.start``."""

    def begin(self, signal: Signal, attempt: int) -> Any:
        """See ``ExporterHooks.begin``."""

    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Any:
        """See ``ExporterHooks.export_counters``."""

    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> Any:
        """See ``ExporterHooks.export_gauges``."""

    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> Any:
        """See ``ExporterHooks.export_histograms``."""

    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Any:
        """See ``ExporterHooks.export_spans``."""

    def flush(self, signal: Signal, timeout: float) -> Any:
        """See ``ExporterHooks.flush``."""

    def shutdown(self, timeout: float) -> Any:
        """See ``ExporterHooks.shutdown``."""

    def ambient_context(self) -> Any:
        """See ``ExporterHooks.ambient_context``."""
