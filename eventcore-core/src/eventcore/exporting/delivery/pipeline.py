"""A pipeline drives one exporter. This is the side that other threads use; the worker thread's side is ``worker``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from eventcore.exporting.context import ExporterContext
from eventcore.exporting.delivery.clock import CycleClock
from eventcore.exporting.delivery.cycles import Cycles
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.hook_runner import HookRunner, RunningHook
from eventcore.exporting.delivery.report import ExporterReport, ExporterState, PipelineStats, PipelineStatus
from eventcore.exporting.delivery.requests import RequestBox
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.delivery.span_queue import SpanQueue
from eventcore.exporting.delivery.worker import Worker
from eventcore.exporting.logs import exporter_logger
from eventcore.recording.collector import Collector
from eventcore.recording.spans import Span
from eventcore.recording.values import Resource

# A hook that has overrun its time by so many seconds is stalled, and not merely late.
_STALL_GRACE: Final = 0.5
# Seconds between two log records about one pipeline's drops or stalls.
_LOG_PERIOD: Final = 10.0


class Pipeline:
    """Starts an exporter, exports to it until it is stopped, and says how it does.

    It has its own thread, clock, queue, deadlines and failure state, and shares none of them with
    another exporter. Every method may be called from any thread, and none waits for the exporter.

    Args:
        name: the exporter's name.
        handle: its checked hooks.
        settings: core's settings for it.
        collector: gives the metrics.
        resource: handed to the exporter.
        shown_settings: the plugin's settings with secrets masked, handed to the exporter.
        predecessor: the pipeline that this one replaces. It releases its ports and files before
            this one starts, and this one takes over what it could not deliver.
        on_started: called in the worker thread when the exporter has started.

    Attributes:
        interval: seconds between metrics cycles; ``None`` for a pull exporter.
        queue: the exporter's spans and their account.
        status: what the worker thread says of itself.
        started: set when the exporter has started.
        finished: set when the worker thread has ended.
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
        self.interval = None if handle.interval is None else settings.interval or handle.interval
        self.logger: logging.Logger = exporter_logger(name)
        self.queue: SpanQueue = (
            predecessor.queue.successor(settings.span_queue) if predecessor else SpanQueue(settings.span_queue)
        )
        self.status = status = PipelineStatus(handle.signals)
        self.started, self.finished = status.started, status.finished
        # Constructed here and used by the worker thread alone, except for `_runner.running`, the
        # requests, the queue and the status, which are made for several threads.
        self._requests = RequestBox()
        self._runner = HookRunner(handle, name)
        self._trouble = _TroubleLog(self.logger)
        clock = CycleClock(handle.signals, self.interval, settings, time.monotonic())
        cycles = Cycles(self._runner, collector, self.queue, clock, status.cycles, settings, self.logger)
        context = ExporterContext(
            name=name,
            resource=resource,
            settings=shown_settings,
            logger=self.logger,
            stopping=status.stopping,
            export_now=self._export_now,
        )
        replaced = predecessor.status if predecessor else None
        worker = Worker(cycles, self._requests, status, context, replaced, on_started)
        self._thread = threading.Thread(target=worker.run, name=f"eventcore-exporter-{name}", daemon=True)

    @property
    def takes_spans(self) -> bool:
        """Whether the exporter implements ``export_spans``."""
        return "spans" in self.handle.signals

    def launch(self) -> None:
        """Start the worker thread, which starts the exporter."""
        self._thread.start()

    def offer(self, spans: Sequence[Span], lost: int) -> None:
        """Queue ended spans, and count ``lost`` ones as dropped. Called by the distributor."""
        if self.takes_spans:
            # Queue first, then notify: the worker looks at the queue after it has been woken.
            self.queue.offer(spans, lost)
            self._requests.notify()

    def request_flush(self, deadline: float) -> Future[str]:
        """Ask for everything recorded before now to be delivered; the future's result is ``""`` or why that failed.

        Raises:
            RuntimeError: the pipeline is stopping.
        """
        return self._requests.ask(flush=True, deadline=deadline)

    def begin_stop(self, deadline: float) -> None:
        """Ask the worker to deliver what it has and to shut the exporter down by ``deadline`` (``time.monotonic``).

        A second call can only make the deadline earlier.
        """
        # In this order: a worker that sees `stopping` reads the deadline.
        self.status.stop_deadline = min(self.status.stop_deadline, deadline)
        self.status.stopping.set()
        self._requests.close()

    def force_stop(self, deadline: float) -> None:
        """Call ``shutdown`` from another thread, because the worker has not finished and time is short.

        It reaches an exporter in the middle of a hook, which can then close the connection that the
        hook waits for. When the hook returns, the worker calls ``shutdown`` again.
        """
        if not self.finished.is_set() and self.started.is_set() and "shutdown" in self.handle.implemented:
            running = self._runner.running
            if running is None or running.hook != "shutdown":
                self._runner.shut_down_beside(max(deadline - time.monotonic(), 0.01))

    def abandon(self) -> None:
        """Count what the pipeline could not deliver as dropped, and answer its requests. A later answer changes nothing."""
        self.queue.close()
        self._requests.answer_all("the pipeline was stopped")

    @property
    def state(self) -> ExporterState:
        """``stalled``: a hook has overrun its time and not returned. ``failing``: it cannot start, or its last cycle failed."""
        if self.finished.is_set():
            return "stopped"
        if self._stalled_hook() is not None:
            return "stalled"
        if self.status.start_error or any(stats.failures_in_a_row for stats in self.status.cycles.values()):
            return "failing"
        return "running"

    @property
    def problem(self) -> str:
        """Why the exporter is stalled or failing; empty when it is neither."""
        if (running := self._stalled_hook()) is not None:
            seconds = time.monotonic() - running.since
            cpu = running.cpu_seconds()
            used = "" if cpu is None else f"; its thread has used {cpu:.1f} s of processor time"
            return f"hook {running.hook} has not returned for {seconds:.1f} s{used}"
        if self.status.start_error:
            return self.status.start_error
        return "; ".join(
            f"{signal}: {stats.last_error}" for signal, stats in self.status.cycles.items() if stats.failures_in_a_row
        )

    def stats(self) -> PipelineStats:
        """The pipeline's counters."""
        return PipelineStats(
            spans=self.queue.counts() if self.takes_spans else None,
            cycles=self.status.cycles,
            cpu_seconds=self._runner.cpu_seconds,
        )

    def report(self, problem: str, unknown: int = 0) -> ExporterReport:
        """The pipeline's part of a report; ``problem`` is why not everything was delivered, empty when it was."""
        counts = self.queue.counts()
        metrics = self.status.cycles.get("metrics")
        return ExporterReport(
            name=self.name,
            state=self.state,
            delivered=not problem,
            spans_recorded=counts.recorded,
            spans_exported=counts.exported,
            spans_dropped=counts.dropped,
            spans_pending=counts.pending,
            spans_unknown=unknown,
            points_exported=metrics.points_exported if metrics else 0,
            points_rejected=metrics.points_rejected if metrics else 0,
            reason=problem,
        )

    @property
    def in_flight(self) -> int:
        """Spans that a hook has been given and not yet answered for: whether they arrived is unknown."""
        running = self._runner.running
        return self.queue.in_flight if running is not None and running.hook in ("export_spans", "flush") else 0

    def tick(self, now: float) -> None:
        """Fail requests whose deadline has passed, and log drops and stalls. Called ten times a second by the distributor.

        The worker cannot do this itself: it may hang in a hook.
        """
        if self._requests:
            self._requests.expire(now, f"exporter {self.name!r} had no time for it: {self.problem or 'busy'}")
        self._trouble.log(now, self.queue.counts().dropped, self.problem if self.state == "stalled" else "")

    def _stalled_hook(self) -> RunningHook | None:
        # Read once: the worker thread may replace it at any time.
        running = self._runner.running
        return running if running is not None and time.monotonic() > running.deadline + _STALL_GRACE else None

    def _export_now(self, timeout: float) -> Future[None]:
        # The worker thread would wait for a cycle that only the worker thread can run.
        if self._runner.in_hook():
            raise RuntimeError(
                "export_now was called inside a hook: the cycle that it asks for cannot begin before the hook returns"
            )
        if "metrics" not in self.handle.signals:
            raise RuntimeError(f"exporter {self.name!r} implements no hook that takes metrics: there is nothing to export now")
        return self._requests.ask(flush=False, deadline=time.monotonic() + timeout)


class _TroubleLog:
    """Logs drops and stalls of one exporter at a bounded rate. Called by the distributor's thread alone."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._silent_until = 0.0
        self._logged_drops = 0
        self._was_stalled = False

    def log(self, now: float, dropped: Mapping[str, int], stall: str) -> None:
        """Log the drops since the last record, and the beginning of a stall (``stall``: its description)."""
        if now < self._silent_until:
            return
        if (total := sum(dropped.values())) > self._logged_drops:
            reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count)
            self._logger.warning("dropped %d spans since the last message; in all: %s", total - self._logged_drops, reasons)
            self._logged_drops, self._silent_until = total, now + _LOG_PERIOD
        if stall and not self._was_stalled:
            self._logger.warning("stalled: %s", stall)
            self._silent_until = now + _LOG_PERIOD
        self._was_stalled = bool(stall)
