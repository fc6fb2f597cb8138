"""What a pipeline counts about itself, as plain numbers; the catalogue shows them."""

from __future__ import annotations

import time
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.exporting.delivery.span_queue import SpanCounts
from eventcore.recording.cells import HistogramCell
from eventcore.recording.registry import SECONDS

Signal: TypeAlias = Literal["metrics", "spans"]
CycleOutcome: TypeAlias = Literal["ok", "retried", "failed"]
_OUTCOMES: Final[tuple[CycleOutcome, ...]] = ("ok", "retried", "failed")


class CycleStats:
    """The cycles of one signal: how many ended how, how long they took, when the last one succeeded."""

    def __init__(self) -> None:
        self.counts: dict[CycleOutcome, int] = dict.fromkeys(_OUTCOMES, 0)
        self.durations: dict[CycleOutcome, HistogramCell] = {outcome: HistogramCell(SECONDS) for outcome in _OUTCOMES}
        self.failures_in_a_row = 0
        # Attempts at the batch or collection that is being tried again.
        self.attempt = 0
        self.last_error = ""
        self.last_success: float | None = None
        self.points_exported = 0
        self.points_rejected = 0

    def end(self, outcome: CycleOutcome, seconds: float, error: str = "") -> None:
        """Count a cycle that ended now."""
        self.counts[outcome] += 1
        self.durations[outcome].record(seconds)
        self.last_error = error
        if outcome == "ok":
            self.failures_in_a_row = self.attempt = 0
            self.last_success = time.monotonic()
        else:
            self.failures_in_a_row += 1

    def last_success_age(self) -> float | None:
        """Seconds since a cycle succeeded, ``None`` when none has."""
        return None if self.last_success is None else time.monotonic() - self.last_success


@final
class PipelineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one pipeline at about one instant.

    Attributes:
        spans: the account of spans; ``None`` when the exporter takes none.
        cycles: per signal that the exporter takes, its cycles.
        cpu_seconds: processor time that the exporter's hooks used.
    """

    spans: SpanCounts | None
    cycles: dict[Signal, CycleStats]
    cpu_seconds: float
