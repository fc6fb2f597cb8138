"""Evaluates the health of one store: all checks side by side, within a time limit, and kept for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Literal, TypeAlias, final, get_args

import msgspec

from eventcore.catalogue import Instruments, ObservedBackend
from eventcore.catalogue.metrics import HealthMetrics
from eventcore.ground import OwnedTask, cancel_and_wait, describe_error, did_you_mean, in_background, spawn
from eventcore.ground.arguments import check_seconds
from eventcore.health.bounded import NO_ANSWER, BoundedCheck, HealthCheck, Results, own_check
from eventcore.health.checks import ExporterChecks, StoreChecks, check_loop
from eventcore.health.loop_watch import LoopWatch
from eventcore.health.projections import ProjectionChecks
from eventcore.health.settings import HealthSettings
from eventcore.health.values import CheckResult, Health, HealthStatus, clean, degraded, healthy, unhealthy
from eventcore.stores.base import Backend
from eventcore.telemetry import Telemetry

Phase: TypeAlias = Literal["new", "opening", "open", "draining", "closed"]
"""Where the store is in its life."""

# The last result is given to callers that cannot wait for the end of the next evaluation, for so many times its limit.
_OLDEST: Final = 2
# Seconds that a caller waits at most, whatever it asks for.
_LONGEST: Final = 60.0
_MAX_OWN_CHECKS: Final = 100
# Checks that a store has under some circumstances only.
_SOMETIMES: Final = ("append", "dead_letters", "disk", "event_loop", "pool")
_STATUSES: Final[tuple[HealthStatus, ...]] = get_args(HealthStatus)
_NOT_OPEN: Final[Mapping[Phase, str]] = {
    "new": "the store has not been opened yet",
    "opening": "the store is being opened",
    "closed": "the store is closed",
}


@final
class HealthMonitor:
    """Evaluates and keeps the health of a store. Belongs to the event loop of the store, except ``from_thread`` and ``kept``.

    Args:
        name: the name of the store.
        backend: the backend itself, which a real call asks.
        observed: the same backend as projections use it.
        instruments: the metrics of the store.
        telemetry: where the metric and the spans of health go, and whose exporters are checked.
        settings: the limits.

    Attributes:
        phase: where the store is in its life; set by the store.
        problem: why it is still opening.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        observed: ObservedBackend,
        instruments: Instruments,
        telemetry: Telemetry,
        settings: HealthSettings,
    ) -> None:
        self.phase: Phase = "new"
        self.problem = ""
        self.settings: Final = settings
        self.telemetry: Final = telemetry
        self.name: Final = name
        self._store = StoreChecks(backend, instruments.backend, settings)
        self._exporters = ExporterChecks(telemetry)
        self._projections = ProjectionChecks(observed.log, observed.ledger, instruments.projections, settings)
        # Calls to a store have limits of their own, and are not cancelled.
        self._bounded = {
            "store": BoundedCheck("store", self._store.reach, 60.0, cancels=False),
            "projections": BoundedCheck("projections", self._projections.results, 60.0, cancels=False),
            "disk": BoundedCheck("disk", self._store.disk, 60.0, cancels=False),
        }
        self._own: dict[str, BoundedCheck] = {}
        self._running = _Running()
        self._current: dict[str, CheckResult] = {}
        self._evaluated_at: float | None = None
        # How many checks of the application the last evaluation had; -1 before the first one.
        self._evaluated = -1
        self._status = HealthMetrics(telemetry).status.add_callback(self._values)

    def add(self, name: str, check: HealthCheck, timeout: float, *, essential: bool) -> None:
        """See ``EventStore.add_health_check``."""
        check_seconds("timeout", timeout, at_most=60.0)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 100:
            raise ValueError(f"name={name!r:.80}; expected 1 to 100 printable characters")
        if name in self._bounded or name in self._own or name in ("pool", "append", "event_loop", "dead_letters"):
            raise ValueError(f"there is a health check called {name!r} already; choose another name")
        if name.startswith(("projection:", "exporter:")):
            raise ValueError(f"name={name!r}; names that begin with 'projection:' or 'exporter:' belong to the store")
        if not callable(check):
            raise ValueError(f"check={check!r:.80}; expected a function without arguments")
        if len(self._own) >= _MAX_OWN_CHECKS:
            raise ValueError(f"the store has {_MAX_OWN_CHECKS} health checks of the application already; combine some")
        self._own[name] = own_check(name, check, timeout, essential=essential)

    # The life of the store

    def opened(self) -> None:
        """Begin to evaluate, on the running loop."""
        running = self._running
        running.loop = asyncio.get_running_loop()
        lag = HealthMetrics(self.telemetry).loop_lag.labels(self.name)
        running.watch = LoopWatch(self.settings.blocked_after, record_lag=lag.record)
        running.regular = spawn(self._regularly(), "eventcore-health")
        self.phase, self.problem = "open", ""
        # Opening was a real call to the store. So the first probe need not wait for another one.
        self._keep({"store": healthy()})
        self._evaluated = -1

    async def stop(self) -> None:
        """End every task of this monitor."""
        self.phase = "closed"
        running, self._running = self._running, _Running()
        if running.watch is not None:
            running.watch.stop()
        for task in (running.regular, running.evaluation):
            if task is not None:
                await cancel_and_wait(task)
        await asyncio.gather(*(check.close() for check in (*self._bounded.values(), *self._own.values())))

    def closed(self) -> None:
        """Stop showing what is true of an open store only."""
        self.phase, self._running = "closed", _Running()
        self._status.close()

    # Asking

    async def evaluate(self, timeout: float) -> Health:
        """The health now, within ``timeout`` seconds: a kept result, or a new one."""
        running = self._running
        if self.phase not in ("open", "draining"):
            return self.kept()
        if running.loop is not asyncio.get_running_loop():
            return await asyncio.wrap_future(in_background(lambda: self.from_thread(timeout), "eventcore-health-other-loop"))
        deadline = monotonic() + min(timeout, _LONGEST)
        while self._is_old():
            evaluation = running.evaluation
            if evaluation is None or evaluation.done():
                # Also if this caller is cancelled: others may wait for the same evaluation.
                evaluation = running.evaluation = spawn(self._evaluate(), "eventcore-health-evaluation")
            await asyncio.wait([evaluation], timeout=max(0.0, deadline - monotonic()))
            if not evaluation.done():
                # A call may be slow, or the loop busy. An evaluation ends by its own limit, and then replaces the last result.
                if self._evaluated_at is not None and monotonic() - self._evaluated_at <= _OLDEST * self.settings.limit:
                    break
                return self._without_waiting(timeout)
            failure = asyncio.CancelledError("the store is closing") if evaluation.cancelled() else evaluation.exception()
            if failure is not None:
                return self._assembled({}, missing=f"no result: {describe_error(failure)}")
            if self._evaluated == len(self._own):
                break
            # A check was added while the evaluation ran: the answer must not leave it out.
        return self.kept()

    def from_thread(self, timeout: float) -> Health:
        """``evaluate`` for another thread. While the event loop is blocked, the last result, and that it is blocked."""
        loop = self._running.loop
        if loop is None:
            return self.kept()
        if loop.is_closed():
            return self._assembled({}, missing="the event loop of the store has ended")
        asked = asyncio.run_coroutine_threadsafe(self.evaluate(timeout * 0.75), loop)
        try:
            return asked.result(timeout)
        except Exception:  # noqa: BLE001  # a blocked loop, or one that has just ended
            asked.cancel()
            return self.kept()

    def kept(self) -> Health:
        """The last result, and what is known without asking anybody. For any thread, at any time."""
        return self._assembled(self._current)

    def is_live(self) -> bool:
        """Whether the process makes progress."""
        watch = self._running.watch
        return watch is None or watch.blocked_for() < self.settings.dead_after

    # Evaluating

    def _is_old(self) -> bool:
        if self._evaluated_at is None or self._evaluated != len(self._own):
            return True
        return monotonic() - self._evaluated_at > self.settings.keep

    async def _regularly(self) -> None:
        while True:
            await self.evaluate(self.settings.limit)
            await asyncio.sleep(self.settings.interval)

    async def _evaluate(self) -> None:
        # What is there when a caller gives up waiting.
        results: dict[str, CheckResult] = {}
        self._running.results = results

        async def run(check: BoundedCheck) -> None:
            found = await check.run(self.settings.limit)
            if check.name == "store" and found["store"].reason.startswith(NO_ANSWER):
                found = {"store": clean(self._store.why_missing(found["store"]))}
            if "projections" in found:
                # The run as a whole has failed.
                found = {name: clean(result) for name, result in self._projections.without_store().items()}
            results.update(found)

        own = tuple(self._own.values())
        checks: Iterable[BoundedCheck] = (*self._bounded.values(), *own)
        async with asyncio.TaskGroup() as group:
            for check in checks:
                group.create_task(run(check))
        known = self._known(results["store"])
        known.update(self._without_check({**results, **known}))
        # Those of a `BoundedCheck` are clean already.
        results.update((name, clean(result)) for name, result in known.items())
        self._keep(results)
        self._evaluated = len(own)

    def _known(self, store: CheckResult) -> dict[str, CheckResult]:
        """The results of the checks that read values of this process, and ask no server."""
        known: dict[str, CheckResult] = {**self._store.waits(answers=store.status == "healthy"), **self._exporters.results()}
        if (watch := self._running.watch) is not None:
            known["event_loop"] = check_loop(watch, self.settings)
        return known

    def _without_waiting(self, timeout: float) -> Health:
        """The health when no evaluation ends in time, and the last one is too old: what has ended, and what is known."""
        missing = f"{NO_ANSWER} {timeout:g} s"
        results = dict(self._running.results)
        if "store" not in results:
            results["store"] = self._store.why_missing(unhealthy(missing))
        results.update(self._known(results["store"]))
        return self._assembled({name: self._dated(name, clean(result)) for name, result in results.items()}, missing=missing)

    def _without_check(self, results: Results) -> Results:
        """What ``essential`` names, and no check has: a misspelt name must not look like a check that passes."""
        known = sorted({*results, *_SOMETIMES})
        answers = results["store"].status != "unhealthy"
        found: dict[str, CheckResult] = {}
        for name in self.settings.essential_without_check(known):
            reason = f"'essential' names it, but there is no such check{did_you_mean(name, known)}"
            off = name.startswith("exporter:") and self.telemetry.configuration.exporters_off
            if off or any(letter in name for letter in "*?["):
                found[name] = degraded(reason)
            elif answers or not name.startswith("projection:"):
                found[name] = unhealthy(reason)
            else:
                found[name] = unhealthy("unknown, since the store does not answer")
        return found

    def _keep(self, results: Results) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        before = self._current
        current: dict[str, CheckResult] = {}
        for name, result in results.items():
            earlier = before.get(name)
            changed = earlier is None or earlier.status != result.status
            since = now if changed or earlier is None else earlier.since
            essential = result.essential or self._is_essential(name)
            current[name] = msgspec.structs.replace(result, since=since, essential=essential)
            if changed and result.status != "healthy":
                self._record_span(name, current[name])
        self._current = dict(sorted(current.items()))
        self._evaluated_at = monotonic()

    def _record_span(self, name: str, result: CheckResult) -> None:
        """One span when a check begins to fail or degrade, and none while it stays so: probes come every few seconds."""
        with self.telemetry.span("health check") as span:
            span.set_attribute("eventcore.health.check", name)
            span.set_attribute("eventcore.health.status", result.status)
            span.set_attribute("eventcore.store", self.name)
            if result.status == "unhealthy":
                span.set_status("error", result.reason)
            else:
                span.add_event("degraded", {"reason": result.reason})

    def _assembled(self, results: Results, missing: str = "") -> Health:
        checks = dict(results)
        # What has no result is not healthy.
        absent = unhealthy(missing or "it has not been asked yet")
        for name in ("store", *self._own, *(self._current if missing else ())):
            if name not in checks:
                checks[name] = msgspec.structs.replace(absent, essential=self._is_essential(name))
        if (watch := self._running.watch) is not None:
            checks["event_loop"] = self._loop_result(watch)
        if (reason := _NOT_OPEN.get(self.phase)) is not None:
            if self.phase == "opening" and self.problem:
                reason = f"{reason}: {self.problem}"
            checks = {"store": msgspec.structs.replace(clean(unhealthy(reason)), essential=True)}
        failing = any(result.essential and result.status == "unhealthy" for result in checks.values())
        troubled = any(result.status != "healthy" for result in checks.values())
        draining = self.phase == "draining"
        return Health(
            status="unhealthy" if failing else "degraded" if troubled else "healthy",
            live=self.is_live(),
            ready=not failing and self.phase == "open",
            draining=draining,
            store=self.name,
            checks=dict(sorted(checks.items())),
        )

    def _dated(self, name: str, result: CheckResult) -> CheckResult:
        """A result that is not kept, with what the kept one of the same status says."""
        earlier = self._current.get(name)
        since = None if earlier is None or earlier.status != result.status else earlier.since
        return msgspec.structs.replace(result, essential=self._is_essential(name), since=since)

    def _is_essential(self, name: str) -> bool:
        own = self._own.get(name)
        return self.settings.is_essential(name) or (own is not None and own.essential)

    def _loop_result(self, watch: LoopWatch) -> CheckResult:
        return self._dated("event_loop", clean(check_loop(watch, self.settings)))

    def _values(self) -> dict[tuple[str, ...], int]:
        if self.phase not in ("open", "draining"):
            return {}
        if not (checks := self._assembled(self._current).checks if self._current else None):
            return {}
        return {
            (self.name, name, status): int(status == result.status) for name, result in checks.items() for status in _STATUSES
        }


@final
class _Running:
    """What exists while the store is open."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.watch: LoopWatch | None = None
        self.regular: OwnedTask[None] | None = None
        self.evaluation: OwnedTask[None] | None = None
        self.results: dict[str, CheckResult] = {}
