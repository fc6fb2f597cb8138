"""What a command costs more when an exporter connects another tracing system (``ambient_context``)."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from functools import partial
from statistics import median
from time import thread_time
from typing import Final, final

from benchmarks.measuring import Effort, Series, in_turns
from benchmarks.results import Row, Table, Target
from benchmarks.workload import add_item, order_streams
from eventcore import open_store
from eventcore.exporting import TraceContext, hookimpl
from eventcore.telemetry import Telemetry
from eventcore_otel.ambient import OpenTelemetryContext

__all__ = ["ambient_cost"]

_COMMANDS: Final = 2000
_WARM_UP: Final = 200
_TRACE: Final = TraceContext(1, 2, 1)
_CURRENT: Final[ContextVar[TraceContext | None]] = ContextVar("current", default=_TRACE)


@final
class PlainContext:
    """Keeps the current span in a context variable, and does nothing else, so that only the cost of eventcore is measured."""

    def current(self) -> TraceContext | None:
        """The span of the task."""
        return _CURRENT.get()

    def attach(self, context: TraceContext, own_io: bool) -> Token[TraceContext | None]:
        """Make a span current."""
        return _CURRENT.set(context)

    def detach(self, token: Token[TraceContext | None]) -> None:
        """Undo it."""
        _CURRENT.reset(token)


@final
class ConnectingExporter:
    """Takes no more than another exporter, and connects a tracing system."""

    interval = 1.0

    def __init__(self, ambient: object | None) -> None:
        self._ambient = ambient

    @hookimpl
    def ambient_context(self) -> object | None:
        """The other tracing system."""
        return self._ambient

    @hookimpl
    def export_spans(self, spans: object) -> None:
        """Take spans."""


def ambient_cost(effort: Effort) -> Table:
    """Commands in memory, one after the other: without another tracing system, with a plain one, and with OpenTelemetry."""
    rounds = 7 if effort.quick else 21
    systems = {"none": None, "plain": PlainContext(), "OpenTelemetry": OpenTelemetryContext()}
    measured = in_turns({name: partial(_turn, system) for name, system in systems.items()}, rounds)
    none = measured["none"]
    rows = [_row(name, measured[name], none) for name in systems]
    return Table(
        "A command with another tracing system: processor time",
        ("one command", "more than without"),
        tuple(rows),
        notes=(
            "Memory store, every trace recorded, one exporter that takes spans. Processor time of the event loop's thread, the "
            "median of the rounds; the difference is the median of the differences of each round.",
            "plain: a context variable, so what it costs is eventcore's own part. OpenTelemetry: what eventcore-otel connects; "
            "most of it is the time of OpenTelemetry's own context.",
        ),
    )


def _turn(system: object | None) -> float:
    telemetry = Telemetry(config={}, exporters=[], traces_per_second="all")
    telemetry.register_exporter(ConnectingExporter(system), name="connecting")
    if not telemetry.flush_blocking(5.0):
        raise RuntimeError("the exporter did not start")
    try:
        return asyncio.run(_commands(telemetry))
    finally:
        telemetry.shutdown_blocking(5.0)


async def _commands(telemetry: Telemetry) -> float:
    next_stream = order_streams()
    async with open_store("memory:", telemetry=telemetry) as store:
        for _ in range(_WARM_UP):
            await store.execute(add_item(next_stream()))
        begun = thread_time()
        for _ in range(_COMMANDS):
            await store.execute(add_item(next_stream()))
        return (thread_time() - begun) / _COMMANDS


def _row(name: str, series: Series, none: Series) -> Row:
    more = median(mine - theirs for mine, theirs in zip(series.values, none.values, strict=True))
    targets = () if series is none else (Target("µs more", more * 1e6, 3.0),)
    return Row(
        name,
        (f"{series.median * 1e6:.1f} µs ± {series.spread:.0%}", "–" if series is none else f"{more * 1e6:+.1f} µs"),
        {"seconds": series.median, "more": more},
        targets,
    )
