"""What the dashboards show: for each panel its question, the queries that answer it, and the page to read when it looks bad.

``<S>`` in a query stands for the chosen service, store and worker, ``<E>`` for service and worker. The unit and the definition
of the measured metric come from the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STORE: Final = 'service=~"$service",store=~"$store",worker=~"$worker"'
PROCESS: Final = 'service=~"$service",worker=~"$worker"'
_WINDOW: Final = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: the question that it answers.
        metric: the metric in the catalogue, without the leading ``eventcore.``; empty for one of the Prometheus plugin.
        queries: expressions, each with the legend of its series.
        advice: what a normal panel looks like.
        page: below ``docs``.
        unit: of the answer, where it is not that of the metric.
        stat: one big number for each series, in place of lines.
    """

    title: str
    metric: str
    queries: tuple[tuple[str, str], ...]
    advice: str
    page: str
    unit: str = ""
    stat: bool = False


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]


def _rate(by: str, selector: str, legend: str, scope: str = "<S>") -> tuple[tuple[str, str], ...]:
    name, _, labels = selector.rstrip("}").partition("{")
    inside = ",".join(part for part in (scope, labels) if part)
    return ((f"sum by ({by}) (rate({name}{{{inside}}}{_WINDOW}))", legend),)


def _quantiles(histogram: str, by: str = "", labels: str = "", scope: str = "<S>") -> tuple[tuple[str, str], ...]:
    inside = ",".join(part for part in (scope, labels) if part)
    groups = ", ".join(part for part in (by, "le") if part)
    legend = {"": "", "worker": " worker {{worker}}"}.get(by, f" {{{{{by}}}}}")
    return tuple(
        (f"histogram_quantile({share}, sum by ({groups}) (rate({histogram}_bucket{{{inside}}}{_WINDOW})))", f"p{name}{legend}")
        for share, name in ((0.5, "50"), (0.99, "99"))
    )


def _mean(histogram: str, by: str, legend: str) -> tuple[tuple[str, str], ...]:
    total, count = (f"sum by ({by}) (rate({histogram}_{part}{{<S>}}{_WINDOW}))" for part in ("sum", "count"))
    return ((f"{total} / {count}", legend),)


_RATE_OF_COMMANDS: Final = Panel(
    "How many commands a second, and how do they end?",
    "commands.total",
    _rate("outcome", "eventcore_commands_total", "{{outcome}}"),
    "error and conflict are failures; rejected is a business rule.",
    "runbooks/commands-failing.md",
    "ops",
)
_LATENCY: Final = Panel(
    "How long does a command take?",
    "commands.duration",
    _quantiles("eventcore_command_duration_seconds"),
    "Each dot is a command; its link opens the trace.",
    "runbooks/commands-failing.md",
)
_LAG: Final = Panel(
    "How far behind are the projections?",
    "projections.lag",
    (("max by (projection) (eventcore_projections_lag{<S>})", "{{projection}}"),),
    "Near 0, except while a projection is built again.",
    "runbooks/projection-stuck.md",
    "short",
)
_STATES_OF_EXPORTERS: Final = Panel(
    "In which state is each exporter?",
    "exporters.state",
    (("max by (exporter, state, worker) (eventcore_exporters_state{<E>}) == 1", "{{exporter}}, worker {{worker}}: {{state}}"),),
    "running.",
    "runbooks/exporter-silent.md",
    "short",
    stat=True,
)

BOARDS: Final = (
    Board(
        "eventcore-overview",
        "eventcore: overview",
        "Is the service well? One panel for each part; the other dashboards go into detail.",
        (
            Panel(
                "Is the store reachable?",
                "store.up",
                (("min by (store) (eventcore_store_up{<S>})", "{{store}}"),),
                "1. At 0, at least one worker does not reach the database.",
                "runbooks/store-away.md",
                "short",
                stat=True,
            ),
            Panel(
                "Which checks are not healthy?",
                "health.status",
                (('sum by (check) (eventcore_health_status{<S>,status="healthy"} == bool 0)', "{{check}}"),),
                "0 for each check; else the number of workers that are not well.",
                "production.md",
                "short",
                stat=True,
            ),
            _RATE_OF_COMMANDS,
            _LATENCY,
            Panel(
                "How many events are written?",
                "events.written",
                _rate("event_type", "eventcore_events_written_total", "{{event_type}}"),
                "Follows the commands.",
                "telemetry.md",
                "ops",
            ),
            _LAG,
            Panel(
                "How large is the working set?",
                "streams.active",
                (("sum by (store) (eventcore_streams_active{<S>})", "{{store}}"),),
                "Depends on the load. Every worker counts for itself.",
                "telemetry.md",
                "short",
            ),
            _STATES_OF_EXPORTERS,
        ),
    ),
    Board(
        "eventcore-commands",
        "eventcore: commands and contention",
        "Where does the time of a command go, and who stands in its way?",
        (
            _RATE_OF_COMMANDS,
            _LATENCY,
            Panel(
                "In which phase does the time go?",
                "commands.phase.duration",
                _mean("eventcore_commands_phase_duration_seconds", "phase", "{{phase}}"),
                "Mean of an attempt. backoff is contention, decide is the code of the command.",
                "commands.md",
            ),
            Panel(
                "How often do writers meet?",
                "commands.conflicts",
                _rate("resolution", "eventcore_commands_conflicts_total", "{{resolution}}"),
                "chained and absorbed are harmless; escaped reached a caller.",
                "runbooks/conflicts-escaping.md",
                "ops",
            ),
            Panel(
                "How many attempts does a command take?",
                "commands.attempts",
                _mean("eventcore_commands_attempts", "command_type", "{{command_type}}"),
                "1 without contention.",
                "runbooks/conflicts-escaping.md",
                "short",
            ),
            Panel(
                "How many commands run at this moment?",
                "commands.active",
                (("sum by (command_type) (eventcore_commands_active{<S>})", "{{command_type}}"),),
                "Rises when the store gets slower.",
                "runbooks/append-lock.md",
                "short",
            ),
            Panel(
                "How many streams does a command read and write?",
                "commands.streams",
                _mean("eventcore_commands_streams", "mode", "{{mode}}"),
                "Many streams make conflicts likely.",
                "commands.md",
                "short",
            ),
            Panel(
                "How many events does a command load?",
                "commands.events.loaded",
                _mean("eventcore_commands_events_loaded", "source", "{{source}}"),
                "Hundreds from the first event (full) ask for a snapshot.",
                "commands.md",
                "short",
            ),
        ),
    ),
    Board(
        "eventcore-store",
        "eventcore: store",
        "Is the database, the pool or the append lock the limit?",
        (
            Panel(
                "How long do calls to the database take?",
                "store.operation.duration",
                _mean("eventcore_store_operation_duration_seconds", "operation", "{{operation}}"),
                "Milliseconds. wait_beyond and follow wait on purpose.",
                "runbooks/store-away.md",
            ),
            Panel(
                "How long do appends wait for their lock?",
                "store.lock.wait",
                _quantiles("eventcore_store_lock_wait_seconds", labels='lock="append"'),
                "Milliseconds. A wait is counted when it ends.",
                "runbooks/append-lock.md",
            ),
            Panel(
                "How many connections are free and in use?",
                "store.pool.connections",
                (
                    ("sum by (state) (eventcore_store_pool_connections{<S>})", "{{state}}"),
                    ("sum by (store) (eventcore_store_pool_limit{<S>})", "limit"),
                ),
                "used stays below the limit.",
                "runbooks/pool-exhausted.md",
                "short",
            ),
            Panel(
                "How long do calls wait for a connection?",
                "store.pool.wait",
                _quantiles("eventcore_store_pool_wait_seconds"),
                "Microseconds while a connection is free.",
                "runbooks/pool-exhausted.md",
            ),
            Panel(
                "Do workers fail commands at once?",
                "store.breaker.state",
                (('sum by (state) (eventcore_store_breaker_state{<S>,state=~"open|half_open"})', "{{state}}"),),
                "0. Else the number of workers that do not reach the database.",
                "runbooks/store-away.md",
                "short",
            ),
            Panel(
                "How many commands share one append?",
                "store.append.batch",
                _mean("eventcore_store_append_batch", "store", "{{store}}"),
                "1 at low load; grows with the load.",
                "postgresql.md",
                "short",
            ),
            Panel(
                "Who reads events?",
                "events.read",
                _rate("purpose", "eventcore_events_read_total", "{{purpose}}"),
                "Reads for commands that grow faster than commands ask for snapshots.",
                "reading.md",
                "ops",
            ),
            Panel(
                "How large is the store?",
                "store.size",
                (("max by (store) (eventcore_store_size_bytes{<S>})", "{{store}}"),),
                "Grows steadily, as fast as events are written. All workers see the same store.",
                "runbooks/disk-full.md",
            ),
        ),
    ),
    Board(
        "eventcore-projections",
        "eventcore: projections",
        "Are the read models current, and if not, why?",
        (
            _LAG,
            Panel(
                "How old are the read models?",
                "projections.lag.time",
                (("max by (projection) (eventcore_projections_lag_time_seconds{<S>})", "{{projection}}"),),
                "Below a second.",
                "runbooks/projection-stuck.md",
            ),
            Panel(
                "Does some process run each projection?",
                "projections.leader",
                (("sum by (projection) (eventcore_projections_leader{<S>})", "{{projection}}"),),
                "Exactly 1.",
                "runbooks/projection-unattended.md",
                "short",
                stat=True,
            ),
            Panel(
                "What becomes of the events?",
                "projections.events",
                _rate("projection, outcome", "eventcore_projections_events_total", "{{projection}} {{outcome}}"),
                "applied. failed are dead letters, skipped is drift.",
                "runbooks/dead-letters.md",
                "ops",
            ),
            Panel(
                "How long does the handler take for an event?",
                "projections.handle.duration",
                _quantiles("eventcore_projections_handle_duration_seconds", "projection"),
                "Lower than the time between two events.",
                "runbooks/projection-stuck.md",
            ),
            Panel(
                "Is the handler slow, or the store?",
                "projections.batch.duration",
                _mean("eventcore_projections_batch_duration_seconds", "phase", "{{phase}}"),
                "load is the wait for events, apply the handler, commit the store.",
                "projections.md",
            ),
            Panel(
                "When did each runner last do something?",
                "projections.heartbeat.age",
                (
                    (
                        "max by (projection, worker) (eventcore_projections_heartbeat_age_seconds{<S>})",
                        "{{projection}}, worker {{worker}}",
                    ),
                ),
                "Seconds: an idle runner looks for events every second.",
                "runbooks/projection-stuck.md",
            ),
            Panel(
                "How many dead letters were stored?",
                "projections.dead.letters",
                (("sum by (projection) (eventcore_projections_dead_letters_total{<S>})", "{{projection}}"),),
                "0, since the start of the processes.",
                "runbooks/dead-letters.md",
                "short",
            ),
        ),
    ),
    Board(
        "eventcore-exporters",
        "eventcore: exporters",
        "Can everything else on these dashboards be trusted?",
        (
            _STATES_OF_EXPORTERS,
            Panel(
                "When did each exporter last deliver?",
                "exporters.last.success.age",
                (
                    (
                        'max by (exporter, signal) (eventcore_exporters_last_success_age_seconds{<E>,signal="metrics"})',
                        "{{exporter}} {{signal}}",
                    ),
                    # A process that records no span has none to deliver.
                    (
                        'max by (exporter, signal) (eventcore_exporters_last_success_age_seconds{<E>,signal="spans"} '
                        "and on (service, worker, exporter) eventcore_exporters_spans_pending{<E>} > 0)",
                        "{{exporter}} {{signal}}",
                    ),
                ),
                "Below the interval of the exporter. Spans are shown while some wait.",
                "runbooks/exporter-silent.md",
            ),
            Panel(
                "What becomes of the spans?",
                "exporters.spans",
                _rate("outcome, reason", "eventcore_exporters_spans_total", "{{outcome}} {{reason}}", "<E>"),
                "recorded = exported + dropped + unknown + pending.",
                "runbooks/spans-dropped.md",
                "ops",
            ),
            Panel(
                "How many spans wait?",
                "exporters.spans.pending",
                (("sum by (exporter, worker) (eventcore_exporters_spans_pending{<E>})", "{{exporter}}, worker {{worker}}"),),
                "Hundreds at most; the queue takes 16,384.",
                "runbooks/spans-dropped.md",
                "short",
            ),
            Panel(
                "Do export cycles succeed?",
                "exporters.cycles",
                _rate(
                    "exporter, signal, outcome",
                    "eventcore_exporters_cycles_total",
                    "{{exporter}} {{signal}} {{outcome}}",
                    "<E>",
                ),
                "ok only.",
                "runbooks/exporter-silent.md",
                "ops",
            ),
            Panel(
                "What does telemetry cost?",
                "exporters.cpu.time",
                _rate("exporter", "eventcore_exporters_cpu_time_seconds_total", "{{exporter}}", "<E>"),
                "Share of one processor, of all workers together.",
                "configuration.md",
                "percentunit",
            ),
            Panel(
                "How many instruments do the exporters not show?",
                "exporters.instruments.hidden",
                (("sum by (exporter, reason) (eventcore_exporters_instruments_hidden{<E>})", "{{exporter}} {{reason}}"),),
                "0, unless the configuration filters.",
                "prometheus.md",
                "short",
            ),
            Panel(
                "How many traces does sampling leave out?",
                "traces.unsampled",
                (("sum by (service) (rate(eventcore_traces_unsampled_total{<E>}[$__rate_interval]))", "{{service}}"),),
                "0 below 100 new traces a second.",
                "configuration.md",
                "ops",
            ),
        ),
    ),
    Board(
        "eventcore-process",
        "eventcore: one process",
        "What is different about one worker?",
        (
            Panel(
                "Does each worker answer?",
                "",
                (("min by (worker) (eventcore_exporters_worker_up{<E>})", "worker {{worker}}"),),
                "1. At 0, the worker is frozen or too slow.",
                "runbooks/worker-frozen.md",
                "short",
                stat=True,
            ),
            Panel(
                "Does every worker get its share of the commands?",
                "commands.total",
                _rate("worker", "eventcore_commands_total", "worker {{worker}}"),
                "The kernel shares connections, so the shares may differ.",
                "production.md",
                "ops",
            ),
            Panel(
                "Is one worker slower than the others?",
                "commands.duration",
                _quantiles("eventcore_command_duration_seconds", "worker"),
                "About the same.",
                "runbooks/event-loop-blocked.md",
            ),
            Panel(
                "Is the event loop of a worker blocked?",
                "health.status",
                (
                    (
                        'max by (worker, status) (eventcore_health_status{<S>,check="event_loop"}) == 1',
                        "worker {{worker}}: {{status}}",
                    ),
                ),
                "healthy.",
                "runbooks/event-loop-blocked.md",
                "short",
                stat=True,
            ),
            Panel(
                "How much processor does the service use?",
                "",
                (("sum by (worker) (rate(process_cpu_seconds_total{<E>}[$__rate_interval]))", "worker {{worker}}"),),
                "Below 1: Python runs on one processor at a time.",
                "production.md",
                "percentunit",
            ),
            Panel(
                "How much memory does each worker have?",
                "",
                (("max by (worker) (process_resident_memory_bytes{<E>})", "worker {{worker}}"),),
                "Steady after the first minutes.",
                "production.md",
                "bytes",
            ),
            Panel(
                "Which worker runs the projections?",
                "projections.leader",
                (("max by (worker, projection) (eventcore_projections_leader{<S>})", "{{projection}} on worker {{worker}}"),),
                "One of them.",
                "runbooks/projection-unattended.md",
                "short",
            ),
            Panel(
                "How large is the page that Prometheus reads?",
                "",
                (("max by (service) (eventcore_prometheus_page_size_bytes{<E>})", "{{service}}"),),
                "Below 2 MB.",
                "runbooks/series-cap.md",
                "bytes",
            ),
        ),
    ),
)
