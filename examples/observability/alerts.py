"""The alerts: each with what it means, how urgent it is, and the runbook page that mends it.

Times are in seconds of production; ``rules`` writes them as they are, or many times shorter for a test. ``{w:300}`` in an
expression is such a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0

FAILED: Final = "eventcore:commands_failed:ratio_{}"
"""The recorded share of commands that fail, by service and store, over a window such as ``5m``."""
WINDOWS: Final = {"5m": 5 * MINUTE, "30m": 30 * MINUTE, "1h": HOUR, "6h": 6 * HOUR, "3d": 3 * DAY}
OBJECTIVE: Final = 0.999
"""The share of commands that shall not fail. A rejection by a business rule is no failure."""


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        runbook: the name of its page in ``docs/runbooks``.
        severity: ``page``: somebody is woken up. ``ticket``: it can wait until the morning.
        wait: seconds for which the expression holds before the alert fires.
        summary: one sentence, with labels of the series.
        keep: seconds for which it goes on firing after the expression has ended, so that a scrape that fails does not end it.
            A cause lasts at least as long as the windows of the alerts that it holds back; otherwise those would fire when it
            has been mended.
        least: seconds below which a faster scale does not shorten ``wait``, because something that lasts so long has no scale:
            a health check that stays degraded for 30 seconds, or a hiccup of the machine.
    """

    name: str
    runbook: str
    severity: Literal["page", "ticket"]
    expression: str
    wait: float
    summary: str
    keep: float = 2 * MINUTE
    least: float = 0.0

    def wait_at(self, scale: float) -> float:
        """``wait`` with times that are ``scale`` times shorter."""
        return max(self.wait / scale, min(self.wait, self.least))


@dataclass(frozen=True)
class Inhibition:
    """While ``cause`` fires, ``effects`` are not sent, for the same values of the labels ``equal``."""

    cause: str
    effects: tuple[str, ...]
    equal: tuple[str, ...]


def _burning(fast: str, slow: str, factor: float) -> str:
    limit = f"{factor:g} * {1 - OBJECTIVE:.3f}"
    return f"{FAILED.format(slow)} > {limit} and {FAILED.format(fast)} > {limit}"


def _not_healthy(check: str, by: str = "service, store") -> str:
    return f'min by ({by}) (eventcore_health_status{{check="{check}",status="healthy"}}) == 0'


ALERTS: Final = (
    Alert(
        "EventcoreServiceDown",
        "service-down",
        "page",
        # Whatever the job is called: the label is what the README asks for.
        'up{service!=""} == 0',
        MINUTE,
        "Prometheus gets no metrics from {{ $labels.service }}: the service is down or cannot be reached.",
        # A release that takes so long is none.
        least=25,
    ),
    Alert(
        "EventcoreStoreAway",
        "store-away",
        "page",
        "max by (service, store) (eventcore_store_up) == 0",
        MINUTE / 2,
        "No worker of {{ $labels.service }} gets an answer from the database of the store {{ $labels.store }}.",
        keep=10 * MINUTE,
    ),
    Alert(
        "EventcoreBreakerOpen",
        "store-away",
        "ticket",
        'max by (service, store, worker) (eventcore_store_breaker_state{state=~"open|half_open"}) == 1',
        MINUTE,
        "Worker {{ $labels.worker }} of {{ $labels.service }} fails every command at once: it does not reach the database.",
        # The health check, which finds a store away for all workers, asks every five seconds.
        least=15,
    ),
    Alert(
        "EventcoreCommandsFailingFast",
        "commands-failing",
        "page",
        _burning("5m", "1h", 14.4),
        2 * MINUTE,
        "{{ $value | humanizePercentage }} of the commands of {{ $labels.service }} fail: a month's errors in two days.",
    ),
    Alert(
        "EventcoreCommandsFailing",
        "commands-failing",
        "page",
        _burning("30m", "6h", 6),
        15 * MINUTE,
        "{{ $value | humanizePercentage }} of the commands of {{ $labels.service }} fail: a month's errors in five days.",
    ),
    Alert(
        "EventcoreCommandsFailingSlowly",
        "commands-failing",
        "ticket",
        _burning("6h", "3d", 1),
        HOUR,
        "{{ $value | humanizePercentage }} of the commands of {{ $labels.service }} fail: more than the objective allows.",
    ),
    Alert(
        "EventcoreConflictsEscaping",
        "conflicts-escaping",
        "ticket",
        'sum by (service, store, command_type) (rate(eventcore_commands_conflicts_total{resolution="escaped"}[{w:300}])) '
        "> 0.01 * sum by (service, store, command_type) (rate(eventcore_commands_total[{w:300}]))",
        5 * MINUTE,
        "More than 1 % of {{ $labels.command_type }} give up after every retry, because others write the same streams.",
    ),
    Alert(
        "EventcorePoolExhausted",
        "pool-exhausted",
        "page",
        "sum by (service, store) (rate(eventcore_store_pool_timeouts_total[{w:300}])) > 0",
        3 * MINUTE,
        "Calls of {{ $labels.service }} get no connection to the store {{ $labels.store }} within their timeout.",
    ),
    Alert(
        "EventcoreAppendLockWaited",
        "append-lock",
        "page",
        # A wait is in the histogram when it ends; the health check also sees one that does not end.
        'histogram_quantile(0.9, sum by (service, store, le) (rate(eventcore_store_lock_wait_seconds_bucket{lock="append"}'
        f"[{{w:300}}]))) > 0.5 or {_not_healthy('append')}",
        2 * MINUTE,
        "Appends to the store {{ $labels.store }} wait for the lock that puts them in order: something holds it for long.",
    ),
    Alert(
        "EventcoreProjectionUnattended",
        "projection-unattended",
        "page",
        "max by (service, store, projection) (eventcore_projections_leader) == 0",
        3 * MINUTE,
        "No process runs the projection {{ $labels.projection }} of {{ $labels.service }}: its read model stands still.",
    ),
    Alert(
        "EventcoreProjectionStuck",
        "projection-stuck",
        "page",
        "max by (service, store, projection) (eventcore_projections_lag) > 0 and "
        "max by (service, store, projection) (changes(eventcore_projections_position[{w:300}])) == 0",
        5 * MINUTE,
        "The projection {{ $labels.projection }} is run, but has applied nothing though {{ $value }} events wait.",
    ),
    Alert(
        "EventcoreProjectionBehind",
        "projection-stuck",
        "ticket",
        "max by (service, store, projection) (eventcore_projections_lag_time_seconds) > {s:300}",
        5 * MINUTE,
        "The read model {{ $labels.projection }} is {{ $value | humanizeDuration }} old.",
        least=15,
    ),
    Alert(
        "EventcoreDeadLettersWaiting",
        "dead-letters",
        "ticket",
        _not_healthy("dead_letters"),
        MINUTE,
        "Projections of {{ $labels.service }} have put events aside that they could not apply.",
    ),
    Alert(
        "EventcoreExporterSilent",
        "exporter-silent",
        "ticket",
        # A process that records no span has none to deliver, so that the age of its last delivery says nothing.
        'max by (service, exporter, signal) (eventcore_exporters_last_success_age_seconds{signal="metrics"} > {s:300} or '
        'eventcore_exporters_last_success_age_seconds{signal="spans"} > {s:300} '
        "and on (service, worker, exporter) eventcore_exporters_spans_pending > 0) or "
        'max by (service, exporter) (eventcore_exporters_state{state=~"failing|stalled|failed"}) == 1',
        5 * MINUTE,
        "The exporter {{ $labels.exporter }} of {{ $labels.service }} delivers nothing.",
    ),
    Alert(
        "EventcoreSpansDropped",
        "spans-dropped",
        "ticket",
        'sum by (service, exporter, reason) (rate(eventcore_exporters_spans_total{outcome="dropped",reason!="shutdown"}'
        "[{w:300}])) > 0",
        5 * MINUTE,
        "The exporter {{ $labels.exporter }} of {{ $labels.service }} drops spans: {{ $labels.reason }}.",
    ),
    Alert(
        "EventcoreSeriesCapReached",
        "series-cap",
        "ticket",
        "sum by (service, instrument) (rate(eventcore_series_overflow_total[{w:900}])) > 0",
        5 * MINUTE,
        "{{ $labels.instrument }} has more series than its limit: values of new series go into an overflow series.",
    ),
    Alert(
        "EventcoreEventLoopBlocked",
        "event-loop-blocked",
        "ticket",
        _not_healthy("event_loop", "service, store, worker"),
        MINUTE,
        "Code blocks the event loop of worker {{ $labels.worker }} of {{ $labels.service }} for half a second or more.",
        least=40,
    ),
    Alert(
        "EventcoreWorkerFrozen",
        "worker-frozen",
        "page",
        "min by (service, worker) (eventcore_exporters_worker_up) == 0",
        2 * MINUTE,
        "Worker {{ $labels.worker }} of {{ $labels.service }} does not answer the other workers.",
    ),
    Alert(
        "EventcoreDiskFull",
        "disk-full",
        "page",
        _not_healthy("disk"),
        5 * MINUTE,
        "The disk of the store {{ $labels.store }} of {{ $labels.service }} is nearly full.",
    ),
    Alert(
        "CollectorDown",
        "collector-down",
        "ticket",
        'up{job="collector"} == 0',
        5 * MINUTE,
        "The OpenTelemetry Collector is down: traces do not reach Jaeger.",
        least=15,
        keep=10 * MINUTE,
    ),
)

# One cause is one message. A database that is away makes commands fail, projections stop, and checks that ask it fail.
INHIBITIONS: Final = (
    Inhibition(
        "EventcoreServiceDown",
        tuple(alert.name for alert in ALERTS if alert.name.startswith("Eventcore") and alert.name != "EventcoreServiceDown"),
        ("service",),
    ),
    Inhibition(
        "EventcoreStoreAway",
        (
            *("EventcoreBreakerOpen", "EventcoreCommandsFailingFast", "EventcoreCommandsFailing", "EventcorePoolExhausted"),
            *("EventcoreCommandsFailingSlowly", "EventcoreAppendLockWaited", "EventcoreProjectionUnattended"),
            *("EventcoreProjectionStuck", "EventcoreProjectionBehind", "EventcoreDeadLettersWaiting"),
        ),
        ("service", "store"),
    ),
    # The same error budget over several windows.
    Inhibition(
        "EventcoreCommandsFailingFast", ("EventcoreCommandsFailing", "EventcoreCommandsFailingSlowly"), ("service", "store")
    ),
    Inhibition("EventcoreCommandsFailing", ("EventcoreCommandsFailingSlowly",), ("service", "store")),
    Inhibition(
        "EventcoreProjectionUnattended",
        ("EventcoreProjectionStuck", "EventcoreProjectionBehind"),
        ("service", "store", "projection"),
    ),
    Inhibition("EventcoreProjectionStuck", ("EventcoreProjectionBehind",), ("service", "store", "projection")),
    # The Collector has no service: it is everybody's.
    Inhibition("CollectorDown", ("EventcoreExporterSilent", "EventcoreSpansDropped"), ()),
    Inhibition("EventcoreExporterSilent", ("EventcoreSpansDropped",), ("service", "exporter")),
)


def recordings() -> Iterator[tuple[str, str]]:
    """The names and expressions that the alerts and the dashboards build on."""
    for window, seconds in WINDOWS.items():
        rate = f"rate(eventcore_commands_total{{}}[{{w:{seconds:g}}}])"
        failed = rate.replace("{}", '{outcome=~"error|conflict"}')
        every = rate.replace("{}", "")
        yield FAILED.format(window), f"sum by (service, store) ({failed}) / sum by (service, store) ({every})"
