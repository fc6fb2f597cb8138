"""A pipeline drives one exporter: its own thread, clock, queue, deadlines and failure state, and nobody else's."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from math import inf
from typing import Any, Final

from eventcore.exporting.context import ExporterContext, RetryLater
from eventcore.exporting.delivery.budget import CpuBudget
from eventcore.exporting.delivery.cycles import Cycles, Delivery
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.hook_runner import HookRunner
from eventcore.exporting.delivery.report import ExporterReport, ExporterState
from eventcore.exporting.delivery.requests import Request, RequestBox
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.delivery.span_queue import SpanCounts, SpanQueue
from eventcore.exporting.delivery.stats import CycleStats, PipelineStats, Signal
from eventcore.exporting.logs import exporter_logger
from eventcore.recording.collector import Collector
from eventcore.recording.spans import AmbientContext, Span
from eventcore.recording.values import Resource

_PREDECESSOR_LIMIT: Final = 5.0
_STALL_GRACE: Final = 0.5
# Pipelines that are due within this time share a collection.
_TOGETHER: Final = 0.25
_LOG_PERIOD: Final = 10.0


class Pipeline:
    """Starts an exporter, exports to it until it is stopped, and tells how it does.

    Args:
        name: the exporter's name.
        handle: its checked hooks.
        settings: core's settings for it.
        collector: where metrics come from.
        resource: handed to the exporter.
        shown_settings: the plugin's settings with secrets masked, handed to the exporter.
        predecessor: the pipeline that this one replaces: it lets go of ports and files before this one starts.
        on_started: called in the worker thread when the exporter has started.
    """

    def __init__(
        self,
        name: str,
        handle: ExporterHandle,
        settings: PipelineSettings,
        *,
        collector: Collector,
        resource: Resource,
        shown_settings: Mapping[str, Any],
        predecessor: Pipeline | None = None,
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.handle = handle
        self.settings = settings
        self.interval = None if handle.interval is None else settings.interval or handle.interval
        self.logger: logging.Logger = exporter_logger(name)
        self.ambient: AmbientContext | None = None
        self.started = threading.Event()
        self.finished = threading.Event()
        self._stopping = threading.Event()
        self._predecessor = predecessor
        self._replaced = False
        self._on_started = on_started
        self._requests = RequestBox()
        self._stop_deadline = inf
        self.queue = SpanQueue(settings.span_queue)
        self._runner = HookRunner(handle, name)
        self._cycles = Cycles(handle, self._runner, settings, collector, self.queue)
        self.takes_spans = "export_spans" in handle.implemented
        takes_metrics = any(kind in handle.kinds for kind in ("counters", "gauges", "histograms"))
        self._stats: dict[Signal, CycleStats] = {}
        if takes_metrics:
            self._stats["metrics"] = CycleStats()
        if self.takes_spans:
            self._stats["spans"] = CycleStats()
        self._due: dict[Signal, float] = dict.fromkeys(self._stats, inf)
        self._budget = CpuBudget(settings.cpu_budget)
        self._start_error = ""
        self._final_error = ""
        self._log_at = 0.0
        self._logged_drops = 0
        self._stall_logged = False
        self._context = ExporterContext(
            name=name,
            resource=resource,
            settings=shown_settings,
            logger=self.logger,
            stopping=self._stopping,
            export_now=self._export_now,
        )
        self._thread = threading.Thread(target=self._run, name=f"eventcore-exporter-{name}", daemon=True)

    # Asked by others, from any thread

    def launch(self) -> None:
        """Begin to work, in the pipeline's own thread."""
        self._thread.start()

    def offer(self, spans: Sequence[Span], lost: int) -> None:
        """Take ended spans from the distributor, and ``lost`` ones into account."""
        if self.takes_spans:
            self.queue.offer(spans, lost)
            with self._requests.wake:
                self._requests.wake.notify()

    def request_flush(self, deadline: float) -> Future[str]:
        """Ask for everything recorded before now to be delivered; the future gives "" or why not."""
        return self._requests.ask(flush=True, deadline=deadline)

    def begin_stop(self, deadline: float, *, replaced: bool = False) -> None:
        """Ask the worker to deliver what it has and to shut the exporter down by ``deadline``.

        What a ``replaced`` one cannot deliver is its successor's, with the account of it.
        """
        self._replaced = self._replaced or replaced
        self._stop_deadline = min(self._stop_deadline, deadline)
        self._stopping.set()
        self._requests.close()

    def force_stop(self, deadline: float) -> None:
        """The worker has not come back from a hook: call ``shutdown`` beside it."""
        if not self.finished.is_set() and self.started.is_set() and "shutdown" in self.handle.implemented:
            running = self._runner.running
            if running is None or running.hook != "shutdown":
                self._runner.shut_down_beside(max(deadline - time.monotonic(), 0.01))

    def abandon(self) -> int:
        """Time is up: count what is left as dropped. Returns how many spans were in flight, their fate unknown."""
        if self._replaced:
            return 0
        self.adopt()
        in_flight = self.queue.close()
        self._requests.answer_all("the pipeline was stopped")
        return in_flight if not self.finished.is_set() else 0

    @property
    def stopping(self) -> bool:
        """Whether the pipeline has been asked to stop."""
        return self._stopping.is_set()

    @property
    def state(self) -> ExporterState:
        """How the exporter does; ``stalled`` means that a hook has overrun its time and not returned."""
        if self.finished.is_set():
            return "stopped"
        running = self._runner.running
        if running is not None and time.monotonic() > running.deadline + _STALL_GRACE:
            return "stalled"
        if self._start_error or any(stats.failures_in_a_row for stats in self._stats.values()):
            return "failing"
        return "running"

    @property
    def problem(self) -> str:
        """Why the exporter is not simply running; empty when it is."""
        running = self._runner.running
        if running is not None and time.monotonic() > running.deadline + _STALL_GRACE:
            since = time.monotonic() - running.since
            cpu = running.cpu_seconds()
            used = "" if cpu is None else f"; its thread has used {cpu:.1f} s of processor time"
            return f"hook {running.hook} has not returned for {since:.1f} s{used}"
        if self._start_error:
            return self._start_error
        return "; ".join(f"{signal}: {s.last_error}" for signal, s in self._stats.items() if s.failures_in_a_row)

    def stats(self) -> PipelineStats:
        """The pipeline's own numbers."""
        return PipelineStats(
            spans=self.counts() if self.takes_spans else None,
            cycles=dict(self._stats),
            cpu_seconds=self._runner.cpu_seconds,
        )

    def report(self, delivered: bool, reason: str = "", unknown: int = 0) -> ExporterReport:
        """The pipeline's part of a report."""
        counts = self.counts()
        metrics = self._stats.get("metrics")
        return ExporterReport(
            name=self.name,
            state=self.state,
            delivered=delivered,
            spans_recorded=counts.recorded,
            spans_exported=counts.exported,
            spans_dropped=counts.dropped,
            spans_pending=counts.pending,
            spans_unknown=unknown,
            points_exported=metrics.points_exported if metrics else 0,
            points_rejected=metrics.points_rejected if metrics else 0,
            reason=reason,
        )

    @property
    def final_error(self) -> str:
        """Why the last delivery before the end was not complete; empty when it was."""
        return self._final_error

    @property
    def in_flight(self) -> int:
        """Spans that a hook has been given and not yet answered for."""
        running = self._runner.running
        return self.queue.in_flight if running is not None and running.hook in ("export_spans", "flush") else 0

    def tick(self, now: float) -> None:
        """Called several times a second: fail requests that waited too long, log drops and stalls at a bounded rate."""
        if self._requests:
            self._requests.expire(now, f"exporter {self.name!r} had no time for it: {self.problem or 'busy'}")
        if now < self._log_at:
            return
        dropped = self.counts().dropped
        if (total := sum(dropped.values())) > self._logged_drops:
            reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count)
            self.logger.warning("dropped %d spans since the last message; in all: %s", total - self._logged_drops, reasons)
            self._logged_drops, self._log_at = total, now + _LOG_PERIOD
        stalled = self.state == "stalled"
        if stalled and not self._stall_logged:
            self.logger.warning("stalled: %s", self.problem)
            self._log_at = now + _LOG_PERIOD
        self._stall_logged = stalled

    def adopt(self) -> None:
        """Take over what the predecessor has not delivered, and its account."""
        if (predecessor := self._predecessor) is not None:
            predecessor.adopt()
            self.queue.adopt(predecessor.queue)
            self._predecessor = None

    def counts(self) -> SpanCounts:
        """The account of spans, with the predecessor's until that is taken over."""
        own = self.queue.counts()
        predecessor = self._predecessor
        return own if predecessor is None else own.plus(predecessor.counts())

    # The worker

    def _run(self) -> None:
        try:
            if self._predecessor is not None:
                self._predecessor.finished.wait(_PREDECESSOR_LIMIT)
                self.adopt()
            if self._start():
                self._work()
                self._finish()
        except BaseException:
            self.logger.exception("the pipeline has ended by a fault of its own")
        finally:
            if not self._final_error and len(self.queue):
                self._final_error = self._start_error or "stopped before everything was delivered"
            if not self._replaced:
                self.queue.close()
            self.finished.set()
            self._requests.answer_all("the pipeline was stopped")

    def _start(self) -> bool:
        attempt = 0
        while not self._stopping.is_set():
            try:
                self._runner.call("start", self.settings.export_timeout, context=self._context)
                ambient = self._runner.call("trace_context", self.settings.export_timeout)
            except BaseException as error:
                attempt += 1
                if not self._start_error:
                    self.logger.warning(
                        "cannot start, will try again: %s", _describe(error), exc_info=_worth_a_traceback(error)
                    )
                self._start_error = f"start: {_describe(error)}"
                self._refuse_until(time.monotonic() + self._backoff(attempt))
            else:
                self.ambient = ambient
                if self._start_error:
                    self.logger.info("started after %d failed attempts", attempt)
                self._start_error = ""
                self._schedule_metrics()
                self.started.set()
                self._on_started()
                return True
        return False

    def _refuse_until(self, until: float) -> None:
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            self._requests.answer_all(self._start_error)
            with self._requests.wake:
                if not self._requests and not self._stopping.is_set():
                    self._requests.wake.wait(left)

    def _work(self) -> None:
        while True:
            signals = self._next()
            if self._stopping.is_set():
                return
            if requests := self._requests.take():
                self._serve(requests)
            for signal in signals:
                deadline = time.monotonic() + self._cycle_time(signal)
                self._cycle(signal, self._due[signal] - _TOGETHER, deadline)

    def _next(self) -> list[Signal]:
        """Wait until somebody asks or a signal is due, and return the signals that are."""
        with self._requests.wake:
            while True:
                now = time.monotonic()
                self._plan_spans(now)
                due: list[Signal] = [signal for signal, at in self._due.items() if at <= now]
                if self._requests or due or self._stopping.is_set():
                    return due
                wait = min(self._due.values(), default=inf) - now
                self._requests.wake.wait(min(wait, 3600.0))

    def _plan_spans(self, now: float) -> None:
        """Spans that wait are due after the interval, or at once when they fill a batch."""
        if not self.takes_spans:
            return
        waiting, due = len(self.queue), self._due["spans"]
        if not waiting:
            self._due["spans"] = inf
        elif due == inf:
            self._due["spans"] = now + self.settings.span_interval
        elif waiting >= self.settings.span_batch and not self._stats["spans"].failures_in_a_row:
            self._due["spans"] = min(due, self._budget.affords_at(self._cycles.span_cost, now))

    def _cycle(self, signal: Signal, not_before: float, deadline: float, *, unlimited: bool = False) -> str:
        """Run one cycle, count how it ended and plan the next one; "" when it was delivered, else why not."""
        stats = self._stats[signal]
        begun = time.monotonic()
        try:
            delivery = (
                self._cycles.metrics(not_before, deadline) if signal == "metrics" else self._span_cycle(deadline, unlimited)
            )
        except BaseException as error:  # noqa: BLE001  # whatever an exporter raises is a failed cycle
            return self._failed(signal, stats, begun, error)
        recovered = stats.failures_in_a_row > 0
        if signal == "metrics":
            delivery.rejected = min(delivery.rejected, delivery.items)
            stats.points_exported += delivery.items - delivery.rejected
            stats.points_rejected += delivery.rejected
            self._schedule_metrics()
        else:
            self._due["spans"] = inf
        if not delivery.rejected:
            stats.end("ok", time.monotonic() - begun)
            if recovered:
                self.logger.info("%s are exported again", signal)
            return ""
        problem = f"the backend rejected {delivery.rejected} of {delivery.items} {_ITEMS[signal]}: {delivery.reason}"
        # Refused as a whole means that nothing gets through, and will not by itself.
        if delivery.rejected >= delivery.items:
            if not recovered:
                self.logger.warning("%s", problem)
            stats.end("failed", time.monotonic() - begun, problem)
        else:
            stats.end("ok", time.monotonic() - begun)
        return problem

    def _span_cycle(self, deadline: float, unlimited: bool) -> Delivery:
        most = self.settings.span_batch
        if not unlimited:
            affordable = int(self._budget.left(time.monotonic()) / self._cycles.span_cost)
            self.queue.full_because = "budget" if affordable < most else "queue_full"
            most = max(1, min(most, affordable))
        before = self._runner.cpu_seconds
        try:
            return self._cycles.spans(most, deadline)
        finally:
            self._budget.spend(self._runner.cpu_seconds - before)

    def _failed(self, signal: Signal, stats: CycleStats, begun: float, error: BaseException) -> str:
        now = time.monotonic()
        problem = _describe(error)
        if not stats.failures_in_a_row:
            self.logger.warning("%s were not exported: %s", signal, problem, exc_info=_worth_a_traceback(error))
        attempt = stats.attempt = stats.attempt + 1
        if attempt >= self.settings.max_attempts:
            stats.attempt = 0
            stats.end("failed", now - begun, problem)
            given_up = self.queue.give_up() if signal == "spans" else 0
            if given_up:
                self.logger.warning("gave up %d spans after %d attempts: %s", given_up, attempt, problem)
        else:
            stats.end("retried", now - begun, problem)
        wait = error.after if isinstance(error, RetryLater) and error.after is not None else self._backoff(attempt)
        self._due[signal] = now + min(wait, self.settings.max_backoff)
        if signal == "metrics" and self.interval is None:
            self._due[signal] = inf
        return problem

    def _backoff(self, attempt: int) -> float:
        longest = min(self.settings.max_backoff, self.settings.backoff * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0)

    def _schedule_metrics(self) -> None:
        if "metrics" in self._stats and self.interval is not None:
            # On the same beat as every other pipeline with this interval, so that they share a collection.
            self._due["metrics"] = time.monotonic() + self.interval - time.time() % self.interval

    def _cycle_time(self, signal: Signal) -> float:
        """A cycle may take as long as one hook call, or most of the interval where that is longer."""
        interval = self.interval if signal == "metrics" else None
        return max(self.settings.export_timeout, 0.8 * (interval or 0))

    def _serve(self, requests: Sequence[Request]) -> None:
        deadline = max(request.deadline for request in requests)
        if any(request.flush for request in requests):
            problem = self._deliver(deadline)
        else:
            problem = self._cycle("metrics", time.monotonic(), deadline)
        for request in requests:
            request.answer(problem)

    def _deliver(self, deadline: float) -> str:
        """Deliver everything that is recorded now; "" or why that did not work."""
        problems: list[str] = []
        if self.takes_spans:
            left = len(self.queue)
            while left > 0:
                before = len(self.queue)
                if problem := self._cycle("spans", 0.0, deadline, unlimited=True):
                    problems.append(problem)
                    if len(self.queue) >= before:
                        break
                left -= min(before, self.settings.span_batch)
        if "metrics" in self._stats and (problem := self._cycle("metrics", time.monotonic(), deadline)):
            problems.append(problem)
        return "; ".join(dict.fromkeys(problems))

    def _finish(self) -> None:
        # The last part of the time belongs to the shutdown hook.
        deadline = self._stop_deadline
        total = max(deadline - time.monotonic(), 0.0)
        self._final_error = (
            self._deliver(deadline - min(1.0, total / 4)) if self.interval is not None or self.takes_spans else ""
        )
        self._requests.answer_all(self._final_error)
        if "shutdown" in self.handle.implemented:
            try:
                self._runner.call("shutdown", max(deadline - time.monotonic(), 0.05))
            except BaseException as error:
                self.logger.warning("shutdown: %s", _describe(error), exc_info=_worth_a_traceback(error))
        self._runner.stop_loop(max(deadline - time.monotonic(), 0.05))

    # Requests

    def _export_now(self, timeout: float) -> Future[None]:
        if self._runner.in_hook():
            raise RuntimeError(
                "export_now was called inside a hook: the cycle that it asks for cannot begin before the hook returns"
            )
        if "metrics" not in self._stats:
            raise RuntimeError(f"exporter {self.name!r} implements no hook that takes metrics: there is nothing to export now")
        request = self._requests.ask(flush=False, deadline=time.monotonic() + timeout)
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()

        def settle(answer: Future[str]) -> None:
            if error := answer.exception():
                done.set_exception(error)
            elif problem := answer.result():
                done.set_exception(RuntimeError(problem))
            else:
                done.set_result(None)

        request.add_done_callback(settle)
        return done


_ITEMS: Final[Mapping[Signal, str]] = {"metrics": "points", "spans": "spans"}


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, RetryLater) else f"{type(error).__name__}: {error}"


def _worth_a_traceback(error: BaseException) -> bool:
    return not isinstance(error, (RetryLater, OSError))
