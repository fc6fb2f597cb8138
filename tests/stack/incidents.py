"""Faults in a running stack: each has alerts that must be sent, panels that must move, and a runbook page that must mend it.

``python -m tests.stack fire [INCIDENT ...]`` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from eventcore.stores.postgres.schema import lock_key
from tests.stack.faults import (
    Fault,
    collector_killed,
    disk_filled,
    events_refused,
    handler_slow,
    import_runs,
    nothing,
    on_a_small_disk,
    postgres_killed,
    projection_failed,
    released,
    service_killed,
    session_left_open,
    worker_frozen,
)

Way: TypeAlias = Literal["rises", "falls"]


@dataclass(frozen=True)
class Incident:
    """One fault.

    Attributes:
        fault: what happens.
        expected: the alerts that Alertmanager must send.
        runbook: the page whose commands mend it.
        held_back: the alerts that must fire, and are not sent, because one that explains them is.
        may: alerts that may be sent as well, because the fault also causes what they mean, at some times or loads.
        moves: the panels that are meant for this fault, by title: part of the legend of a series, and which way it goes.
        before: what is done first, so that the fault can happen. It is no part of the fault.
        ends_within: seconds in which the alerts end after the remedy, in the times of production: the window of their rule.
        faster: how many times shorter than those of the other incidents its times are.
    """

    fault: Fault
    expected: frozenset[str]
    runbook: str
    held_back: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    moves: Mapping[str, tuple[str, Way]] = field(default_factory=dict)
    before: Fault = nothing
    ends_within: float = 2400.0
    faster: float = 1.0


def _alerts(*names: str) -> frozenset[str]:
    return frozenset(f"Eventcore{name}" for name in names)


# What an outage has used up of the error budget is announced when its windows see it, also after the end of the outage.
_BUDGET: Final = _alerts("CommandsFailing", "CommandsFailingSlowly")
_ALL_OF_THE_BUDGET: Final = _BUDGET | _alerts("CommandsFailingFast")
# Another worker takes a projection over when the lease of the frozen one has run out.
_BEHIND: Final = _alerts("ProjectionBehind", "ProjectionStuck", "ProjectionUnattended")
# uvicorn kills a worker that does not answer within five seconds. Here, it has more patience.
_PATIENT: Final = {"UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "60"}
INCIDENTS: Final[dict[str, Incident]] = {
    "service killed": Incident(
        service_killed,
        _alerts("ServiceDown"),
        "service-down",
        moves={
            "Does each worker answer?": ("worker", "falls"),
            "Does every worker get its share of the commands?": ("worker", "falls"),
            "How large is the working set?": ("bank", "falls"),
            "How much memory does each worker have?": ("worker", "falls"),
        },
    ),
    "PostgreSQL killed": Incident(
        postgres_killed,
        _alerts("StoreAway"),
        "store-away",
        held_back=_alerts("BreakerOpen"),
        may=_ALL_OF_THE_BUDGET,
        moves={
            "Is the store reachable?": ("bank", "falls"),
            "Which checks are not healthy?": ("store", "rises"),
            "Do workers fail commands at once?": ("open", "rises"),
            "How many events are written?": ("Deposited", "falls"),
        },
    ),
    "append lock held": Incident(
        session_left_open(f"SELECT pg_advisory_xact_lock({lock_key('eventcore')})"),
        _alerts("AppendLockWaited", "CommandsFailingFast"),
        "append-lock",
        may=_BUDGET | _alerts("PoolExhausted", "BreakerOpen"),
        moves={
            "How long do appends wait for their lock?": ("p99", "rises"),
            "How long do calls to the database take?": ("append", "rises"),
            "How long does a command take?": ("p99", "rises"),
            "How many commands run at this moment?": ("Transfer", "rises"),
            "In which phase does the time go?": ("append", "rises"),
        },
    ),
    "events locked": Incident(
        session_left_open("LOCK TABLE eventcore.events IN ACCESS EXCLUSIVE MODE"),
        # The check of the store reads events, too.
        _alerts("StoreAway"),
        "pool-exhausted",
        held_back=_alerts("PoolExhausted"),
        may=_ALL_OF_THE_BUDGET,
        moves={
            "How long do calls wait for a connection?": ("p99", "rises"),
            "How many connections are free and in use?": ("used", "rises"),
        },
    ),
    "conflicts": Incident(
        import_runs,
        _alerts("ConflictsEscaping", "CommandsFailingFast"),
        "conflicts-escaping",
        may=_BUDGET | _alerts("ProjectionBehind"),
        moves={
            "How often do writers meet?": ("escaped", "rises"),
            "How many attempts does a command take?": ("Transfer", "rises"),
            "How many events does a command load?": ("", "rises"),
            "How many commands share one append?": ("bank", "falls"),
            "Who reads events?": ("command", "rises"),
            "How large is the store?": ("bank", "rises"),
        },
    ),
    "some commands fail": Incident(
        released("tests.stack.releases:failing", BANK_FAILS_EVERY="80"),
        _alerts("CommandsFailing"),
        "commands-failing",
        may=_alerts("CommandsFailingSlowly"),
        moves={"How many commands a second, and how do they end?": ("error", "rises")},
        faster=2,
    ),
    "few commands fail": Incident(
        released("tests.stack.releases:failing", BANK_FAILS_EVERY="300"),
        _alerts("CommandsFailingSlowly"),
        "commands-failing",
        ends_within=6 * 3600.0,
        faster=4,
    ),
    "read model locked": Incident(
        session_left_open("LOCK TABLE balances IN ACCESS EXCLUSIVE MODE"),
        _alerts("ProjectionStuck"),
        "projection-stuck",
        may=_alerts("ProjectionBehind"),
        moves={
            "How far behind are the projections?": ("balances", "rises"),
            "When did each runner last do something?": ("balances", "rises"),
        },
    ),
    "read model slow": Incident(
        handler_slow,
        _alerts("ProjectionBehind"),
        "projection-stuck",
        moves={
            "How old are the read models?": ("balances", "rises"),
            "How long does the handler take for an event?": ("p50", "rises"),
            "Is the handler slow, or the store?": ("apply", "rises"),
        },
    ),
    "projection failed": Incident(
        projection_failed,
        _alerts("ProjectionUnattended"),
        "projection-unattended",
        may=_alerts("ProjectionStuck", "ProjectionBehind"),
        moves={
            "Does some process run each projection?": ("balances", "falls"),
            "Which worker runs the projections?": ("balances", "falls"),
        },
        before=released("tests.incidents.service:create_app", BANK_ON_ERROR="stop"),
    ),
    "events refused": Incident(
        events_refused,
        _alerts("DeadLettersWaiting"),
        "dead-letters",
        moves={
            "How many dead letters were stored?": ("balances", "rises"),
            "What becomes of the events?": ("failed", "rises"),
        },
    ),
    "Collector killed": Incident(
        collector_killed,
        frozenset({"CollectorDown"}),
        "collector-down",
        held_back=_alerts("ExporterSilent"),
        may=_alerts("SpansDropped"),
        moves={
            "How many spans wait?": ("otel", "rises"),
            "In which state is each exporter?": ("failing", "rises"),
            "When did each exporter last deliver?": ("otel", "rises"),
        },
    ),
    "wrong address": Incident(
        released(EVENTCORE_EXPORTERS__OTEL__ENDPOINT="http://127.0.0.1:9"),
        _alerts("ExporterSilent"),
        "exporter-silent",
        may=_alerts("SpansDropped"),
        moves={"Do export cycles succeed?": ("otel spans", "rises")},
    ),
    "too many spans": Incident(
        released(
            "tests.stack.releases:chatty",
            EVENTCORE_EXPORTERS__OTEL__PIPELINE__CPU_BUDGET="0.03",
            EVENTCORE_EXPORTERS__OTEL__PIPELINE__SPAN_QUEUE="1000",
        ),
        _alerts("SpansDropped"),
        "spans-dropped",
        moves={
            "What becomes of the spans?": ("dropped", "rises"),
            "What does telemetry cost?": ("otel", "rises"),
            "How many traces does sampling leave out?": ("bank", "rises"),
        },
    ),
    "type for each request": Incident(
        released("tests.stack.releases:type_for_each_request", EVENTCORE_TELEMETRY__SERIES_LIMIT="100"),
        _alerts("SeriesCapReached"),
        "series-cap",
        moves={"How large is the page that Prometheus reads?": ("bank", "rises")},
    ),
    "event loop blocked": Incident(
        released("tests.stack.releases:blocking"),
        _alerts("EventLoopBlocked"),
        "event-loop-blocked",
        moves={
            "Is one worker slower than the others?": ("p99", "rises"),
            "Is the event loop of a worker blocked?": ("degraded", "rises"),
        },
    ),
    "holder frozen": Incident(
        worker_frozen(holder=True), _alerts("ServiceDown"), "service-down", before=released(**_PATIENT), may=_BEHIND
    ),
    "worker frozen": Incident(
        worker_frozen(holder=False),
        _alerts("WorkerFrozen"),
        "worker-frozen",
        may=_BEHIND,
        moves={
            "Does each worker answer?": ("worker", "falls"),
            "How much processor does the service use?": ("worker", "falls"),
        },
        before=released(**_PATIENT),
    ),
    "disk filled": Incident(disk_filled, _alerts("DiskFull"), "disk-full", before=on_a_small_disk),
}
"""The incidents, by a short name."""

NOT_MEANT: Final = frozenset(
    {
        # They change with a release, and not with a fault.
        "How many streams does a command read and write?",
        "How many instruments do the exporters not show?",
    }
)
"""Titles of the panels that are meant for no fault."""
