"""The worker thread of a pipeline: starts the exporter, exports when a signal is due or a caller asks, and shuts it down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from eventcore.exporting.context import ExporterContext
from eventcore.exporting.delivery.clock import Signal
from eventcore.exporting.delivery.cycles import Cycles, describe, is_unexpected
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.delivery.status import GuardedAmbient, Request
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


class Worker:
    """What the thread of one pipeline does.

    Args:
        pipeline: what it delivers to.
        collector: gives the metrics.
        resource: handed to the exporter.
        shown_settings: the plugin's settings with secrets masked, handed to the exporter.
        predecessor: the pipeline that this one replaces.
        on_started: called in the worker thread when the exporter has started.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        collector: Collector,
        resource: Resource,
        shown_settings: Mapping[str, object],
        predecessor: Pipeline | None,
        on_started: Callable[[], None],
    ) -> None:
        self._pipeline = pipeline
        self._status = pipeline.status
        self._cycles = Cycles(pipeline, collector)
        self._context = ExporterContext(
            name=pipeline.name,
            resource=resource,
            settings=shown_settings,
            logger=pipeline.logger,
            stopping=pipeline.status.stopping,
            export_now=pipeline.export_now,
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
                queue.take_over()
            if self._start():
                self._export_until_stopped()
                self._finish()
        except BaseException:
            self._pipeline.logger.exception("the pipeline ended by an internal error")
        finally:
            if not status.final_error and len(queue):
                status.final_error = status.start_error or "stopped before everything was delivered"
            queue.close()  # without effect if the exporter was replaced: its spans are the successor's
            status.finished.set()
            status.answer_all("the pipeline was stopped")

    def _start(self) -> bool:
        """Start the exporter, with retries until it succeeds (true) or the pipeline is stopped (false)."""
        attempts = 0
        status, logger, runner = self._status, self._pipeline.logger, self._pipeline.runner
        timeout = self._pipeline.settings.export_timeout
        while not status.stopping.is_set():
            try:
                runner.call("start", timeout, context=self._context)
                ambient = runner.call("ambient_context", timeout) or runner.call("trace_context", timeout)
            except BaseException as error:
                attempts += 1
                if not status.start_error:
                    logger.warning("cannot start, will try again: %s", describe(error), exc_info=is_unexpected(error))
                status.start_error = f"start: {describe(error)}"
                # In this order: a request that comes after `answer_all` sees the refusal.
                status.refusal = status.start_error
                status.answer_all(status.refusal)
                status.stopping.wait(self._cycles.clock.backoff_seconds(attempts))
                status.refusal = ""
            else:
                status.ambient = GuardedAmbient(getattr(ambient, "current", ambient), logger) if ambient else None
                if attempts:
                    logger.info("started after %d failed attempts", attempts)
                status.start_error = ""
                self._cycles.clock.plan_metrics(time.monotonic(), time.time())
                # In this order: `on_started` looks at the status. It takes the manager's lock, which is
                # never held by a thread that waits for this one.
                status.started.set()
                self._on_started()
                return True
        return False

    def _export_until_stopped(self) -> None:
        while True:
            signals = self._wait()
            if self._status.stopping.is_set():
                return  # requests that wait are answered by the last delivery, in `_finish`
            if requests := self._status.take():
                self._serve(requests)
            for signal in signals:
                self._cycles.run_due(signal)

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
                if signals or self._status.requests or self._status.stopping.is_set():
                    return signals
                self._status.wake.wait(min(clock.next_due() - now, _LONGEST_WAIT))

    def _serve(self, requests: Sequence[Request]) -> None:
        """Answer all requests by one flush, or by one metrics cycle when none of them asks for a flush."""
        deadline = max(request.deadline for request in requests)
        if any(request.flush for request in requests):
            problem = self._cycles.deliver_everything(deadline)
        else:
            problem = self._cycles.run("metrics", time.monotonic(), deadline)
        for request in requests:
            request.answer(problem)

    def _finish(self) -> None:
        """Deliver what there is and shut the exporter down, both before the deadline for stopping."""
        status, runner = self._status, self._pipeline.runner
        deadline = status.stop_deadline
        # A pull exporter without spans has nothing to deliver: its metrics are exported when they
        # are scraped.
        if runner.handle.interval is not None or "spans" in status.cycles:
            # The last second, or a quarter of a shorter time, is reserved for the shutdown hook.
            reserved = min(1.0, max(deadline - time.monotonic(), 0.0) / 4)
            status.final_error = self._cycles.deliver_everything(deadline - reserved)
        status.answer_all(status.final_error)
        try:
            runner.call("shutdown", max(deadline - time.monotonic(), _SHORTEST_SHUTDOWN))
        except BaseException as error:
            self._pipeline.logger.warning("shutdown: %s", describe(error), exc_info=is_unexpected(error))
        runner.stop_loop(max(deadline - time.monotonic(), _SHORTEST_SHUTDOWN))
