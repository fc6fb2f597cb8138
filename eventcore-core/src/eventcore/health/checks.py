"""The checks of the store itself and of its exporters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, final, runtime_checkable

import msgspec

from eventcore.catalogue import BackendInstruments
from eventcore.ground import absolute_path, in_background
from eventcore.health.bounded import Results
from eventcore.health.loop_watch import LoopWatch
from eventcore.health.settings import HealthSettings
from eventcore.health.values import CheckResult, degraded, healthy, unhealthy
from eventcore.stores.base import Backend
from eventcore.stores.sampling import BackendCounters, SupportsProbe, SupportsSampling
from eventcore.telemetry import AbsentExporter, Telemetry

if TYPE_CHECKING:
    from eventcore.exporting.delivery.pipeline import Pipeline

# A wait that is this many times as long as one that degrades is unhealthy.
_FAR_TOO_LONG: Final = 5
# Seconds for which a wait that ended without a connection, and a failed append, count.
_REMEMBERED: Final = 30.0
# Seconds that an exporter may be loading.
_LOADING: Final = 30.0
_FILE_GONE: Final = "the file of the store is gone: what is written now is lost when the store is closed"
_SEE_STACK: Final = "the log of eventcore.loop shows the code"
_NO_ANSWER: Final = "the store does not answer, see the check 'store'"


@runtime_checkable
class _InFile(Protocol):
    """A backend that keeps its events in a file of this machine."""

    path: str


@final
class StoreChecks:
    """Checks whether the store can be reached, and whether calls wait too long for a connection or for the append lock."""

    def __init__(self, backend: Backend, instruments: BackendInstruments, settings: HealthSettings) -> None:
        self._backend = backend
        self._instruments = instruments
        self._settings = settings
        self._counters = backend.counters if isinstance(backend, SupportsSampling) else BackendCounters()
        self._path = absolute_path(backend.path) if isinstance(backend, _InFile) else None
        # The waits without a connection that were counted before, and when their number last grew.
        self._timeouts = 0
        self._timeout_at: float | None = None
        # When the store gave no answer, last, and whether the newest of those waits can be blamed on that.
        self._away_at: float | None = None
        self._timeout_by_outage = False

    async def reach(self) -> Results:
        """One real call to the store."""
        begun = monotonic()
        if isinstance(self._backend, SupportsProbe):
            head = await self._backend.probe()
        else:
            head = await self._backend.log.head_position()
        return {"store": healthy(head_position=head, seconds=monotonic() - begun)}

    def why_missing(self, result: CheckResult) -> CheckResult:
        """The result of a ``reach`` that has no answer, with its cause, as far as it is known, and with what to do."""
        problem = self._counters.connection_problem
        if problem is None:
            problem = "it hangs, is overloaded, or another session holds a lock that reading needs"
        return msgspec.structs.replace(result, reason=f"{result.reason}: {problem}")

    async def disk(self) -> Results:
        """How much of the disk of a store in a file is free. In a thread: a network file system may hang."""
        if (path := self._path) is None:
            return {}
        import shutil  # takes three milliseconds, and most stores are on a server

        try:
            usage = await asyncio.wrap_future(in_background(lambda: shutil.disk_usage(path), "eventcore-health-disk"))
        except FileNotFoundError:
            # The operating system keeps a deleted file for those that have it open, so commands still succeed.
            return {"disk": unhealthy(f"{_FILE_GONE}; stop the process, and restore the file from a backup")}
        figures = {"free_bytes": usage.free, "total_bytes": usage.total}
        reason = f"{usage.free / (1 << 20):,.0f} MiB of the disk are free; free some, before writes fail"
        if usage.free >= self._settings.disk_free:
            return {"disk": healthy(**figures)}
        return {"disk": (degraded if usage.free * 10 >= self._settings.disk_free else unhealthy)(reason, **figures)}

    def waits(self, *, answers: bool) -> Results:
        """Appends and calls that wait. Reads plain numbers only.

        Args:
            answers: whether the store answers ``reach``. While it does not, calls hold their connections and wait for it: no
                larger pool would help, and no lock is the cause.
        """
        if not answers:
            self._away_at = monotonic()
        results = {"append": self._append(answers=answers)}
        if self._counters.connections_limit is not None:
            results["pool"] = self._pool(self._counters.connections_limit, answers=answers)
        return results

    def _append(self, *, answers: bool) -> CheckResult:
        waiting = self._instruments.append_wait()
        failure = self._instruments.append_failure
        limit = self._settings.append_after
        if waiting is not None and waiting > limit:
            reason = f"an append has been waiting for {waiting:.1f} s: "
            reason += "another session may hold the append lock" if answers else _NO_ANSWER
            return (degraded if waiting <= limit * _FAR_TOO_LONG else unhealthy)(reason, waiting_seconds=waiting)
        if failure is not None and (ago := monotonic() - failure[0]) <= _REMEMBERED:
            # Not unhealthy: a process that is not ready gets no command, and so could never show that appends succeed again.
            return degraded(f"the last append failed {ago:.0f} s ago: {failure[1]}", waiting_seconds=waiting or 0.0)
        return healthy(waiting_seconds=waiting or 0.0)

    def _pool(self, limit: int, *, answers: bool) -> CheckResult:
        counters, settings = self._counters, self._settings
        now = monotonic()
        oldest = next(iter(counters.connection_waits.values()), now)
        waiting = now - oldest
        timeouts = counters.connection_timeouts or 0
        if timeouts > self._timeouts:
            # Some of these calls began to wait before the store was back.
            self._timeout_at, self._timeout_by_outage = now, self._away_at is not None and now - self._away_at <= _REMEMBERED
        self._timeouts = timeouts
        figures = {
            "used": counters.connections_used,
            "idle": counters.connections_idle,
            "limit": limit,
            "waiting_seconds": waiting,
            "timeouts": timeouts,
        }
        if waiting > settings.append_after:
            reason = f"a call has been waiting for a connection for {waiting:.1f} s: "
            reason += f"all {limit} may be in use; raise pool, or look for held locks" if answers else _NO_ANSWER
            return (degraded if waiting <= settings.append_after * _FAR_TOO_LONG else unhealthy)(reason, **figures)
        if self._timeout_at is not None and now - self._timeout_at <= _REMEMBERED:
            reason = "calls have got no connection within their timeout"
            if not self._timeout_by_outage:
                return degraded(f"{reason}; raise pool, or look for held locks", **figures)
            cause = "while the store did not answer" if answers else f"since {_NO_ANSWER}"
            return degraded(f"{reason} {cause}", **figures)
        return healthy(**figures)


def check_loop(watch: LoopWatch, settings: HealthSettings) -> CheckResult:
    """Whether callbacks block the event loop. Also for other threads, which see it while it is blocked."""
    now = watch.blocked_for()
    if now >= max(settings.blocked_after, 1.0):
        return unhealthy(f"the event loop has been blocked for {now:.1f} s; {_SEE_STACK}", blocked_seconds=now)
    if (longest := watch.longest_block()) is None:
        return healthy(blocked_seconds=0.0)
    seconds, ago = longest
    when = "just now" if ago < 1 else f"{ago:.0f} s ago"
    reason = f"a callback blocked the event loop for {seconds:.1f} s, {when}; {_SEE_STACK}"
    return degraded(reason, blocked_seconds=seconds)


@final
class ExporterChecks:
    """Checks the exporters by their state. Reads plain values only."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._loading_since: dict[str, float] = {}

    def results(self) -> Results:
        """A result for each exporter."""
        return dict(self._each())

    def _each(self) -> Iterator[tuple[str, CheckResult]]:
        for exporter in self._telemetry.exporters():
            if exporter.state == "loading":
                since = self._loading_since.setdefault(exporter.name, monotonic())
                result = self._loading(exporter, monotonic() - since)
            else:
                self._loading_since.pop(exporter.name, None)
                result = _exporter(exporter)
            yield f"exporter:{exporter.name}", result

    def _loading(self, exporter: Pipeline | AbsentExporter, seconds: float) -> CheckResult:
        if seconds <= _LOADING:
            return healthy(state="loading")
        return degraded(f"loading for {seconds:.0f} s: {exporter.problem}", state="loading")


def _exporter(exporter: Pipeline | AbsentExporter) -> CheckResult:
    ages = [age for cycles in exporter.stats().cycles.values() if (age := cycles.last_success_age()) is not None]
    # The oldest of its signals: one that goes well does not hide another.
    figures = {"state": exporter.state, "last_success_age": max(ages, default=None)}
    if exporter.state == "running":
        return healthy(**figures)
    reason = f"{exporter.state}: {exporter.problem}" if exporter.problem else exporter.state
    return (degraded if exporter.state == "failing" else unhealthy)(reason, **figures)
