"""Shows one moment of the replay as tables or as one line."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from eventcore.telemetry import AbsentExporter, FailedExporter, Pipeline
from examples.flights.readings import Distribution, Readings
from examples.flights.replay import REJECTIONS

__all__ = ["Frame", "duration", "status_line", "tables"]

_COLOURS: Final = {"running": "green", "failing": "yellow", "stalled": "red", "stopped": "dim"}
_FAULTS: Final = {"conflict": "yellow", "error": "bold red", "cancelled": "bold red"}
_QUANTILES: Final = (0.5, 0.95, 0.99)


class Frame(msgspec.Struct, frozen=True):
    """The numbers of one moment.

    Attributes:
        elapsed: seconds since the replay began.
        clock: the time in the data.
        now: the metrics now.
        earlier: the metrics ``window`` seconds ago, to compute rates.
        window: seconds between ``earlier`` and ``now``.
        exporters: the exporters, without those that have failed to load.
        failed: the exporters that could not be loaded.
    """

    elapsed: float
    clock: datetime | None
    now: Readings
    earlier: Readings
    window: float
    exporters: Sequence[Pipeline | AbsentExporter]
    failed: Sequence[FailedExporter]

    def rate(self, name: str, where: dict[str, str] | None = None) -> float:
        """The growth of a counter per second."""
        return self.growth(name, where) / self.window if self.window else 0.0

    def growth(self, name: str, where: dict[str, str] | None = None) -> int:
        """The growth of a counter in the window."""
        return self.now.total(name, where) - self.earlier.total(name, where)

    def latency(self, where: dict[str, str] | None = None) -> Distribution:
        """The durations of the commands that ended in the window."""
        return self.recent("eventcore.commands.duration", where)

    def recent(self, name: str, where: dict[str, str] | None = None) -> Distribution:
        """The values of a histogram that were recorded in the window."""
        return self.now.distribution(name, where).since(self.earlier.distribution(name, where))


def duration(seconds: float | None) -> str:
    """A duration with three digits.

    >>> duration(0.01234)
    '12.3ms'
    """
    if seconds is None:
        return "-"
    value, unit = (seconds, "s") if seconds >= 1 else (seconds * 1e3, "ms") if seconds >= 1e-3 else (seconds * 1e6, "µs")
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}{unit}"


def status_line(frame: Frame) -> str:
    """The most important numbers in one line."""
    now = frame.now
    outcomes = {outcome: count for (outcome,), count in now.by("eventcore.commands.total", "outcome").items()}
    latency = frame.latency()
    exporters = [f"{failed.name} failed" for failed in frame.failed]
    for pipeline in frame.exporters:
        spans = pipeline.stats().spans
        counts = f" {spans.exported}/{spans.recorded} spans, {sum(spans.dropped.values())} dropped" if spans else ""
        exporters.append(f"{pipeline.name} {pipeline.state}{counts}")
    parts = [
        f"{frame.elapsed:5.1f} s",
        _clock(frame),
        f"{sum(outcomes.values())} commands",
        f"{frame.rate('eventcore.commands.total'):.0f}/s",
        *(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())),
        " ".join(f"p{quantile * 100:.0f} {duration(latency.quantile(quantile))}" for quantile in _QUANTILES),
        f"{now.total('eventcore.commands.conflicts')} conflicts",
        f"{now.total('eventcore.events.written')} events",
        *(f"{name} {_state(frame, name)} lag {_known(frame, 'lag', name)}" for name in _projected(frame)),
        *exporters,
    ]
    return " | ".join(parts)


def tables(frame: Frame) -> RenderableType:
    """All numbers, for a terminal."""
    title = Text.assemble(("New York's flights", "bold"), f"  {_clock(frame)}  ", (f"{frame.elapsed:.0f} s", "dim"))
    details = Columns([_rules(frame), _conflicts(frame), _events(frame)], padding=(0, 2), expand=True)
    return Panel(
        Group(_commands(frame), "", details, "", _store(frame), "", _projections(frame), "", _exporters(frame)),
        title=title,
        title_align="left",
        border_style="blue",
    )


def _clock(frame: Frame) -> str:
    return f"{frame.clock:%Y-%m-%d %H:%M} UTC" if frame.clock is not None else "-"


def _table(*columns: str, left: int = 1) -> Table:
    # Without padding, so that all tables together fit a terminal of 80 columns; on a wider one they use its width.
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style="bold cyan", expand=True)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    return table


def _commands(frame: Frame) -> Table:
    total = "eventcore.commands.total"
    shown = ["committed", "rejected", "conflict", "error"]
    # These outcomes are rare. Each gets a column only when it has occurred.
    shown[1:1] = [outcome for outcome in ("no_events", "cancelled") if frame.now.total(total, {"outcome": outcome})]
    table = _table("command", "per s", *shown, *(f"p{quantile * 100:.0f}" for quantile in _QUANTILES))
    types = sorted(command for (command,) in frame.now.by(total, "command.type"))
    rows: list[tuple[str, dict[str, str]]] = [(command, {"command.type": command}) for command in types]
    for name, where in [*rows, ("all", dict[str, str]())]:
        outcomes = {outcome: count for (outcome,), count in frame.now.by(total, "outcome", where=where).items()}
        latency = frame.latency(where)
        table.add_row(
            name,
            f"{frame.rate(total, where):,.0f}",
            *(
                Text(f"{outcomes.get(outcome, 0):,}", _FAULTS.get(outcome, "") if outcomes.get(outcome) else "")
                for outcome in shown
            ),
            *(duration(latency.quantile(quantile)) for quantile in _QUANTILES),
            style="bold" if name == "all" else "",
        )
    return table


def _rules(frame: Frame) -> Table:
    reasons = ((reason, count) for (reason,), count in frame.now.by(REJECTIONS, "reason").most_common())
    return _counts("refused, by rule", reasons)


def _conflicts(frame: Frame) -> Table:
    known = frame.now.by("eventcore.commands.conflicts", "resolution")
    counts = [(resolution, known[resolution,]) for resolution in ("chained", "absorbed", "escaped")]
    return _counts("conflicts", [*counts, ("retries", frame.now.total("eventcore.commands.retries"))])


def _events(frame: Frame) -> Table:
    written = frame.now.by("eventcore.events.written", "event.type").most_common()
    rate = round(frame.rate("eventcore.events.written"))
    return _counts("events", [*((event, count) for (event,), count in written), ("per second", rate)])


def _counts(title: str, counts: Iterable[tuple[str, int]]) -> Table:
    table = _table(title, "")
    for name, count in counts:
        table.add_row(name, f"{count:,}")
    if not table.row_count:
        table.add_row("none", "")
    return table


def _store(frame: Frame) -> Table:
    """The database: how long an append takes, how many commands it carries, and how full the pool is."""
    table = _table("store", "append p50", "append p95", "commands per append", "pool", "size")
    appends = frame.recent("eventcore.store.operation.duration", {"operation": "append"})
    batches = frame.recent("eventcore.store.append.batch")
    known = frame.now.by("eventcore.store.pool.connections", "state")
    limit = frame.now.value("eventcore.store.pool.limit", {})
    size = frame.now.value("eventcore.store.size", {})
    mean = frame.growth("eventcore.commands.total") / batches.count if batches.count else None
    systems = [system for (system,) in frame.now.by("eventcore.info", "db.system.name")]
    table.add_row(
        ", ".join(systems) or "-",
        *(duration(appends.quantile(quantile)) for quantile in (0.5, 0.95)),
        "-" if mean is None else f"{mean:,.1f}",
        "-" if limit is None else f"{known['used',]} of {limit:,.0f} used",
        "-" if size is None else f"{size / 1e6:,.0f} MB",
    )
    return table


def _projections(frame: Frame) -> Table:
    table = _table("projection", "state", "position", "lag", "behind", "applied", "per s", left=2)
    for name in _projected(frame):
        where = {"projection": name, "outcome": "applied"}
        behind = frame.now.value("eventcore.projections.lag.time", {"projection": name})
        table.add_row(
            name,
            Text(state := _state(frame, name), _COLOURS.get(state, "yellow")),
            _known(frame, "position", name),
            _known(frame, "lag", name),
            duration(behind) if behind else "-",
            f"{frame.now.total('eventcore.projections.events', where):,}",
            f"{frame.rate('eventcore.projections.events', where):,.0f}",
        )
    return table


def _projected(frame: Frame) -> list[str]:
    return sorted({name for (name,) in frame.now.by("eventcore.projections.state", "projection")})


def _state(frame: Frame, name: str) -> str:
    states = frame.now.by("eventcore.projections.state", "state", where={"projection": name})
    return next((state for (state,), one in states.items() if one), "-")


def _known(frame: Frame, what: str, name: str) -> str:
    """A number of a projection, or a dash when it is unknown."""
    value = frame.now.value(f"eventcore.projections.{what}", {"projection": name})
    return "-" if value is None else f"{value:,.0f}"


def _exporters(frame: Frame) -> Group:
    table = _table("exporter", "state", "spans", "exported", "dropped", "pending", "points", "cycles", "cpu", left=2)
    problems = [Text(f"{failed.name} failed: {failed.reason}", "red", no_wrap=True) for failed in frame.failed]
    for pipeline in frame.exporters:
        stats, state = pipeline.stats(), pipeline.state
        spans, metrics = stats.spans, stats.cycles.get("metrics")
        account = [spans.recorded, spans.exported, sum(spans.dropped.values()), spans.pending] if spans is not None else []
        cycles = list(stats.cycles.values())
        good = sum(cycle.counts["ok"] for cycle in cycles)
        table.add_row(
            pipeline.name,
            Text(state, _COLOURS[state]),
            *([f"{count:,}" for count in account] or ["-"] * 4),
            f"{metrics.points_exported:,}" if metrics is not None else "-",
            # Cycles that succeeded / cycles that were retried or failed.
            f"{good:,}/{sum(sum(cycle.counts.values()) for cycle in cycles) - good:,}",
            duration(stats.cpu_seconds),
        )
        if pipeline.problem:
            problems.append(Text(f"{pipeline.name}: {pipeline.problem}", "yellow", no_wrap=True, overflow="ellipsis"))
    return Group(table, *problems)
