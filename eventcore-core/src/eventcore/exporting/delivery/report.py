"""The counters of a pipeline, and the report after a flush or a shutdown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.exporting.context import Signal
from eventcore.exporting.delivery.span_queue import SpanCounts
from eventcore.recording.cells import HistogramCell
from eventcore.recording.registry import SECONDS

CycleOutcome: TypeAlias = Literal["ok", "retried", "failed"]
ExporterState: TypeAlias = Literal["loading", "running", "failing", "stalled", "stopped", "failed"]
_OUTCOMES: Final[tuple[CycleOutcome, ...]] = ("ok", "retried", "failed")


@final
class CycleStats:
    """Counters of one signal's cycles. The worker thread writes them, any thread may read them.

    They are plain numbers, which the catalogue shows through callbacks: no layer below the
    catalogue records into it.

    Attributes:
        counts: cycles by outcome. ``retried``: failed, and the same data will be sent again.
            ``failed``: given up, or the backend rejected all of it.
        durations: how long cycles took, by outcome.
        failures_in_a_row: cycles that were not ``ok`` since the last one that was.
        last_error: why the last cycle was not ``ok``; empty when it was.
        given_up: why the exporter has given the signal up by ``GiveUp``, until a cycle succeeds.
        unsupported: whether it has, because the backend takes nothing of this signal.
        last_success: the ``time.monotonic`` of the last ``ok`` cycle.
        points_exported: metric points that the backend accepted.
        points_rejected: metric points that the backend refused.
    """

    def __init__(self) -> None:
        self.counts: dict[CycleOutcome, int] = dict.fromkeys(_OUTCOMES, 0)
        self.durations: dict[CycleOutcome, HistogramCell] = {outcome: HistogramCell(SECONDS) for outcome in _OUTCOMES}
        self.failures_in_a_row = 0
        self.last_error = ""
        self.given_up = ""
        self.unsupported = False
        self.last_success: float | None = None
        self.points_exported = 0
        self.points_rejected = 0

    def end(
        self,
        outcome: CycleOutcome,
        seconds: float,
        error: str = "",
        *,
        given_up: bool = False,
        unsupported: bool = False,
    ) -> None:
        """Count a cycle that has just ended."""
        self.counts[outcome] += 1
        self.durations[outcome].record(seconds)
        # Not under a lock: a reader may see the count before the error, which corrects itself.
        self.last_error = error
        self.given_up = error if given_up else ""
        self.unsupported = unsupported
        if outcome == "ok":
            self.failures_in_a_row = 0
            self.last_success = time.monotonic()
        else:
            self.failures_in_a_row += 1

    def last_success_age(self) -> float | None:
        """Seconds since the last ``ok`` cycle; ``None`` before the first one."""
        return None if self.last_success is None else time.monotonic() - self.last_success


@final
class PipelineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one pipeline.

    Attributes:
        spans: the account of spans; ``None`` when the exporter takes no spans.
        cycles: the counters of cycles, for each signal that the exporter takes.
        cpu_seconds: processor time that the exporter's hooks have used.
    """

    spans: SpanCounts | None
    cycles: Mapping[Signal, CycleStats]
    cpu_seconds: float


@final
class ExporterReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the telemetry that one exporter was to deliver.

    Attributes:
        name: the exporter's name.
        state: the exporter's state when the report was made.
        delivered: true when everything that was recorded before the call, and not dropped before
            it, has been delivered. A signal that the backend does not take at all does not count.
        spans_recorded: spans that were offered to the exporter since it was registered, or to one
            that it replaced. The sum of ``spans_exported``, all ``spans_dropped``, ``spans_unknown``
            and ``spans_pending``.
        spans_exported: spans that the exporter delivered.
        spans_dropped: spans that were dropped, by reason: ``queue_full``, ``budget``, ``rejected``,
            ``gave_up``, ``shutdown``.
        spans_unknown: spans that the backend may or may not have: a call with them was cut, and
            they are not sent again.
        spans_pending: spans that are not yet delivered and not dropped.
        points_exported: metric points that were delivered since the exporter was registered.
        points_rejected: metric points that the backend refused.
        reason: why not everything was delivered; empty when it was, unless the backend does not take
            one of the signals.
    """

    name: str
    state: ExporterState
    delivered: bool
    spans_recorded: int = 0
    spans_exported: int = 0
    spans_dropped: Mapping[str, int] = {}
    spans_unknown: int = 0
    spans_pending: int = 0
    points_exported: int = 0
    points_rejected: int = 0
    reason: str = ""

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.spans_dropped.items() if count)
        parts = [
            f"{self.name}: {'delivered' if self.delivered else 'NOT delivered'} ({self.state})",
            f"spans {self.spans_recorded} = {self.spans_exported} exported + {sum(self.spans_dropped.values())} dropped"
            f"{f' ({dropped})' if dropped else ''} + {self.spans_unknown} unknown + {self.spans_pending} pending",
            f"points {self.points_exported} exported, {self.points_rejected} rejected",
            self.reason,
        ]
        return "; ".join(filter(None, parts))


@final
class Report(msgspec.Struct, frozen=True):
    """The answer of ``flush`` and ``shutdown``, with one part for each exporter.

    ``bool(report)`` tells whether every exporter delivered everything, ``report["otel"]`` is the
    part of one exporter, and ``str(report)`` is one line for each.

    Attributes:
        exporters: one part for each exporter, also for those that the configuration enables and that
            do not run: their state is ``loading`` or ``failed``.
        problem: why nothing can be said of all exporters, such as a configuration that cannot be
            read; empty when nothing is wrong.

    >>> report = Report((ExporterReport(name="otel", state="running", delivered=True),))
    >>> bool(report), report["otel"].spans_pending
    (True, 0)
    """

    exporters: tuple[ExporterReport, ...] = ()
    problem: str = ""

    @property
    def delivered(self) -> bool:
        """Whether every exporter has delivered everything; true when no exporter is enabled."""
        return not self.problem and all(exporter.delivered for exporter in self.exporters)

    def __bool__(self) -> bool:
        return self.delivered

    def __getitem__(self, name: str) -> ExporterReport:
        return {exporter.name: exporter for exporter in self.exporters}[name]

    def __str__(self) -> str:
        lines = [*([f"NOT delivered: {self.problem}"] if self.problem else []), *map(str, self.exporters)]
        return "\n".join(lines) or "no exporters"
