"""The cycles of an exporter: in each, the export hooks of one signal in small chunks, then ``flush``.

A hook gets as much at once as it converts in about half a millisecond, and the worker thread pauses
between two chunks, so that the event loop gets the GIL (why and how much:
``eventcore.ground.pacing``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from eventcore.exporting.context import Rejected, RetryLater
from eventcore.exporting.delivery.clock import CycleClock, Signal
from eventcore.exporting.delivery.hook_runner import HookFailed
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.ground.pacing import THREAD_SLICE
from eventcore.recording.collector import Collector
from eventcore.recording.values import MetricData

# After each chunk the thread pauses for seven times as long as the chunk took, within limits: it
# takes an eighth of a processor while it works. A shorter pause does not let the event loop finish
# a turn; a longer one only delays the export.
_PAUSE_FACTOR: Final = 7
_SHORTEST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.005

# The size of a hook's first chunk, before the cost of an item is known, and of the largest.
_FIRST_CHUNK: Final = 50
_LARGEST_CHUNK: Final = 1000
_FIRST_COST: Final = 50e-6
# A metrics cycle accepts a collection that began up to so many seconds before the cycle was due:
# pipelines that are due at nearly the same time share one.
_SHARED_COLLECTION: Final = 0.25
_ITEMS: Final[Mapping[Signal, str]] = {"metrics": "points", "spans": "spans"}
_NOTHING_REJECTED: Final = Rejected(0, "")
_METRIC_HOOKS: Final = ("export_counters", "export_gauges", "export_histograms")


class ChunkSize(msgspec.Struct):
    """How many items one call of a hook gets, learnt from the calls before.

    Attributes:
        items: spans or points of the next chunk.
        cost: processor seconds that one item takes, as a moving average.
    """

    items: int = _FIRST_CHUNK
    cost: float = _FIRST_COST

    def learn(self, items: int, cpu_seconds: float) -> None:
        """Adapt to a call that converted ``items`` in ``cpu_seconds`` of processor time."""
        if items:
            self.cost += (max(cpu_seconds, 1e-9) / items - self.cost) / 4
            self.items = max(1, min(int(THREAD_SLICE / self.cost), self.items * 2, _LARGEST_CHUNK))


class Cycles:
    """Runs the cycles of one exporter, counts and logs how each ended, and has the clock plan the next one.

    Used by the worker thread alone.

    Args:
        pipeline: the exporter's hooks, spans, counters, settings and logger.
        collector: gives the metrics.

    Attributes:
        clock: decides when cycles are due.
    """

    def __init__(self, pipeline: Pipeline, collector: Collector) -> None:
        self.clock = CycleClock(pipeline.handle.signals, pipeline.interval, pipeline.settings, time.monotonic())
        self._collector = collector
        self._runner = pipeline.runner
        self._queue = pipeline.queue
        self._stats = pipeline.status.cycles
        self._settings = pipeline.settings
        self._logger = pipeline.logger
        self._implemented = pipeline.handle.implemented
        self._sizes = {hook: ChunkSize() for hook in (*_METRIC_HOOKS, "export_spans")}

    def plan_spans(self, now: float) -> None:
        """Plan the next span cycle by how many spans wait."""
        if (stats := self._stats.get("spans")) is not None:
            failing = stats.failures_in_a_row > 0
            self.clock.plan_spans(len(self._queue), now, cost=self._sizes["export_spans"].cost, failing=failing)

    def run_due(self, signal: Signal) -> None:
        """Run the cycle of a signal that is due."""
        deadline = time.monotonic() + self.clock.cycle_seconds(signal)
        self.run(signal, self.clock.due_at(signal) - _SHARED_COLLECTION, deadline)

    def run(self, signal: Signal, not_before: float, deadline: float, *, within_budget: bool = True) -> str:
        """Run one cycle. Returns ``""`` when everything was delivered, else why not.

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
                items, answers = self._export_metrics(not_before, deadline)
            else:
                items, answers = self._export_spans(deadline, within_budget)
        except BaseException as error:  # noqa: BLE001  # whatever an exporter raises is a failed cycle
            return self._failed(signal, begun, error)
        finally:
            if signal == "spans":
                self.clock.budget.spend(self._runner.cpu_seconds - before)
        return self._committed(signal, begun, items, answers)

    def deliver_everything(self, deadline: float) -> str:
        """Deliver everything that is recorded now. Returns ``""`` when that succeeded, else why not.

        The processor budget does not count here: the caller waits, and decides by its timeout how
        much time this may take.
        """
        problems: list[str] = []
        if "spans" in self._stats:
            # Spans that end meanwhile are not waited for, or a busy application could keep this
            # going for ever.
            remaining = len(self._queue)
            while remaining > 0:
                before = len(self._queue)
                if problem := self.run("spans", 0.0, deadline, within_budget=False):
                    problems.append(problem)
                    if len(self._queue) >= before:
                        break
                remaining -= min(before, self._settings.span_batch)
        if "metrics" in self._stats and (problem := self.run("metrics", time.monotonic(), deadline)):
            problems.append(problem)
        return "; ".join(dict.fromkeys(problems))

    def _committed(self, signal: Signal, begun: float, items: int, answers: Sequence[Rejected]) -> str:
        now = time.monotonic()
        stats = self._stats[signal]
        recovered = stats.failures_in_a_row > 0
        # A plugin may count more than it was given.
        rejected = min(_count(answers), items)
        self.clock.committed(signal, now, time.time())
        if signal == "metrics":
            stats.points_exported += items - rejected
            stats.points_rejected += rejected
        if not rejected:
            if recovered:
                self._logger.info("%s are exported again", signal)
            stats.end("ok", now - begun)
            return ""
        reason = next((answer.reason for answer in answers if answer.count and answer.reason), "")
        problem = f"the backend rejected {rejected} of {items} {_ITEMS[signal]}: {reason}"
        # A backend that rejects everything has a lasting problem, such as a wrong token: the
        # exporter is failing.
        rejects_all = rejected == items
        if rejects_all and not recovered:
            self._logger.warning("%s", problem)
        stats.end("failed" if rejects_all else "ok", now - begun, problem if rejects_all else "")
        return problem

    def _failed(self, signal: Signal, begun: float, error: BaseException) -> str:
        now = time.monotonic()
        stats = self._stats[signal]
        problem = describe(error)
        if not stats.failures_in_a_row:
            self._logger.warning("%s were not exported: %s", signal, problem, exc_info=is_unexpected(error))
        attempts = self.clock.failed(signal, now, error.after if isinstance(error, RetryLater) else None)
        is_last = attempts >= self._settings.max_attempts
        stats.end("failed" if is_last else "retried", now - begun, problem)
        if is_last and signal == "spans" and (count := self._queue.give_up()):
            self._logger.warning("gave up %d spans after %d attempts: %s", count, attempts, problem)
        return problem

    def _export_metrics(self, not_before: float, deadline: float) -> tuple[int, list[Rejected]]:
        """Collect (not earlier than ``not_before``), export and flush; both times are of ``time.monotonic``."""
        begun = time.monotonic()
        collection = self._collector.collect(not_before, self._time_left(deadline, "collect"))
        items, answers = 0, list[Rejected]()
        self._begin("metrics", deadline)
        metrics_of_hooks: tuple[Sequence[MetricData], ...] = (collection.counters, collection.gauges, collection.histograms)
        for hook, metrics in zip(_METRIC_HOOKS, metrics_of_hooks, strict=True):
            if hook in self._implemented:
                size = self._sizes[hook]
                for chunk, points in metric_chunks(metrics, size):
                    items += points
                    answers.append(self._export(hook, chunk, points, 0.0, deadline))
                    self._pause(size, begun, deadline)
        return items, [*answers, self._call("flush", deadline, signal="metrics")]

    def _export_spans(self, deadline: float, within_budget: bool) -> tuple[int, list[Rejected]]:
        """Export the batch that is not committed yet, else a batch of waiting spans, and commit it in the queue."""
        begun = time.monotonic()
        size = self._sizes["export_spans"]
        limit = self._settings.span_batch
        if within_budget:
            affordable = self.clock.affordable_spans(begun, size.cost)
            self._queue.token.full_because = "budget" if affordable < limit else "queue_full"
            limit = max(1, min(limit, affordable))
        batch = self._queue.take(limit)
        self._begin("spans", deadline)
        answers: list[Rejected] = []
        # Without a flush hook, an export hook that returned has delivered its spans: each chunk is
        # committed by itself.
        commits_chunks = "flush" not in self._implemented
        begin = 0
        while chunk := batch[begin : begin + size.items]:
            begin += len(chunk)
            cpu = time.thread_time()
            values = [span.data() for span in chunk]
            freezing = time.thread_time() - cpu
            answers.append(self._export("export_spans", values, len(chunk), freezing, deadline))
            if commits_chunks:
                self._queue.commit(len(chunk), answers[-1].count)
            if begin < len(batch):
                self._pause(size, begun, deadline)
        if not commits_chunks:
            answers.append(self._call("flush", deadline, signal="spans"))
            self._queue.commit(len(batch), _count(answers))
        return len(batch), answers

    def _begin(self, signal: Signal, deadline: float) -> None:
        self._call("begin", deadline, signal=signal, attempt=self._stats[signal].failures_in_a_row + 1)

    def _export(self, hook: str, chunk: Sequence[Any], items: int, spent: float, deadline: float) -> Rejected:
        """Call an export hook; ``spent`` is the processor time that preparing the chunk took."""
        before = self._runner.cpu_seconds
        answer = self._call(hook, deadline, **{hook.removeprefix("export_"): chunk})
        self._sizes[hook].learn(items, self._runner.cpu_seconds - before + spent)
        return answer

    def _call(self, hook: str, deadline: float, **arguments: object) -> Rejected:
        if hook not in self._implemented:
            return _NOTHING_REJECTED
        answer = self._runner.call(hook, self._time_left(deadline, hook), **arguments)
        if answer is None or isinstance(answer, Rejected):
            return answer or _NOTHING_REJECTED
        raise HookFailed(
            f"hook {hook} returned {answer!r:.80}; expected None when it has delivered, or Rejected(count, reason); raise "
            "RetryLater or any other exception when it has not"
        )

    def _time_left(self, deadline: float, hook: str) -> float:
        left = min(self._settings.export_timeout, deadline - time.monotonic())
        if left <= 0:
            raise HookFailed(f"the cycle's time was used up before {hook}")
        return left

    def _pause(self, size: ChunkSize, begun: float, deadline: float) -> None:
        now = time.monotonic()
        # Without a pause once two thirds of the time have passed: a cycle that misses its deadline
        # delivers nothing.
        if deadline - now >= (now - begun) / 2:
            time.sleep(min(max(_PAUSE_FACTOR * size.items * size.cost, _SHORTEST_PAUSE), _LONGEST_PAUSE))


def _count(answers: Sequence[Rejected]) -> int:
    return sum(answer.count for answer in answers)


def metric_chunks(metrics: Sequence[MetricData], size: ChunkSize) -> Iterator[tuple[list[MetricData], int]]:
    """Chunks of at most ``size.items`` points, each with its number of points; an instrument may span several chunks."""
    chunk: list[MetricData] = []
    room = size.items
    for data in metrics:
        points = data.points
        begin = 0
        while begin < len(points):
            end = min(begin + room, len(points))
            is_whole = begin == 0 and end == len(points)
            chunk.append(data if is_whole else msgspec.structs.replace(data, points=points[begin:end]))
            room -= end - begin
            begin = end
            if not room:
                yield chunk, sum(len(part.points) for part in chunk)
                # The hook has run meanwhile, and the size has been adapted.
                chunk, room = [], size.items
    if chunk:
        yield chunk, sum(len(part.points) for part in chunk)


def describe(error: BaseException) -> str:
    return str(error) if isinstance(error, RetryLater) else f"{type(error).__name__}: {error}"


def is_unexpected(error: BaseException) -> bool:
    """Whether the log needs a traceback: a refused connection or a backend that asks for a retry needs none."""
    return not isinstance(error, (RetryLater, OSError))
