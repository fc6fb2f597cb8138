"""The catalogue: every instrument that eventcore itself records, one line each."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.recording import SECONDS

Kind: TypeAlias = Literal["counter", "up_down_counter", "gauge", "histogram"]


@final
class Row(msgspec.Struct, frozen=True):
    """One instrument: its name without ``eventcore.``, kind, UCUM unit, labels and what it tells an operator."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    description: str
    boundaries: tuple[float, ...] | None = None


_SMALL: Final = (1, 2, 3, 4, 5, 8, 13, 21)
_COUNTS: Final = tuple(2**power for power in range(15))
_BYTES: Final = tuple(4**power for power in range(3, 13))
_C: Final = "counter"
_U: Final = "up_down_counter"
_G: Final = "gauge"
_H: Final = "histogram"

_COMMAND: Final = ("store", "command.type")
_ENDED: Final = ("store", "command.type", "outcome")
_SYSTEM: Final = "db.system.name"
_PROJECTION: Final = ("store", "projection")

# fmt: off  # to be read as a table
_ROWS: Final = (
    Row("commands.total", _C, "{command}", _ENDED, "Commands by how they ended; a business rejection is not a fault."),
    Row("commands.duration", _H, "s", _ENDED, "From execute to its answer, retries included.", SECONDS),
    Row("commands.active", _U, "{command}", _COMMAND, "Commands that are being executed now."),
    Row(
        "commands.phase.duration",
        _H,
        "s",
        ("store", "phase"),
        "Where time goes: load, discover, decide, append, backoff.",
        SECONDS,
    ),
    Row("commands.attempts", _H, "{attempt}", _ENDED, "Attempts that a command took.", _SMALL),
    Row("commands.streams", _H, "{stream}", ("store", "mode"), "Streams that a command read and wrote.", _SMALL),
    Row("commands.events.loaded", _H, "{event}", (*_COMMAND, "source"), "Events folded to make a command's state.", _COUNTS),
    Row("commands.events.emitted", _H, "{event}", _COMMAND, "Events that a command wrote.", _COUNTS),
    Row(
        "commands.conflicts",
        _C,
        "{conflict}",
        (*_COMMAND, "resolution"),
        "Others came in between: chained, absorbed or escaped.",
    ),
    Row("commands.retries", _C, "{retry}", (*_COMMAND, "reason"), "Attempts after the first, by why."),
    Row(
        "store.operation.duration",
        _H,
        "s",
        ("store", "operation", _SYSTEM, "outcome"),
        "Calls to the store's backend.",
        SECONDS,
    ),
    Row("store.errors", _C, "{error}", ("store", "operation", "error.type"), "Calls to the store's backend that failed."),
    Row("store.append.batch", _H, "{command}", ("store", _SYSTEM), "Commands committed together.", _COUNTS),
    Row("store.lock.wait", _H, "s", ("store", "lock", _SYSTEM), "Waits for a lock of the database.", SECONDS),
    Row("store.io", _C, "By", ("store", "direction"), "Bytes of rows from and to the database."),
    Row("store.head.position", _G, "{event}", ("store", _SYSTEM), "Position of the last event, whoever wrote it."),
    Row("store.last.append.age", _G, "s", ("store",), "Since the last event was written, whoever wrote it."),
    Row("store.size", _G, "By", ("store",), "Bytes that the store takes on its disk."),
    Row("store.pool.connections", _G, "{connection}", ("store", "state"), "Connections of the pool: idle, used."),
    Row("store.pool.wait", _H, "s", ("store",), "Waits for a free connection of the pool.", SECONDS),
    Row("events.written", _C, "{event}", ("store", "event.type"), "Events committed."),
    Row("events.read", _C, "{event}", ("store", "purpose"), "Events read from the backend, by what for."),
    Row("events.size", _H, "By", ("store",), "Size of committed events as JSON, without metadata.", _BYTES),
    Row("codec.errors", _C, "{error}", ("store", "direction", "event.type"), "Events that could not be encoded or decoded."),
    Row("streams.active", _G, "{stream}", ("store",), "Streams touched here in the last 5 minutes; an estimate above 10,000."),
    Row("streams.created", _C, "{stream}", ("store",), "Streams that got their first event."),
    Row("projections.events", _C, "{event}", (*_PROJECTION, "outcome"), "Events applied, skipped, or failed for good."),
    Row("projections.handle.duration", _H, "s", _PROJECTION, "Handler's mean time for an event, once a batch.", SECONDS),
    Row("projections.batch.duration", _H, "s", (*_PROJECTION, "phase"), "Time of a batch: load, apply, commit.", SECONDS),
    Row("projections.lag", _G, "{event}", _PROJECTION, "Head position minus position; absent when unknown."),
    Row("projections.lag.time", _G, "s", _PROJECTION, "How long the oldest event not yet applied has been known here."),
    Row("projections.eta", _G, "s", _PROJECTION, "Until it has caught up; absent when it does not come nearer."),
    Row("projections.position", _G, "{event}", _PROJECTION, "Position that is applied, or looked at and not wanted."),
    Row("projections.checkpoint", _G, "{event}", _PROJECTION, "Position that the store keeps."),
    Row("projections.state", _G, "{state}", (*_PROJECTION, "state"), "Exactly one state of a projection is 1."),
    Row("projections.heartbeat.age", _G, "s", _PROJECTION, "Since the runner last did something, or looked."),
    Row("projections.retries", _C, "{retry}", (*_PROJECTION, "error.type"), "Tries after a failure, by its type."),
    Row("projections.failures", _C, "{failure}", (*_PROJECTION, "error.type"), "Failures of handler or store, by type."),
    Row("projections.dead.letters", _C, "{event}", _PROJECTION, "Events put aside because they could not be applied."),
    Row("projections.leader", _G, "1", _PROJECTION, "1 in the process that runs the projection, 0 where one waits."),
    Row("exporters.spans", _C, "{span}", ("exporter", "outcome", "reason"), "Spans: recorded = exported + dropped + pending."),
    Row("exporters.spans.pending", _G, "{span}", ("exporter",), "Spans that wait to be exported."),
    Row("exporters.cycles", _C, "{cycle}", ("exporter", "signal", "outcome"), "Export cycles by how they ended."),
    Row("exporters.cycle.duration", _H, "s", ("exporter", "signal", "outcome"), "How long export cycles took.", SECONDS),
    Row("exporters.cpu.time", _C, "s", ("exporter",), "Processor time that an exporter's hooks used."),
    Row("exporters.state", _G, "{state}", ("exporter", "state"), "Exactly one state of an exporter is 1."),
    Row(
        "exporters.last.success.age", _G, "s", ("exporter", "signal"), "Since a cycle last succeeded; absent before the first."
    ),
    Row("traces.unsampled", _C, "{trace}", (), "Traces that head sampling left out."),
    Row("series.overflow", _C, "{measurement}", ("instrument",), "Measurements that met a full cap on series."),
    Row("info", _G, "1", ("store", "version", _SYSTEM, "schema.version"), "1 for each open store."),
)
# fmt: on
CATALOGUE: Final = {row.name: row for row in _ROWS}
"""The rows by name."""
