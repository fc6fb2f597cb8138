"""The summary: what was done according to each source, and whether the sources agree."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from eventcore.telemetry import ExporterReport
from examples.flights.collector import Received
from examples.flights.readings import Readings
from examples.flights.replay import REJECTIONS
from examples.flights.scrape import Page
from examples.flights.tables import duration
from examples.flights.whereabouts import Picture

__all__ = ["Check", "Evidence", "Summary", "summarize"]


class Check(msgspec.Struct, frozen=True):
    """A condition, whether it holds, and the numbers found."""

    name: str
    passed: bool
    found: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What each source says about the run. A text in place of a value says why there is none.

    Attributes:
        seconds: how long the replay ran.
        issued: commands passed to the store.
        failure: the error that ended the replay; empty when there is none.
        events: the number of new events by type, counted by reading the store.
        head: by how much the head position has grown.
        readings: a collection of eventcore's metrics.
        page: the scraped metrics.
        projected: the read model that the projection has written.
        picture: the same read model, computed from all events of the store.
        exporters: the report of each exporter at its end.
        failed_exporters: the exporters that could not be loaded, with the reason.
        received: what the collector has logged.
        unsampled: the number of traces that were not sampled.
    """

    seconds: float
    issued: int
    failure: str
    events: Mapping[str, int]
    head: int
    readings: Readings
    page: Page | str
    projected: Picture | str
    picture: Picture
    exporters: tuple[ExporterReport, ...]
    failed_exporters: Mapping[str, str]
    received: Received | str
    unsampled: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What is printed at the end, as text or as JSON."""

    seconds: float
    commands: int
    outcomes: dict[str, int]
    rejections: dict[str, int]
    conflicts: dict[str, int]
    latency: dict[str, float | None]
    events: dict[str, int]
    series_scraped: int | None
    projection: dict[str, int | str]
    exporters: dict[str, dict[str, Any]]
    collector: Received | str
    traces_unsampled: int
    checks: list[Check]
    interrupted: bool = False

    @property
    def agreed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> str:
        return json.dumps(msgspec.to_builtins(self) | {"ok": self.agreed}, indent=2)

    def print(self, console: Console) -> None:
        """Print it as text, with a tick or a cross for each check."""
        console.print()
        rate = self.commands / self.seconds if self.seconds else 0.0
        lines = {
            "commands": f"{self.commands:,} in {self.seconds:.1f} s, {rate:,.0f}/s: {_listed(self.outcomes)}",
            "refused": _listed(self.rejections) or "none",
            "conflicts": _listed(self.conflicts) or "none",
            "latency": ", ".join(f"{name} {duration(value)}" for name, value in self.latency.items()),
            "events stored": f"{sum(self.events.values()):,}: {_listed(self.events)}",
            "series scraped": f"{self.series_scraped:,}" if self.series_scraped is not None else "none",
            "projection": ", ".join(f"{name} {value}" for name, value in self.projection.items()),
        }
        for name, account in self.exporters.items():
            dropped = _listed(account["spans_dropped"]) or "none"
            spans = f"spans {account['spans_recorded']:,} recorded, {account['spans_exported']:,} exported, dropped: {dropped}"
            points = f"{account['points_exported']:,} metric points"
            lines[name] = f"{spans}; {points}" if account["takes_spans"] else points
        if isinstance(self.collector, Received):
            got = self.collector
            spans = f"{got.spans:,} spans in {got.span_requests:,} calls"
            lines["collector"] = f"logged {spans}, {got.metrics:,} metrics in {got.metric_requests:,}"
        else:
            lines["collector"] = f"none: {self.collector}"
        lines["not sampled"] = f"{self.traces_unsampled:,} traces"
        for name, line in lines.items():
            console.print(Text.assemble((f"{name:>15}  ", "bold"), line), soft_wrap=True)
        console.print()
        for check in self.checks:
            sign, colour = ("✓", "green") if check.passed else ("✗", "bold red")
            console.print(Text.assemble((sign, colour), f" {check.name}: {check.found}"), soft_wrap=True)


def summarize(evidence: Evidence, *, interrupted: bool) -> Summary:
    """Compare the sources."""
    readings = evidence.readings
    latency = readings.distribution("eventcore.commands.duration")
    return Summary(
        seconds=round(evidence.seconds, 3),
        commands=readings.total("eventcore.commands.total"),
        outcomes=_flat(readings.by("eventcore.commands.total", "outcome")),
        rejections=_flat(readings.by(REJECTIONS, "reason")),
        conflicts=_flat(readings.by("eventcore.commands.conflicts", "resolution")),
        latency={f"p{share * 100:.0f}": latency.quantile(share) for share in (0.5, 0.95, 0.99)},
        events=dict(evidence.events),
        series_scraped=evidence.page.series if isinstance(evidence.page, Page) else None,
        projection={
            "whereabouts": str(evidence.projected),
            "events applied": readings.total("eventcore.projections.events", {"outcome": "applied"}),
            "lag": _listed(_flat(readings.by("eventcore.projections.lag", "projection"))) or "0",
        },
        exporters={report.name: _account(report) for report in evidence.exporters},
        collector=evidence.received,
        traces_unsampled=evidence.unsampled,
        checks=list(_checks(evidence)),
        interrupted=interrupted,
    )


def _checks(evidence: Evidence) -> Iterator[Check]:
    readings = evidence.readings
    outcomes = readings.by("eventcore.commands.total", "outcome")
    commands, issued = outcomes.total(), evidence.issued
    failed = outcomes["error",] + outcomes["cancelled",] + outcomes["conflict",]
    written = _flat(readings.by("eventcore.events.written", "event.type"))
    stored = sum(evidence.events.values())
    rejected, by_rule = outcomes["rejected",], readings.total(REJECTIONS)

    yield _equal("commands issued = commands counted", issued, commands, more=issued > 0)
    yield Check("no command failed", not failed and not evidence.failure, evidence.failure or f"{failed} did")
    yield _equal("rejections by rule = commands rejected", by_rule, rejected)
    yield _equal(
        "events counted, by type = events in the store", sum(written.values()), stored, more=written == evidence.events
    )
    yield _equal("positions added = events in the store: no gaps", evidence.head, stored)
    yield Check("read model = fold over all events", evidence.projected == evidence.picture, str(evidence.projected))
    yield from _scraped(evidence)
    for report in evidence.exporters:
        if _takes_spans(report):
            dropped = sum(report.spans_dropped.values())
            account = f"{report.spans_recorded:,} = {report.spans_exported:,} + {dropped:,} + {report.spans_pending:,} pending"
            why = f" ({_listed(report.spans_dropped)})" if dropped else ""
            balanced = report.spans_recorded == report.spans_exported + dropped and not report.spans_pending
            yield Check(f"{report.name}: spans recorded = exported + dropped", balanced, account + why)
    for name, reason in evidence.failed_exporters.items():
        yield Check(f"{name} is loaded", False, reason)
    yield from _collected(evidence)


def _scraped(evidence: Evidence) -> Iterator[Check]:
    page, readings = evidence.page, evidence.readings
    if isinstance(page, str):
        yield Check("metrics can be scraped", False, page)
        return
    for name, exposed, label in (
        ("eventcore.commands.total", "eventcore_commands_total", "outcome"),
        ("eventcore.events.written", "eventcore_events_written_total", "event.type"),
    ):
        counted, scraped = readings.by(name, label), page.by(exposed, label.replace(".", "_"))
        yield _equal(f"{exposed}, by {label}: counted = scraped", counted.total(), scraped.total(), more=counted == scraped)
    durations = readings.distribution("eventcore.commands.duration").count
    scraped_durations = page.by("eventcore_command_duration_seconds_count").total()
    yield _equal("eventcore_command_duration_seconds: counted = scraped", durations, scraped_durations)


def _collected(evidence: Evidence) -> Iterator[Check]:
    received = evidence.received
    if isinstance(received, str):
        return
    report = next((report for report in evidence.exporters if report.name == "otel"), None)
    if report is None:
        yield Check("spans exported = spans that the collector logged", False, "there is no exporter otel")
        return
    spans = report.spans_exported
    yield _equal(
        "spans exported = spans that the collector logged", spans, received.spans, more=spans > 0 or not evidence.issued
    )
    confirmed = report.delivered and report.points_exported > 0 and not report.points_rejected and received.metric_requests > 0
    points = (
        f"{report.points_exported:,} points, {report.points_rejected:,} rejected, {received.metric_requests:,} calls logged"
    )
    yield Check("metric points are confirmed", confirmed, f"{points}{f'; {report.reason}' if report.reason else ''}")


def _equal(name: str, one: int, other: int, *, more: bool = True) -> Check:
    passed = one == other and more
    detail = f"{one:,} = {other:,}" if one == other else f"{one:,} and {other:,}"
    return Check(name, passed, detail if passed or one != other else f"{detail} in all, yet not each")


def _account(report: ExporterReport) -> dict[str, Any]:
    return {**msgspec.to_builtins(report), "takes_spans": _takes_spans(report)}


def _takes_spans(report: ExporterReport) -> bool:
    return report.spans_recorded > 0


def _flat(parts: Mapping[tuple[str, ...], int]) -> dict[str, int]:
    return {name: count for (name,), count in sorted(parts.items(), key=lambda part: -part[1])}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
