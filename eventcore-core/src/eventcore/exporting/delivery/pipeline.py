"""A pipeline delivers to one exporter. This is its state, and what other threads do with it; its thread is in ``worker``."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Final

import msgspec

from eventcore.exporting.context import HiddenKind, Signal
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.hook_runner import HookRunner, RunningHook
from eventcore.exporting.delivery.report import CycleStats, ExporterReport, ExporterState, PipelineStats
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.delivery.span_queue import SpanQueue
from eventcore.exporting.delivery.status import STOPPED, PipelineStatus, Request
from eventcore.exporting.forking import ForkGuard
from eventcore.exporting.hidden import HiddenInstruments
from eventcore.exporting.logs import bounded_logger
from eventcore.exporting.shaping import Deltas
from eventcore.ground import leave_to_parent, log_safely
from eventcore.recording.spans import Span

# A hook that has overrun its time by so many seconds is stalled, and not merely late.
_STALL_GRACE: Final = 0.5
WITHOUT_BACKEND: Final = "EVENTCORE_EXPORTERS=none is for a program without a backend"
"""The end of what is said when not everything was delivered."""

# Seconds between two log records about one pipeline's drops or stalls.
_LOG_PERIOD: Final = 10.0


class Pipeline:
    """What delivers to one exporter: its hooks, queue, requests, failure state and counters, shared with no other exporter.

    Every method may be called from any thread, and none waits for the exporter.

    Args:
        name: the exporter's name.
        handle: its checked hooks.
        settings: core's settings for it.
        predecessor: the pipeline that this one replaces, whose spans this one takes over.
        kept: the spans that ended while the exporter was loading; ``None`` when it was not late.

    Attributes:
        interval: seconds between metrics cycles; ``None`` for a pull exporter.
        hidden_instruments: the instruments that the exporter does not show, and why.
        deltas: the differences that an exporter gets whose ``temporality`` is ``"delta"``.
        logger: the exporter's logger.
        queue: the exporter's spans and their account.
        runner: calls the hooks. Used by the worker thread alone, except for ``runner.running`` and
            ``runner.shut_down_beside``.
        status: what the worker thread and other threads know and ask of each other.
        started: set when the exporter has started.
        finished: set when the worker thread has ended.
    """

    def __init__(
        self,
        name: str,
        handle: ExporterHandle,
        settings: PipelineSettings,
        predecessor: Pipeline | None = None,
        kept: SpanQueue | None = None,
    ) -> None:
        self.name = name
        self.handle = handle
        self.settings = settings
        self.interval = None if handle.interval is None else settings.interval or handle.interval
        self.logger: logging.Logger = bounded_logger(f"eventcore.exporters.{name}")
        capacity = settings.span_queue
        self.queue: SpanQueue = kept if kept is not None else SpanQueue(capacity)
        if predecessor is not None:
            self.queue = predecessor.queue.successor(capacity)
        self.runner = HookRunner(handle, name, ForkGuard(self.logger))
        # The order is that of the handle, which the clock and reports keep.
        wanted = settings.signals
        signals: tuple[Signal, ...] = tuple(each for each in handle.signals if wanted is None or each in wanted)
        self.deltas: Deltas = Deltas(predecessor.deltas if predecessor else None)
        self.status = PipelineStatus(signals)
        self.started, self.finished = self.status.started, self.status.finished
        self._trouble = _TroubleLog(self.logger)
        self.hidden_instruments = HiddenInstruments(self.logger)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What is exported: what the exporter can take, unless the settings leave it out."""
        return tuple(self.status.cycles)

    @property
    def takes_spans(self) -> bool:
        """Whether spans are exported."""
        return "spans" in self.signals

    def offer(self, spans: Sequence[Span], lost: int) -> None:
        """Queue ended spans, and count ``lost`` ones as dropped. Called by the distributor."""
        if self.takes_spans:
            # Queue first, then notify: the worker looks at the queue after it has been woken.
            self.queue.offer(spans, lost)
            self.status.notify()

    def export_now(self, timeout: float) -> Future[None]:
        """Ask for a metrics cycle; what the exporter calls as ``context.export_now``."""
        if self.runner.in_hook():
            # The worker thread would wait for a cycle that only the worker thread can run.
            raise RuntimeError(
                "export_now was called inside a hook: the cycle that it asks for cannot begin before the hook returns"
            )
        if "metrics" not in self.signals:
            raise RuntimeError(f"exporter {self.name!r} takes no metrics: there is nothing to export now")
        if self.status.stopping.is_set():
            raise RuntimeError(STOPPED)
        return self.status.ask(flush=False, deadline=time.monotonic() + timeout)

    def before_fork(self, deadline: float) -> None:
        """Prepare the exporter for a fork; do not wait for a hook that runs beyond ``deadline`` (``time.monotonic``)."""
        self.runner.fork.before(deadline, in_hook=self.runner.in_hook())

    def leave_in_child(self) -> None:
        """In a forked child: leave all that belongs to the parent, and make the exporter again what it was when it was made."""
        self.runner.fork.after_in_child()
        # The event loop of `async def` hooks shares its epoll object with the parent: closing it here would disturb the parent.
        leave_to_parent(self)
        self.handle.restore()

    def never_start(self, problem: str) -> None:
        """Refuse everything from the beginning, and say why in each report. Instead of a worker."""
        self.queue.close()
        self.status.refusal = self.status.final_error = problem
        self.status.finished.set()

    def report_hidden(self, instrument: str, reason: str, kind: HiddenKind = "invalid") -> None:
        """Note that an instrument cannot be shown; what the exporter calls as ``context.report_hidden``."""
        self.hidden_instruments.report(instrument, reason, kind)

    @property
    def hidden(self) -> Mapping[str, str]:
        """By instrument, why the exporter cannot show it."""
        return self.hidden_instruments.reasons

    def force_stop(self, deadline: float) -> None:
        """Call ``shutdown`` from another thread, because the worker has not finished and time is short.

        It reaches an exporter in the middle of a hook, which can then close the connection that the
        hook waits for. When the hook returns, the worker calls ``shutdown`` again.
        """
        if not self.finished.is_set() and "shutdown" in self.handle.implemented:
            running = self.runner.running
            # An exporter that has not even been asked to start has nothing to shut down.
            was_called = self.started.is_set() or running is not None
            if was_called and (running is None or running.hook != "shutdown"):
                self.runner.shut_down_beside(max(deadline - time.monotonic(), 0.01))

    @property
    def state(self) -> ExporterState:
        """``loading``: ``start`` has not returned yet. ``stalled``: a hook has overrun its time and not
        returned. ``failing``: it cannot start, or its last cycle failed.
        """
        if self.finished.is_set():
            return "stopped"
        if self._stalled_hook() is not None:
            return "stalled"
        failing = (
            stats.failures_in_a_row and not self.status.not_taken(signal) for signal, stats in self.status.cycles.items()
        )
        if self.status.start_error or any(failing):
            return "failing"
        return "running" if self.started.is_set() else "loading"

    @property
    def problem(self) -> str:
        """What is wrong with the exporter, also that its ambient context is ignored; empty when nothing is."""
        if (running := self._stalled_hook()) is not None:
            seconds = time.monotonic() - running.since
            cpu = running.cpu_seconds()
            used = "" if cpu is None else f"; its thread has used {cpu:.1f} s of processor time"
            return f"hook {running.hook} has not returned for {seconds:.1f} s{used}"
        if self.status.start_error:
            return self.status.start_error
        if not self.started.is_set() and not self.finished.is_set():
            return "still loading: its hook start has not returned"
        problems = [f"{signal}: {stats.last_error}" for signal, stats in self.status.cycles.items() if stats.failures_in_a_row]
        if (ambient := self.status.ambient) is not None and ambient.problem:
            problems.append(f"ambient context: {ambient.problem}")
        return "; ".join(problems)

    def stats(self) -> PipelineStats:
        """The pipeline's counters."""
        return PipelineStats(
            spans=self.queue.counts() if self.takes_spans else None,
            cycles=self.status.cycles,
            cpu_seconds=self.runner.cpu_seconds + self.handle.cpu_elsewhere(),
        )

    def flush_report(self, request: Request, timeout: float) -> ExporterReport:
        """The report of a flush, at the end of the ``timeout`` seconds that the exporter had."""
        if request.done():
            problem = str(request.exception() or "")
        else:
            problem = f"no answer within {timeout:g} s: {self.problem or 'still exporting'}"
        return self._report(problem)

    def final_report(self, timeout: float) -> ExporterReport:
        """The report of a shutdown. What is not delivered by now is counted as dropped, and a later answer changes nothing."""
        if self.finished.is_set():
            problem = self.status.final_error
        else:
            problem = f"not stopped within {timeout:g} s: {self.problem or 'still exporting'}"
            self._log_hanging()
        # Closing empties the queue. The spans that a hook has count as unknown from now on.
        self.queue.close()
        self.status.answer_all("the pipeline was stopped")
        return self._report(problem)

    def _report(self, problem: str) -> ExporterReport:
        counts = self.queue.counts()
        metrics = self.status.cycles.get("metrics") or CycleStats()
        not_taken = [f"{signal}: {stats.last_error}" for signal, stats in self.status.cycles.items() if stats.unsupported]
        return ExporterReport(
            name=self.name,
            state=self.state,
            delivered=not problem,
            spans_recorded=counts.recorded,
            spans_exported=counts.exported,
            spans_dropped=counts.dropped,
            spans_unknown=counts.unknown,
            spans_pending=counts.pending,
            points_exported=metrics.points_exported,
            points_rejected=metrics.points_rejected,
            reason=problem or "; ".join(not_taken),
        )

    @property
    def in_flight(self) -> int:
        """Spans that a hook has been given and not yet answered for: whether they arrived is unknown."""
        return self.queue.handed

    def tick(self, now: float) -> None:
        """Fail late requests, log drops and stalls, and look after the exporter's process. Called ten times a second by the
        distributor.

        The worker cannot do this itself: it may hang in a hook.
        """
        if self.handle.look_after():
            self.status.notify()
        if self.status.requests:
            self.status.expire(now, f"exporter {self.name!r} had no time for it: {self.problem or 'busy'}")
        self._trouble.log(now, self.queue.counts().dropped, self.problem if self.state == "stalled" else "")

    def _log_hanging(self) -> None:
        """Say, once, which hook the last call of all waits for. A worker that is in no hook says itself what is missing."""
        running, status = self.runner.running, self.status
        if running is None or status.said_hanging:
            return
        status.said_hanging = True
        what = f"hook {running.hook} has not returned for {time.monotonic() - running.since:.1f} s"
        if running.hook == "shutdown":
            log_safely(self.logger, logging.WARNING, f"not shut down in time: {what}")
        else:
            log_safely(self.logger, logging.WARNING, f"not everything was delivered at shutdown: {what}; {WITHOUT_BACKEND}")

    def _stalled_hook(self) -> RunningHook | None:
        # Read once: the worker thread may replace it at any time.
        running = self.runner.running
        return running if running is not None and time.monotonic() > running.deadline + _STALL_GRACE else None


class _TroubleLog(msgspec.Struct):
    """Logs drops and stalls of one exporter at a bounded rate. Called by the distributor's thread alone."""

    logger: logging.Logger
    silent_until: float = 0.0
    logged_drops: int = 0
    was_stalled: bool = False

    def log(self, now: float, dropped: Mapping[str, int], stall: str) -> None:
        """Log the drops since the last record, and the beginning of a stall (``stall``: its description)."""
        if now < self.silent_until:
            return
        if (total := sum(dropped.values())) > self.logged_drops:
            reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count)
            self.logger.warning("dropped %d spans since the last message; in all: %s", total - self.logged_drops, reasons)
            self.logged_drops, self.silent_until = total, now + _LOG_PERIOD
        if stall and not self.was_stalled:
            self.logger.warning("stalled: %s", stall)
            self.silent_until = now + _LOG_PERIOD
        self.was_stalled = bool(stall)
