"""The catalogue: every metric that eventcore records about itself, each declared once.

To add a metric, add a line here and record it; ``python -m tests.catalogue.generate`` updates the table in
``docs/telemetry.md``, and ``tests/catalogue/contract.toml`` gets the metric by hand.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

from eventcore.catalogue.declaring import Counter, Gauge, Histogram, Metric, MetricGroup, UpDownCounter
from eventcore.exporting.context import HiddenKind, Signal
from eventcore.exporting.delivery.report import CycleOutcome, ExporterState
from eventcore.exporting.delivery.span_queue import DropReason
from eventcore.ground import BreakerState
from eventcore.recording import SECONDS, Label
from eventcore.stores.values import Purpose

# The labels, and the values that each can take. Labels without values, such as `store`, have one value a store or database.

CommandOutcome: TypeAlias = Literal["committed", "no_events", "repeated", "rejected", "conflict", "cancelled", "error"]
CommandPhase: TypeAlias = Literal["load", "discover", "decide", "append", "backoff"]
Resolution: TypeAlias = Literal["chained", "absorbed", "escaped"]
RetryReason: TypeAlias = Literal["version"]
SnapshotResult: TypeAlias = Literal["hit", "miss", "stale", "error"]
CallOutcome: TypeAlias = Literal["ok", "error"]
Operation: TypeAlias = Literal[
    "read_streams",
    "append",
    "scan",
    "find_keys",
    "head_position",
    "follow",
    "wait_beyond",
    "save_snapshots",
    "find_event",
    "redact",
    "acquire_lease",
    "renew_lease",
    "release_lease",
    "save_run_state",
    "commit_checkpoint",
    "projections",
    "dead_letters",
    "remove_dead_letter",
    "reset_projection",
]
EventOutcome: TypeAlias = Literal["applied", "skipped", "failed"]
ProjectionState: TypeAlias = Literal["running", "catching_up", "paused", "failed", "stopped"]

_STORE: Final = Label("store")
_SYSTEM: Final = Label("db.system.name")
_LOCK: Final = Label("lock")
_VERSION: Final = Label("version")
_SCHEMA_VERSION: Final = Label("schema.version")

# Open: the values come from the application. However many series that makes, each metric has room for some.
_ROOM: Final = 100
# A histogram by command type takes 2 kB a series of the page that Prometheus reads. These shares of the cap keep the page below
# 2 MB however many types there are, and leave room for the outcomes of 100 types; counters of further types remain exact.
_COMMAND_TYPE: Final = Label("command.type", open=True, histogram_share=0.15, room=_ROOM)
_COMMAND_TYPE_ALONE: Final = Label("command.type", open=True, histogram_share=0.05, room=_ROOM)
_EVENT_TYPE: Final = Label("event.type", open=True, room=_ROOM)
_ERROR_TYPE: Final = Label("error.type", open=True, room=_ROOM)
_PROJECTION: Final = Label("projection", open=True, room=_ROOM)
_EXPORTER: Final = Label("exporter", open=True, room=_ROOM)
_INSTRUMENT: Final = Label("instrument", open=True, room=_ROOM)
_CHECK: Final = Label("check", open=True, room=_ROOM)

# Fixed.
_COMMAND_OUTCOME: Final = Label("outcome", get_args(CommandOutcome))
_COMMAND_PHASE: Final = Label("phase", get_args(CommandPhase))
_BREAKER_STATE: Final = Label("state", get_args(BreakerState))
_STREAM_MODE: Final = Label("mode", ("read", "written"))
_LOAD_SOURCE: Final = Label("source", ("full", "snapshot"))
_RESOLUTION: Final = Label("resolution", get_args(Resolution))
_RETRY_REASON: Final = Label("reason", get_args(RetryReason))
_SNAPSHOT_RESULT: Final = Label("result", get_args(SnapshotResult))
_OPERATION: Final = Label("operation", get_args(Operation))
_CALL_OUTCOME: Final = Label("outcome", get_args(CallOutcome))
_IO_DIRECTION: Final = Label("direction", ("read", "write"))
_CONNECTION_STATE: Final = Label("state", ("idle", "used"))
_PURPOSE: Final = Label("purpose", get_args(Purpose))
_CODEC_DIRECTION: Final = Label("direction", ("encode", "decode"))
_EVENT_OUTCOME: Final = Label("outcome", get_args(EventOutcome))
_BATCH_PHASE: Final = Label("phase", ("load", "apply", "commit"))
_PROJECTION_STATE: Final = Label("state", get_args(ProjectionState))
_SPAN_OUTCOME: Final = Label("outcome", ("recorded", "exported", "dropped", "unknown"))
_DROP_REASON: Final = Label("reason", ("", *get_args(DropReason)))
_SIGNAL: Final = Label("signal", get_args(Signal))
_HIDDEN_REASON: Final = Label("reason", get_args(HiddenKind))
_CYCLE_OUTCOME: Final = Label("outcome", get_args(CycleOutcome))
_EXPORTER_STATE: Final = Label("state", get_args(ExporterState))
_HEALTH_STATUS: Final = Label("status", ("healthy", "degraded", "unhealthy"))

_SMALL: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 13.0, 21.0)
_COUNTS: Final = tuple(2.0**power for power in range(15))
_BYTES: Final = tuple(4.0**power for power in range(3, 13))

# One table, a metric in one or two lines: name, unit, labels, (boundaries of buckets,) description.
# fmt: off


class CommandMetrics(MetricGroup):
    total = Counter("commands.total", "{command}", (_STORE, _COMMAND_TYPE, _COMMAND_OUTCOME, _ERROR_TYPE),
        "Commands by outcome. A business rejection (rejected) is not a fault. Only the outcome error has an error.type.")
    duration = Histogram("commands.duration", "s", (_STORE, _COMMAND_TYPE, _COMMAND_OUTCOME), SECONDS,
        "Time from execute to its result, retries included.")
    active = UpDownCounter("commands.active", "{command}", (_STORE, _COMMAND_TYPE), "Commands that are executing now.")
    phase_duration = Histogram("commands.phase.duration", "s", (_STORE, _COMMAND_PHASE), SECONDS,
        "Time that an attempt of a command spends in each phase; backoff is the wait before a retry.")
    attempts = Histogram("commands.attempts", "{attempt}", (_STORE, _COMMAND_TYPE, _COMMAND_OUTCOME), _SMALL,
        "Attempts that a command took.")
    streams = Histogram("commands.streams", "{stream}", (_STORE, _STREAM_MODE), _SMALL,
        "Streams that a command read and wrote.")
    events_loaded = Histogram("commands.events.loaded", "{event}", (_STORE, _COMMAND_TYPE_ALONE, _LOAD_SOURCE), _COUNTS,
        "Events folded into the state of a command; from the first event (full), or from a kept or stored state (snapshot).")
    events_emitted = Histogram("commands.events.emitted", "{event}", (_STORE, _COMMAND_TYPE_ALONE), _COUNTS,
        "Events that a command wrote, of commands that wrote any.")
    conflicts = Counter("commands.conflicts", "{conflict}", (_STORE, _COMMAND_TYPE, _RESOLUTION),
        "Another writer changed a stream first: decided again in the same batch (chained), retried with success (absorbed), "
        "or raised to the caller (escaped).")
    retries = Counter("commands.retries", "{retry}", (_STORE, _COMMAND_TYPE, _RETRY_REASON),
        "Attempts after the first, by their reason.")
    snapshots_reads = Counter("snapshots.reads", "{snapshot}", (_STORE, _SNAPSHOT_RESULT),
        "Stored states of streams that were looked up: used (hit), not there (miss), outdated by a redaction or a failover "
        "during the read (stale), or not readable by their class (error).")
    snapshots_writes = Counter("snapshots.writes", "{snapshot}", (_STORE, _SNAPSHOT_RESULT),
        "States of streams that were to be stored: done (hit), outdated before (stale), or failed (error).")


class StoreMetrics(MetricGroup):
    operation_duration = Histogram("store.operation.duration", "s", (_STORE, _OPERATION, _SYSTEM, _CALL_OUTCOME), SECONDS,
        "Duration of calls to the backend of the store.")
    errors = Counter("store.errors", "{error}", (_STORE, _OPERATION, _ERROR_TYPE),
        "Calls to the backend of the store that failed, by the type of the error.")
    append_batch = Histogram("store.append.batch", "{command}", (_STORE, _SYSTEM), _COUNTS, "Commands in one append.")
    events_written = Counter("events.written", "{event}", (_STORE, _EVENT_TYPE), "Events committed.")
    events_read = Counter("events.read", "{event}", (_STORE, _PURPOSE), "Events read from the backend, by purpose.")
    events_size = Histogram("events.size", "By", (_STORE,), _BYTES, "Size of a committed event as JSON, without metadata.")
    codec_errors = Counter("codec.errors", "{error}", (_STORE, _CODEC_DIRECTION, _EVENT_TYPE),
        "Events that could not be encoded or decoded.")
    streams_active = Gauge("streams.active", "{stream}", (_STORE,),
        "Streams that commands of this process touched in the last 5 minutes; an estimate above 10,000.")
    streams_created = Counter("streams.created", "{stream}", (_STORE,), "Streams that got their first event.")
    info = Gauge("info", "1", (_STORE, _VERSION, _SYSTEM, _SCHEMA_VERSION), "1 for each open store, with its versions.")


class BackendMetrics(MetricGroup):
    lock_wait = Histogram("store.lock.wait", "s", (_STORE, _LOCK, _SYSTEM), SECONDS,
        "Waits for a lock of the database, where the backend takes the lock in a step by itself.")
    io = Counter("store.io", "By", (_STORE, _IO_DIRECTION), "Bytes of rows read from and written to the database.")
    head_position = Gauge("store.head.position", "{event}", (_STORE, _SYSTEM),
        "Position of the last event, by any writer; looked up every 5 seconds.")
    last_append_age = Gauge("store.last.append.age", "s", (_STORE,),
        "Time since the last event was written, by any writer; absent while the store has no events.")
    size = Gauge("store.size", "By", (_STORE,), "Bytes that the store takes on its disk.")
    disk_free = Gauge("store.disk.free", "By", (_STORE,),
        "Bytes that are free on the disk of a SQLite file; absent for other stores, whose disks the process cannot see.")
    pool_connections = Gauge("store.pool.connections", "{connection}", (_STORE, _CONNECTION_STATE),
        "Connections in the pool of the backend; absent where the backend has no pool.")
    pool_wait = Histogram("store.pool.wait", "s", (_STORE,), SECONDS,
        "Waits for a free connection of the pool, with those that got none.")
    pool_limit = Gauge("store.pool.limit", "{connection}", (_STORE,),
        "The most connections that the backend opens; absent where the backend has no pool.")
    pool_timeouts = Counter("store.pool.timeouts", "{wait}", (_STORE,),
        "Waits for a connection that ended without one, by the timeout of the call or of its command.")
    breaker_state = Gauge("store.breaker.state", "{state}", (_STORE, _BREAKER_STATE),
        "1 for the current state, 0 for all others; open and half_open: calls fail at once, since the server is away. Absent "
        "where the backend has no circuit breaker.")
    up = Gauge("store.up", "1", (_STORE,),
        "1 while the store answers, 0 while it does not; asked every 5 seconds, and 0 at once when the circuit breaker opens.")


class ProjectionMetrics(MetricGroup):
    events = Counter("projections.events", "{event}", (_STORE, _PROJECTION, _EVENT_OUTCOME),
        "Events applied, skipped by the error policy, or failed for good: dead letters, and an event that stops a projection.")
    handle_duration = Histogram("projections.handle.duration", "s", (_STORE, _PROJECTION), SECONDS,
        "Mean time of the handler for an event, recorded once a batch; at verbosity verbose, each call outside a transaction.")
    batch_duration = Histogram("projections.batch.duration", "s", (_STORE, _PROJECTION, _BATCH_PHASE), SECONDS,
        "Time that a batch spends in each phase; load is the wait for its page of events.")
    lag = Gauge("projections.lag", "{event}", (_STORE, _PROJECTION),
        "Head position minus position of the projection, whichever process runs it, also if none does; absent while unknown.")
    lag_time = Gauge("projections.lag.time", "s", (_STORE, _PROJECTION),
        "Time since this process first saw the oldest event that is not applied; 0 when caught up. A replay starts at 0, "
        "however old its events are. Like the lag, also of a projection that another process runs, or none.")
    eta = Gauge("projections.eta", "s", (_STORE, _PROJECTION),
        "Time until it has caught up, at the pace of the last 30 seconds; 0 when it has, absent when it does not come closer.")
    position = Gauge("projections.position", "{event}", (_STORE, _PROJECTION),
        "Position of the last event that was applied, or scanned and filtered out; of a projection that this process does not "
        "run, the position that the store keeps.")
    checkpoint = Gauge("projections.checkpoint", "{event}", (_STORE, _PROJECTION),
        "Position that the store keeps; after a crash, events between it and the position are applied again.")
    state = Gauge("projections.state", "{state}", (_STORE, _PROJECTION, _PROJECTION_STATE),
        "1 for the current state, 0 for all others; paused: another runner leads, or the store is unavailable.")
    heartbeat_age = Gauge("projections.heartbeat.age", "s", (_STORE, _PROJECTION),
        "Time since the runner last did something; an idle runner looks for events every second.")
    retries = Counter("projections.retries", "{retry}", (_STORE, _PROJECTION, _ERROR_TYPE),
        "Retries, by the type of the error before.")
    failures = Counter("projections.failures", "{failure}", (_STORE, _PROJECTION, _ERROR_TYPE),
        "Failures of the handler or the store, by the type of the error.")
    dead_letters = Counter("projections.dead.letters", "{event}", (_STORE, _PROJECTION),
        "Events that this process stored as dead letters because they could not be applied.")
    dead_letters_waiting = Gauge("projections.dead.letters.waiting", "{event}", (_STORE, _PROJECTION),
        "Dead letters that wait to be retried, whichever process runs the projection; read from the store every 5 seconds.")
    leader = Gauge("projections.leader", "1", (_STORE, _PROJECTION),
        "1 in the process that runs the projection, 0 in one that waits to take over or has ended.")


class HealthMetrics(MetricGroup):
    status = Gauge("health.status", "1", (_STORE, _CHECK, _HEALTH_STATUS),
        "1 for the current status of a check, 0 for all others; evaluated every 5 seconds, also when no probe asks.")
    loop_lag = Histogram("event.loop.lag", "s", (_STORE,), SECONDS,
        "How late a timer runs on the store's event loop, four times a second: as long as other callbacks block the loop.")


class ExporterMetrics(MetricGroup):
    spans = Counter("exporters.spans", "{span}", (_EXPORTER, _SPAN_OUTCOME, _DROP_REASON),
        "Spans by outcome: recorded = exported + dropped + unknown + pending. reason says why spans were dropped.")
    spans_pending = Gauge("exporters.spans.pending", "{span}", (_EXPORTER,), "Spans that wait to be exported.")
    cycles = Counter("exporters.cycles", "{cycle}", (_EXPORTER, _SIGNAL, _CYCLE_OUTCOME), "Export cycles by outcome.")
    cycle_duration = Histogram("exporters.cycle.duration", "s", (_EXPORTER, _SIGNAL, _CYCLE_OUTCOME), SECONDS,
        "Duration of export cycles.")
    cpu_time = Counter("exporters.cpu.time", "s", (_EXPORTER,), "Processor time that the hooks of the exporter used.")
    state = Gauge("exporters.state", "{state}", (_EXPORTER, _EXPORTER_STATE), "1 for the current state, 0 for all others.")
    instruments_hidden = Gauge("exporters.instruments.hidden", "{instrument}", (_EXPORTER, _HIDDEN_REASON),
        "Instruments that the exporter does not show: name in use, not fit for the backend, or left out by configuration.")
    last_success_age = Gauge("exporters.last.success.age", "s", (_EXPORTER, _SIGNAL),
        "Time since an export cycle last succeeded; absent before the first.")
    traces_unsampled = Counter("traces.unsampled", "{trace}", (), "Traces that head sampling left out.")
    series_overflow = Counter("series.overflow", "{measurement}", (_INSTRUMENT,),
        "Measurements that went to an overflow series because the cap on series was reached.")


# fmt: on
GROUPS: Final = (CommandMetrics, StoreMetrics, BackendMetrics, ProjectionMetrics, HealthMetrics, ExporterMetrics)
CATALOGUE: Final[dict[str, Metric[Any]]] = {metric.name: metric for group in GROUPS for metric in group.metrics().values()}
"""The metrics by name, without the leading ``eventcore.``."""
