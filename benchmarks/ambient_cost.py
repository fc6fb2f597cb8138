"""What a command costs more when an exporter connects another tracing system (``ambient_context``)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from statistics import median
from time import thread_time
from typing import Final, final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from benchmarks.measuring import Effort, Series, announce
from benchmarks.results import Row, Table, Target
from benchmarks.workload import add_item, order_streams
from eventcore import EventStore, StreamId, open_store
from eventcore.exporting import TraceContext, hookimpl
from eventcore.exporting.ambient import GuardedAmbient
from eventcore.telemetry import Telemetry
from eventcore_otel.ambient import OpenTelemetryContext

__all__ = ["ambient_cost"]

_COMMANDS: Final = 20
_CURRENT: Final[ContextVar[TraceContext | None]] = ContextVar("current", default=None)


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
class SpanExporter:
    """Takes spans, and does nothing with them."""

    interval = 1.0

    @hookimpl
    def export_spans(self, spans: object) -> None:
        """Take spans."""


def ambient_cost(effort: Effort) -> Table:
    """Commands in memory, one after the other: without another tracing system, with a plain one, and with OpenTelemetry."""
    systems: dict[str, object | None] = {
        "none": None,
        "none, again": None,
        "plain": PlainContext(),
        "OpenTelemetry, not in use": OpenTelemetryContext(),
        "none, in requests": None,
        "plain, in requests": PlainContext(),
        "OpenTelemetry, in requests": OpenTelemetryContext(always=True),
    }
    measured = asyncio.run(_measured(systems, 300 if effort.quick else 1500))
    rows = [
        _row(name, measured[name], measured["none, in requests" if name.endswith("in requests") else "none"])
        for name in systems
    ]
    return Table(
        "A command with another tracing system: processor time",
        ("one command", "more than without"),
        tuple(rows),
        notes=(
            "Memory store, every trace recorded, one exporter that takes spans. Processor time of the event loop's thread, the "
            f"median of the rounds of {_COMMANDS} commands; the difference is the median of the differences of each round.",
            "none, again: the same as none, so what it differs by is the error of these figures.",
            "plain: a context variable, so what it costs is eventcore's own part. OpenTelemetry: what eventcore-otel connects.",
            "in requests: each command has another current span of that system around it, as a request has, which becomes its "
            "parent. To make that span current is part of the figure of every row, also of `none`.",
        ),
    )


async def _measured(systems: Mapping[str, object | None], rounds: int) -> dict[str, Series]:
    """Short turns of each system, in one event loop that never stops: noise that comes and goes affects all of them.

    And in one store, whose telemetry gets another system before each turn: of two stores that are the same, the one that was
    opened later takes 3 to 5 µs longer for a command.
    """
    values: dict[str, list[float]] = {name: [] for name in systems}
    telemetry = Telemetry(config={}, exporters=[], traces_per_second="all")
    telemetry.register_exporter(SpanExporter(), name="spans")
    if not await telemetry.flush(5.0):
        raise RuntimeError("the exporter did not start")
    logger = logging.getLogger(__name__)
    connected = {name: () if system is None else (GuardedAmbient(system, logger),) for name, system in systems.items()}
    try:
        async with open_store("memory:", telemetry=telemetry) as store:
            order, next_stream, shuffle = list(systems), order_streams(), random.Random(1).shuffle
            announce(f"  {rounds} rounds of {_COMMANDS} commands of each")
            for _ in range(rounds):
                # Not in a circle: what a turn leaves behind would always meet the same system.
                shuffle(order)
                for name in order:
                    # As the exporters' manager does when an exporter has started.
                    tracer, system = telemetry._tracer, connected[name]
                    tracer.ambient = tracer.ring.attached = system
                    tracer.ring.only = system[0] if system else None
                    commands = _in_requests if name.endswith("in requests") else _alone
                    values[name].append(await commands(store, next_stream))
    finally:
        await telemetry.shutdown(5.0)
    return {name: Series(name, kept[rounds // 10 :]) for name, kept in values.items()}


async def _alone(store: EventStore, next_stream: Callable[[], StreamId]) -> float:
    begun = thread_time()
    for _ in range(_COMMANDS):
        await store.execute(add_item(next_stream()))
    return (thread_time() - begun) / _COMMANDS


async def _in_requests(store: EventStore, next_stream: Callable[[], StreamId]) -> float:
    # Made before: what a span of a request costs is not the matter.
    requests = [_request(number) for number in range(1, _COMMANDS + 1)]
    begun = thread_time()
    for ours, theirs in requests:
        plain, attached = _CURRENT.set(ours), otel_context.attach(theirs)
        await store.execute(add_item(next_stream()))
        otel_context.detach(attached)
        _CURRENT.reset(plain)
    return (thread_time() - begun) / _COMMANDS


def _request(number: int) -> tuple[TraceContext, Context]:
    span = NonRecordingSpan(SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(1)))
    return TraceContext(number, number, 1), set_span_in_context(span, Context())


def _row(name: str, series: Series, none: Series) -> Row:
    more = median(mine - theirs for mine, theirs in zip(series.values, none.values, strict=True))
    targets = () if series is none or name == "none, again" else (Target("µs more", more * 1e6, 3.0),)
    return Row(
        name,
        (f"{series.median * 1e6:.1f} µs ± {series.spread:.0%}", "–" if series is none else f"{more * 1e6:+.1f} µs"),
        {"seconds": series.median, "more": more},
        targets,
    )
