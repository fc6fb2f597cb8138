"""The worker thread of a pipeline: starts the exporter, exports when a signal is due or a caller asks, and shuts it down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from eventcore.exporting.ambient import GuardedAmbient
from eventcore.exporting.context import ExporterContext, Signal
from eventcore.exporting.delivery.cycles import Cycles, Failure
from eventcore.exporting.delivery.pipeline import WITHOUT_BACKEND, Pipeline
from eventcore.exporting.delivery.status import Request
from eventcore.ground import describe_error, log_safely, traceback_of
from eventcore.recording.collector import Collector
from eventcore.recording.values import Resource

# Seconds that an exporter waits for the one it replaces to release its ports and files.
_PREDECESSOR_LIMIT: Final = 5.0
# A condition cannot wait for an infinite time. A worker that wakes early finds nothing due and
# waits again.
_LONGEST_WAIT: Final = 3600.0
# Seconds that the shutdown hook and the end of the event loop get at least, also when the deadline
# has passed.
_SHORTEST_SHUTDOWN: Final = 0.05
_UNDELIVERED: Final = f"not everything was delivered at shutdown; {WITHOUT_BACKEND}"


class Worker:
    """What the thread of one pipeline does.

    Args:
        pipeline: what it delivers to.
        collector: gives the metrics.
        resource: handed to the exporter.
        shown_settings: the plugin's settings with secrets masked, handed to the exporter.
        predecessor: the pipeline that this one replaces.
        on_started: called in the worker thread when the exporter has started.
        trial: whether the exporter is only tried out: what a flush has sent is not sent again at the end.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        collector: Collector,
        resource: Resource,
        shown_settings: Mapping[str, object],
        predecessor: Pipeline | None,
        on_started: Callable[[], None],
        trial: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._runner = pipeline.runner
        self._status = pipeline.status
        self._cycles = Cycles(pipeline, collector)
        self._context = ExporterContext(
            name=pipeline.name,
            resource=resource,
            settings=shown_settings,
            logger=pipeline.logger,
            stopping=pipeline.status.stopping,
            export_now=pipeline.export_now,
            on_fork=pipeline.runner.fork.ask,
            report_hidden=pipeline.report_hidden,
            trial=trial,
        )
        # Not the pipeline itself, which would keep the replaced exporter in memory.
        self._predecessor_finished = predecessor.finished if predecessor else None
        self._on_started = on_started

    def launch(self) -> None:
        """Start the thread, which starts the exporter."""
        threading.Thread(target=self.run, name=f"eventcore-exporter-{self._pipeline.name}", daemon=True).start()

    def run(self) -> None:
        """The whole life of the exporter, from its start to its shutdown."""
        status, queue = self._status, self._pipeline.queue
        try:
            if self._predecessor_finished is not None:
                # Both exporters may want the same port or file, so the predecessor is shut down
                # first. If it hangs beyond the limit, the successor takes its spans over all the
                # same.
                self._predecessor_finished.wait(_PREDECESSOR_LIMIT)
                self._cycles.take_over()
            if self._start():
                self._export_until_stopped()
                self._finish()
            else:
                status.final_error = status.start_error or "stopped before it had started"
                self._runner.stop_loop(_SHORTEST_SHUTDOWN)
        except BaseException as error:  # noqa: BLE001  # whatever happens, callers get their answers below
            status.final_error = f"the pipeline ended by an internal error: {describe_error(error)}"
            self._log(logging.ERROR, status.final_error, traceback_of(error))
        finally:
            if not status.final_error and len(queue):
                status.final_error = "stopped before everything was delivered"
            queue.close()  # without effect if the exporter was replaced: its spans are the successor's
            # In this order: a request that comes after `answer_all` sees the refusal.
            status.refusal = status.final_error or "the pipeline was stopped"
            status.finished.set()
            status.answer_all("the pipeline was stopped")

    def _start(self) -> bool:
        """Start the exporter, with retries until it succeeds (true) or the pipeline is stopped (false)."""
        attempts = 0
        status = self._status
        while not status.stopping.is_set():
            # What an earlier start has asked for is asked for again.
            self._runner.fork.forget_callbacks()
            try:
                self._runner.call("start", self._pipeline.settings.export_timeout, context=self._context)
            except BaseException as error:  # noqa: BLE001  # whatever an exporter raises is a failed start
                attempts += 1
                self._start_failed(attempts, self._cycles.failure(error))
            else:
                # Asked once: where the exporter's process is started again, it stays.
                status.ambient = status.ambient or self._ask_ambient()
                if attempts:
                    self._log(logging.INFO, f"started after {attempts} failed attempts")
                status.start_error = ""
                self._cycles.clock.plan_metrics(time.monotonic(), time.time())
                # In this order: `on_started` looks at the status. It takes the manager's lock, which is
                # never held by a thread that waits for this one.
                status.started.set()
                self._on_started()
                return True
        return False

    def _restart(self) -> None:
        """The exporter's process has ended: start it again after a pause, unless the pipeline is stopped meanwhile."""
        handle = self._runner.handle
        self._log(logging.WARNING, f"{handle.ended}, and is started again")
        self._status.start_error = handle.ended
        self._stand_by(handle.deaths)
        if self._start():
            self._log(logging.INFO, "the exporter's process was started again")

    def _start_failed(self, attempts: int, failure: Failure) -> None:
        """Close what the start has opened, refuse requests, and wait before the next start."""
        if not self._status.start_error:
            self._log(logging.WARNING, f"cannot start, will try again: {failure.problem}", failure.traceback)
        self._status.start_error = f"start: {failure.problem}"
        self._stand_by(attempts)

    def _stand_by(self, attempts: int) -> None:
        status = self._status
        # In this order: a request that comes after `answer_all` sees the refusal.
        status.refusal = status.start_error
        status.answer_all(status.refusal)
        # A start that failed halfway may hold the very port that the next one needs.
        self._shut_down(min(status.stop_deadline, time.monotonic() + self._pipeline.settings.export_timeout))
        status.stopping.wait(self._cycles.clock.backoff_seconds(attempts))
        status.refusal = ""

    def _ask_ambient(self) -> GuardedAmbient | None:
        """The other tracing system that the exporter connects; ``None`` when it connects none."""
        implemented = self._pipeline.handle.implemented
        # The older name of the hook, which a plugin for an older core has.
        hook = "ambient_context" if "ambient_context" in implemented else "trace_context"
        if hook not in implemented:
            return None
        try:
            answer = self._runner.call(hook, self._pipeline.settings.export_timeout)
        except BaseException as error:  # noqa: BLE001  # an exporter works without its ambient context
            ambient = GuardedAmbient(None, self._pipeline.logger)
            ambient.ignore(hook, f"raised {self._cycles.failure(error).problem}")
            return ambient
        return GuardedAmbient(answer, self._pipeline.logger) if answer is not None else None

    def _export_until_stopped(self) -> None:
        failed_rounds = 0
        while True:
            requests: list[Request] = []
            try:
                signals = self._wait()
                if self._status.stopping.is_set():
                    return  # requests that wait are answered by the last delivery, in `_finish`
                if self._runner.handle.ended:
                    self._restart()
                    continue
                requests = self._status.take()
                self._serve(requests)
                for signal in signals:
                    self._cycles.run_due(signal)
                failed_rounds = 0
            except BaseException as error:  # noqa: BLE001  # a fault of this code must not end the exporter for good
                failed_rounds += 1
                problem = f"internal error: {describe_error(error)}"
                for request in requests:
                    request.answer(problem)
                self._log(logging.ERROR, problem, traceback_of(error))
                self._status.stopping.wait(self._cycles.clock.backoff_seconds(failed_rounds))

    def _wait(self) -> list[Signal]:
        """Wait until a signal is due, a caller asks or the pipeline is stopped. Returns the signals that are due."""
        clock = self._cycles.clock
        # New spans, requests and stopping notify under this lock, so none is missed between the
        # checks and the wait.
        with self._status.wake:
            while True:
                now = time.monotonic()
                self._cycles.plan_spans(now)
                signals = clock.due(now)
                if signals or self._status.requests or self._status.stopping.is_set() or self._runner.handle.ended:
                    return signals
                self._status.wake.wait(min(clock.next_due() - now, _LONGEST_WAIT))

    def _serve(self, requests: Sequence[Request]) -> None:
        """Answer all requests by one flush, or by one metrics cycle when none of them asks for a flush."""
        if not requests:
            return
        deadline = max(request.deadline for request in requests)
        if any(request.flush for request in requests):
            problem = self._cycles.deliver_everything(deadline, self._wait_to_retry, last_chance=False)
        else:
            problem = self._cycles.run("metrics", time.monotonic(), deadline).problem
        for request in requests:
            request.answer(problem)

    def _wait_to_retry(self, seconds: float) -> bool:
        """Wait before a flush tries again, and serve scrapes meanwhile. Returns false when the pipeline is stopped."""
        status, until = self._status, time.monotonic() + seconds
        while not status.stopping.is_set() and (left := until - time.monotonic()) > 0:
            with status.wake:
                if not any(not request.flush for request in status.requests):
                    status.wake.wait(min(left, _LONGEST_WAIT))
                    continue
                # Other flushes wait for the end of this one.
                scrapes = [request for request in status.requests if not request.flush]
                status.requests = [request for request in status.requests if request.flush]
            self._serve([request for request in scrapes if not request.done()])
        return not status.stopping.is_set()

    def _finish(self) -> None:
        """Deliver what there is and shut the exporter down, both before the deadline for stopping."""
        status, runner = self._status, self._runner
        deadline = status.stop_deadline
        # A pull exporter without spans has nothing to deliver, unless it asks for one last cycle: its
        # metrics are exported when they are scraped.
        handle = runner.handle
        has_last = handle.interval is not None or handle.final_cycle or "spans" in status.cycles
        if has_last and not self._context.trial:
            # The last second, or a quarter of a shorter time, is reserved for the shutdown hook.
            reserved = min(1.0, max(deadline - time.monotonic(), 0.0) / 4)
            status.final_error = self._cycles.deliver_everything(deadline - reserved, _sleep, last_chance=True)
            if status.final_error and not status.said_hanging:
                self._log(logging.WARNING, _UNDELIVERED)
        status.answer_all(status.final_error)
        self._shut_down(deadline)
        runner.stop_loop(max(deadline - time.monotonic(), _SHORTEST_SHUTDOWN))

    def _shut_down(self, deadline: float) -> None:
        try:
            self._runner.call("shutdown", max(deadline - time.monotonic(), _SHORTEST_SHUTDOWN))
        except BaseException as error:  # noqa: BLE001  # the exporter is gone either way
            failure = self._cycles.failure(error)
            self._log(logging.WARNING, f"shutdown: {failure.problem}", failure.traceback)

    def _log(self, level: int, message: str, traceback: str = "") -> None:
        log_safely(self._pipeline.logger, level, message, traceback)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True
