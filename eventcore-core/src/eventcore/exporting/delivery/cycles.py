"""One round of the hooks: the export hooks of one signal in small chunks, then ``flush``. Raises unless it is committed.

Small chunks: what a hook gets at once is as much as it converts in about half a millisecond.

Threads of one interpreter take turns of 5 ms. A hook that converts a large collection in one go makes the event loop wait for
its turn again and again; a hook that returns after half a millisecond, to a pipeline that then rests, does not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar, final

import msgspec

from eventcore.exporting.context import Rejected
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.hook_runner import HookFailed, HookRunner
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.delivery.span_queue import SpanQueue
from eventcore.recording.collector import Collector
from eventcore.recording.values import CounterData, GaugeData, HistogramData

# After each chunk the pipeline rests so many times as long as the chunk took, within these limits: it takes an eighth of
# a processor while it works. Shorter rests do not let the event loop finish a turn; longer ones only delay.
_REST: Final = 7
_SHORTEST_REST: Final = 0.001
_LONGEST_REST: Final = 0.005
_METRIC_HOOKS: Final = ("export_counters", "export_gauges", "export_histograms")


_SLICE: Final = 0.0005
_FIRST: Final = 50
_LARGEST: Final = 1000

DataT = TypeVar("DataT", CounterData, GaugeData, HistogramData)


class ChunkSize:
    """How many items one call of a hook gets, and what an item costs; learnt from the calls before."""

    __slots__ = ("cost", "items")

    def __init__(self) -> None:
        self.items = _FIRST
        self.cost = 50e-6

    def learn(self, items: int, cpu_seconds: float) -> None:
        """Adapt to a call that converted ``items`` in ``cpu_seconds`` of this thread's processor time."""
        if items:
            self.cost += (max(cpu_seconds, 1e-9) / items - self.cost) / 4
            fitting = int(_SLICE / self.cost)
            self.items = max(1, min(fitting, self.items * 2, _LARGEST))


@final
class Delivery(msgspec.Struct):
    """What a committed cycle delivered: spans or points, and how many of them the backend refused."""

    items: int = 0
    rejected: int = 0
    reason: str = ""

    def add(self, items: int, answer: Rejected | None) -> None:
        """Count the answer of one hook call."""
        self.items += items
        if answer is not None and answer.count:
            self.rejected += answer.count
            self.reason = self.reason or answer.reason


class Cycles:
    """Runs cycles for one exporter.

    Args:
        handle: the exporter's hooks.
        runner: what calls them.
        settings: limits.
        collector: where metrics come from.
        queue: where spans come from, and whose account a span cycle keeps.
    """

    def __init__(
        self, handle: ExporterHandle, runner: HookRunner, settings: PipelineSettings, collector: Collector, queue: SpanQueue
    ) -> None:
        self._runner = runner
        self._settings = settings
        self._collector = collector
        self._queue = queue
        self._implemented = handle.implemented
        self._sizes = {hook: ChunkSize() for hook in (*_METRIC_HOOKS, "export_spans")}

    @property
    def span_cost(self) -> float:
        """Processor seconds that converting one span takes, learnt from the cycles before."""
        return self._sizes["export_spans"].cost

    def metrics(self, not_before: float, deadline: float) -> Delivery:
        """Collect (not earlier than ``not_before``), export and flush; all times are of ``time.monotonic``."""
        begun = time.monotonic()
        collection = self._collector.collect(not_before, self._time_left(deadline, "collect"))
        delivery = Delivery()
        kinds: tuple[tuple[str, Sequence[Any]], ...] = (
            ("export_counters", collection.counters),
            ("export_gauges", collection.gauges),
            ("export_histograms", collection.histograms),
        )
        for hook, data in kinds:
            if hook in self._implemented:
                self._export_metrics(hook, data, delivery, begun, deadline)
        delivery.add(0, self._flush(deadline))
        return delivery

    def spans(self, most: int, deadline: float) -> Delivery:
        """Export the batch that is not committed yet, else up to ``most`` waiting spans; keep the account."""
        begun = time.monotonic()
        batch = self._queue.take(most)
        delivery = Delivery()
        size = self._sizes["export_spans"]
        # Without a flush hook, what an export hook has returned from is delivered: each chunk commits on its own.
        commits_chunks = "flush" not in self._implemented
        index = 0
        while index < len(batch):
            chunk = batch[index : index + size.items]
            index += len(chunk)
            cpu = time.thread_time()
            values = [span.data() for span in chunk]
            freezing = time.thread_time() - cpu
            answer = self._call("export_spans", deadline, size, len(chunk), freezing, spans=values)
            delivery.add(len(chunk), answer)
            if commits_chunks:
                self._queue.commit(len(chunk), answer.count if answer else 0)
            if index < len(batch):
                self._rest(size, begun, deadline)
        if not commits_chunks:
            delivery.add(0, self._flush(deadline))
            self._queue.commit(len(batch), delivery.rejected)
        delivery.rejected = min(delivery.rejected, delivery.items)
        return delivery

    def _export_metrics(
        self,
        hook: str,
        metrics: Sequence[Any],
        delivery: Delivery,
        begun: float,
        deadline: float,
    ) -> None:
        size = self._sizes[hook]
        argument = hook.removeprefix("export_")
        for chunk, points in metric_chunks(metrics, size):
            delivery.add(points, self._call(hook, deadline, size, points, 0.0, **{argument: chunk}))
            self._rest(size, begun, deadline)

    def _flush(self, deadline: float) -> Rejected | None:
        if "flush" not in self._implemented:
            return None
        return _checked("flush", self._runner.call("flush", self._time_left(deadline, "flush")))

    def _call(
        self, hook: str, deadline: float, size: ChunkSize, items: int, spent: float, **arguments: object
    ) -> Rejected | None:
        before = self._runner.cpu_seconds
        answer = _checked(hook, self._runner.call(hook, self._time_left(deadline, hook), **arguments))
        size.learn(items, self._runner.cpu_seconds - before + spent)
        return answer

    def _time_left(self, deadline: float, hook: str) -> float:
        left = min(self._settings.export_timeout, deadline - time.monotonic())
        if left <= 0:
            raise HookFailed(f"the cycle's time was used up before {hook}")
        return left

    def _rest(self, size: ChunkSize, begun: float, deadline: float) -> None:
        now = time.monotonic()
        if deadline - now < (now - begun) / 2:
            return  # two thirds of the time are gone: delivering comes before resting
        time.sleep(min(max(_REST * size.items * size.cost, _SHORTEST_REST), _LONGEST_REST))


def _checked(hook: str, answer: object) -> Rejected | None:
    if answer is None or isinstance(answer, Rejected):
        return answer
    raise HookFailed(
        f"hook {hook} returned {answer!r:.80}; expected None when it has delivered, or Rejected(count, reason); raise "
        "RetryLater or any other exception when it has not"
    )


def metric_chunks(metrics: Sequence[DataT], size: ChunkSize) -> Iterator[tuple[list[DataT], int]]:
    """Chunks of at most ``size.items`` points with their number of points; one instrument's points may span several chunks."""
    chunk: list[DataT] = []
    room = size.items
    for data in metrics:
        points = data.points
        begin = 0
        while begin < len(points):
            end = min(begin + room, len(points))
            whole = begin == 0 and end == len(points)
            chunk.append(data if whole else msgspec.structs.replace(data, points=points[begin:end]))
            room -= end - begin
            begin = end
            if not room:
                yield chunk, sum(len(part.points) for part in chunk)
                chunk, room = [], size.items
    if chunk:
        yield chunk, sum(len(part.points) for part in chunk)
