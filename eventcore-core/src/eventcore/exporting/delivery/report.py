"""What ``flush`` and ``shutdown`` say: what was delivered, what was not and why, per exporter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, final

import msgspec

ExporterState: TypeAlias = Literal["running", "failing", "stalled", "stopped"]


@final
class ExporterReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one exporter's telemetry.

    Attributes:
        name: the exporter's name.
        state: how it was when the report was made.
        delivered: true when everything that was recorded before the call, and not dropped before it, has been delivered.
        spans_recorded: spans that were offered to the exporter since it was registered; the sum of the next four.
        spans_exported: of these, committed.
        spans_dropped: of these, dropped, by reason.
        spans_pending: of these, still waiting.
        spans_unknown: how many of the pending or dropped spans were in flight when time ran out: the backend may have them.
        points_exported: metric points committed since the exporter was registered.
        points_rejected: metric points that the backend refused.
        reason: why not everything was delivered; empty when it was.
    """

    name: str
    state: ExporterState
    delivered: bool
    spans_recorded: int = 0
    spans_exported: int = 0
    spans_dropped: Mapping[str, int] = {}
    spans_pending: int = 0
    spans_unknown: int = 0
    points_exported: int = 0
    points_rejected: int = 0
    reason: str = ""

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.spans_dropped.items() if count)
        parts = [
            f"{self.name}: {'delivered' if self.delivered else 'NOT delivered'} ({self.state})",
            f"spans {self.spans_recorded} = {self.spans_exported} exported + {sum(self.spans_dropped.values())} dropped"
            f"{f' ({dropped})' if dropped else ''} + {self.spans_pending} pending",
            f"points {self.points_exported} exported, {self.points_rejected} rejected",
        ]
        if self.spans_unknown:
            parts.append(f"{self.spans_unknown} spans were in flight: unknown")
        if self.reason:
            parts.append(self.reason)
        return "; ".join(parts)


@final
class Report(msgspec.Struct, frozen=True):
    """The answer of ``flush`` and ``shutdown``; ``bool(report)`` says whether every exporter delivered."""

    exporters: tuple[ExporterReport, ...] = ()

    @property
    def delivered(self) -> bool:
        """Whether every exporter has delivered everything; true without exporters."""
        return all(exporter.delivered for exporter in self.exporters)

    def __bool__(self) -> bool:
        return self.delivered

    def __getitem__(self, name: str) -> ExporterReport:
        for exporter in self.exporters:
            if exporter.name == name:
                return exporter
        raise KeyError(name)

    def __str__(self) -> str:
        return "\n".join(str(exporter) for exporter in self.exporters) or "no exporters"
