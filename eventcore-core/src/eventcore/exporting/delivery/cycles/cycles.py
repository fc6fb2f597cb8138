"""The cycles of an exporter: runs them, counts and logs how each ended, and delivers everything with retries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import msgspec

from eventcore.exporting.context import Rejected, Signal
from eventcore.exporting.delivery.clock import CycleClock
from eventcore.exporting.delivery.cycles.calls import Failure, HookCalls
from eventcore.exporting.delivery.cycles.metrics import MetricCycle
from eventcore.exporting.delivery.cycles.spans import SpanCycle
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.ground import log_safely, text_of
from eventcore.recording.collector import Collector

# A metrics cycle accepts a collection that began up to so many seconds before the cycle was due:
# pipelines that are due at nearly the same time share one.
_SHARED_COLLECTION: Final = 0.25
# With less time than this, in seconds, nothing is tried again before a deadline.
_SHORTEST_ATTEMPT: Final = 0.02
_ITEMS: Final[Mapping[Signal, str]] = {"metrics": "points", "spans": "spans"}


@final
class CycleEnd(msgspec.Struct, frozen=True):
    """How a cycle ended.

    Attributes:
        problem: why not everything was delivered; empty when it was.
        retry_after: seconds after which it is worth another attempt; ``None`` where the data is
            settled, delivered or not.
        asked: whether the backend named these seconds.
    """

    problem: str = ""
    retry_after: float | None = None
    asked: bool = False


class Cycles:
    """Runs the cycles of one exporter, counts and logs how each ended, and has the clock plan the next one.

    Used by the worker thread alone.

    Args:
        pipeline: the exporter's hooks, spans, counters, settings and logger.
        collector: gives the metrics.

    Attributes:
        clock: decides when cycles are due.
        failure: what an exception of a hook means.
    """

    def __init__(self, pipeline: Pipeline, collector: Collector) -> None:
        self.clock = CycleClock(pipeline.signals, pipeline.interval, pipeline.settings, time.monotonic())
        self._calls = HookCalls(pipeline)
        self.failure = self._calls.failure
        self._metrics = MetricCycle(pipeline, self._calls, collector)
        self._spans = SpanCycle(pipeline, self._calls, self.clock)
        self._runner = pipeline.runner
        self._queue = pipeline.queue
        self._status = pipeline.status
        self._stats = pipeline.status.cycles
        self._settings = pipeline.settings
        self._logger = pipeline.logger
        # When the first metrics cycle of those that have failed in a row failed.
        self._metrics_fail_since = 0.0

    def take_over(self) -> None:
        """Go on where the predecessor stood."""
        self._queue.take_over()
        self._metrics.take_over()

    def plan_spans(self, now: float) -> None:
        """Plan the next span cycle by how many spans wait."""
        if (stats := self._stats.get("spans")) is not None:
            failing = stats.failures_in_a_row > 0
            cost = self._calls.sizes["export_spans"].cost
            self.clock.plan_spans(len(self._queue), now, cost=cost, failing=failing)

    def run_due(self, signal: Signal) -> None:
        """Run the cycle of a signal that is due."""
        deadline = time.monotonic() + self.clock.cycle_seconds(signal)
        self.run(signal, self.clock.due_at(signal) - _SHARED_COLLECTION, deadline)

    def run(self, signal: Signal, not_before: float, deadline: float, *, within_budget: bool = True) -> CycleEnd:
        """Run one cycle.

        Args:
            signal: what to export.
            not_before: the earliest time at which the collection of a metrics cycle may have begun.
            deadline: when the cycle must have ended.
            within_budget: whether to export only as many spans as the processor budget allows.
        """
        begun = time.monotonic()
        before = self._runner.cpu_seconds
        try:
            if signal == "metrics":
                items, answers = self._metrics.run(not_before, deadline, self.clock.attempt("metrics"))
            else:
                items, answers = self._spans.run(deadline, within_budget)
        except BaseException as error:  # noqa: BLE001  # whatever an exporter raises is a failed cycle
            return self._failed(signal, begun, self._calls.failure(error))
        finally:
            if signal == "spans":
                self.clock.budget.spend(self._runner.cpu_seconds - before)
        return self._committed(signal, begun, items, answers)

    def deliver_everything(self, deadline: float, wait: Callable[[float], bool], *, last_chance: bool) -> str:
        """Deliver everything that is recorded now, with retries. Returns ``""`` when that succeeded, else why not.

        The processor budget does not count here: the caller waits, and decides by its timeout how
        much time this may take. A hook gets its usual time, so that a short flush does not cut a
        call that would have succeeded; only the last delivery ends at its deadline.

        Args:
            deadline: until when to try again (``time.monotonic``).
            wait: pauses for so many seconds, and returns whether to go on.
            last_chance: whether what is not delivered now is lost.
        """
        mark, begun = self._queue.mark(), time.monotonic()
        unfinished = [signal for signal in ("spans", "metrics") if signal in self._stats]
        lost: list[str] = []
        while True:
            ends: list[CycleEnd] = []
            for signal in tuple(unfinished):
                now = time.monotonic()
                cycle_deadline = deadline if last_chance else max(deadline, now + self._settings.export_timeout)
                if signal == "spans":
                    end = self._deliver_spans(mark, cycle_deadline, lost)
                else:
                    end = self._deliver_metrics(begun, cycle_deadline)
                if end.retry_after is None:
                    unfinished.remove(signal)
                    lost += [end.problem] if end.problem else []
                else:
                    ends.append(end)
            pause = min((_pause_before(end, deadline, last_chance=last_chance) for end in ends), default=-1.0)
            if pause < 0 or not wait(pause):
                return "; ".join(dict.fromkeys([*lost, *(end.problem for end in ends)]))

    def _deliver_spans(self, mark: int, deadline: float, lost: list[str]) -> CycleEnd:
        """Deliver the spans that were queued before ``mark``, until a cycle fails; adds to ``lost`` why some were lost."""
        end = CycleEnd()
        while pending := self._queue.pending_before(mark):
            end = self.run("spans", 0.0, deadline, within_budget=False)
            if end.retry_after is not None or self._queue.pending_before(mark) >= pending:
                return end
            if end.problem:
                lost.append(end.problem)
                if self._given_up("spans"):
                    # The backend takes nothing: further batches keep for a later attempt.
                    left = self._queue.pending_before(mark)
                    return CycleEnd(f"{left} more spans were not tried" if left else "")
        return CycleEnd()

    def _deliver_metrics(self, not_before: float, deadline: float) -> CycleEnd:
        # A delta exporter first sends an interval again that has failed, and then what is new.
        while not (end := self.run("metrics", not_before, deadline)).problem and not self._metrics.covers(not_before):
            pass
        return end

    def _given_up(self, signal: Signal) -> bool:
        return bool(self._stats[signal].given_up)

    def _committed(self, signal: Signal, begun: float, items: int, answers: Sequence[Rejected]) -> CycleEnd:
        now = time.monotonic()
        stats = self._stats[signal]
        recovered = stats.failures_in_a_row > 0
        # A plugin may count more than it was given.
        rejected = min(sum(answer.count for answer in answers), items)
        self.clock.committed(signal, now, time.time())
        if signal == "metrics":
            stats.points_exported += items - rejected
            stats.points_rejected += rejected
        if not rejected:
            if recovered:
                self._log(logging.INFO, f"{signal} are exported again")
            stats.end("ok", now - begun)
            return CycleEnd()
        reason = next((text_of(answer.reason) for answer in answers if answer.count), "")
        problem = f"the backend rejected {rejected} of {items} {_ITEMS[signal]}: {reason}"
        # A backend that rejects everything has a lasting problem, such as a wrong token: the
        # exporter is failing.
        rejects_all = rejected == items
        if rejects_all and not recovered:
            self._log(logging.WARNING, problem)
        stats.end("failed" if rejects_all else "ok", now - begun, problem if rejects_all else "")
        return CycleEnd(problem)

    def _failed(self, signal: Signal, begun: float, failure: Failure) -> CycleEnd:
        now = time.monotonic()
        stats = self._stats[signal]
        if not stats.failures_in_a_row:
            self._log(logging.WARNING, f"{signal} were not exported: {failure.problem}", failure.traceback)
            self._metrics_fail_since = now if signal == "metrics" else self._metrics_fail_since
        settled = self._settle_spans(failure) if signal == "spans" else self._settle_metrics(failure, now)
        stats.end(
            "failed" if settled else "retried",
            now - begun,
            failure.problem,
            given_up=failure.gives_up,
            unsupported=failure.unsupported,
        )
        if failure.gives_up:
            self.clock.given_up(signal, now)
            return CycleEnd("" if self._status.not_taken(signal) else failure.problem)
        pause = self.clock.failed(signal, now, failure.after)
        # Metrics are never settled by age: the next cycle brings their totals again.
        retry_after = None if settled and signal == "spans" else pause
        return CycleEnd(failure.problem, retry_after, failure.after is not None)

    def _settle_spans(self, failure: Failure) -> bool:
        """Account for the batch of a failed cycle. Returns whether spans of it are not tried again."""
        unknown = self._queue.fail(outcome_unknown=failure.outcome_unknown, again=not failure.lost)
        if unknown:
            attempts = "" if failure.lost else " after two attempts"
            self._log(logging.WARNING, f"whether {unknown} spans arrived is unknown{attempts}: {failure.problem}")
        if failure.gives_up:
            return bool(self._queue.give_up("rejected"))
        age = self._queue.batch_age()
        if age >= self._settings.max_age and (count := self._queue.give_up()):
            self._log(logging.WARNING, f"gave up {count} spans after {age:.0f} s: {failure.problem}")
            return True
        return bool(unknown)

    def _settle_metrics(self, failure: Failure, now: float) -> bool:
        """Account for the interval of a failed cycle. Returns whether it is not sent again as it is."""
        if failure.gives_up:
            self._stats["metrics"].points_rejected += self._metrics.points
        is_old = now - self._metrics_fail_since >= self._settings.max_age
        if is_old:
            self._metrics_fail_since = now
        return self._metrics.failed(outcome_unknown=failure.outcome_unknown, is_last=is_old or failure.gives_up)

    def _log(self, level: int, message: str, traceback: str = "") -> None:
        log_safely(self._logger, level, message, traceback)


def _pause_before(end: CycleEnd, deadline: float, *, last_chance: bool) -> float:
    """Seconds to wait before another attempt; negative when there is none before the deadline."""
    left = deadline - time.monotonic()
    if left < _SHORTEST_ATTEMPT or end.retry_after is None:
        return -1.0
    if end.asked and end.retry_after > left:
        # The backend asked for more time than there is. What would be lost is tried all the same.
        return left / 2 if last_chance else -1.0
    return end.retry_after if end.asked else min(end.retry_after, left / 2)
