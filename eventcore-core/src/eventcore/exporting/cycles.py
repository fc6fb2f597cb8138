"""One round of the hooks: the export hooks of one signal in small chunks, then ``flush``. Raises unless it is committed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, final

import msgspec

from eventcore.exporting.chunks import ChunkSize, metric_chunks
from eventcore.exporting.context import Rejected
from eventcore.exporting.hook_runner import HookFailed, HookRunner
from eventcore.exporting.pipeline_settings import PipelineSettings
from eventcore.exporting.registration import ExporterHandle
from eventcore.exporting.span_queue import SpanQueue
from eventcore.recording.collector import Collector

__all__ = ["Cycles", "Delivery"]

# After each chunk the pipeline rests so many times as long as the chunk took, within these limits: it takes an eighth of
# a processor while it works. Shorter rests do not let the event loop finish a turn; longer ones only delay.
_REST: Final = 7
_SHORTEST_REST: Final = 0.001
_LONGEST_REST: Final = 0.005
_METRIC_HOOKS: Final = ("export_counters", "export_gauges", "export_histograms")


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
