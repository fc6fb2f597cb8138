"""One cycle of metrics: a collection in small chunks, then ``flush``. Instruments that cannot be converted are left out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

from eventcore.exporting.context import Rejected
from eventcore.exporting.delivery.cycles.calls import METRIC_HOOKS, BadChunk, HookCalls, OutOfTime
from eventcore.exporting.delivery.cycles.chunks import metric_chunks
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.shaping import Shape
from eventcore.ground import describe_error
from eventcore.recording.collector import Collector
from eventcore.recording.values import Collection, MetricData


@final
class MetricCycle:
    """Exports a collection. Used by the worker thread alone.

    Args:
        pipeline: what it delivers to.
        calls: calls its hooks.
        collector: gives the metrics.

    Attributes:
        points: how many points the last cycle has given to hooks.
    """

    def __init__(self, pipeline: Pipeline, calls: HookCalls, collector: Collector) -> None:
        self._collector = collector
        self._calls = calls
        settings = pipeline.settings
        self._shape = Shape(
            settings.include, settings.exclude, settings.drop_labels, settings.labels, pipeline.hidden_instruments
        )
        self._deltas = pipeline.deltas
        self._wants_deltas = pipeline.handle.temporality != "cumulative"
        self._keeps_observed = pipeline.handle.temporality == "lowmemory"
        self._hide = pipeline.report_hidden
        self.points = 0

    def take_over(self) -> None:
        """Go on where the predecessor stood."""
        self._deltas.take_over()

    def covers(self, begun: float) -> bool:
        """Whether the last cycle, which was committed, exported everything that was recorded before ``begun``."""
        return not self._wants_deltas or self._deltas.covers(begun)

    def failed(self, *, outcome_unknown: bool, is_last: bool) -> bool:
        """Account for a cycle that was not committed. Returns whether its interval is not sent again as it is."""
        if self._wants_deltas:
            return self._deltas.failed(outcome_unknown=outcome_unknown, is_last=is_last)
        return is_last

    def run(self, not_before: float, deadline: float, attempt: int) -> tuple[int, list[Rejected]]:
        """Collect, export and flush. Returns the number of points, and the hooks' answers.

        Args:
            not_before: the earliest time at which the collection may have begun (``time.monotonic``).
            deadline: when the cycle must have ended.
            attempt: how many cycles this one makes in a row, with those that have failed.
        """
        self.points = 0
        left = deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime("the cycle's time was used up before the collection")
        collection = self._collector.collect(not_before, left)
        shaped = self._shaped(collection, not_before)
        metrics: dict[str, Sequence[MetricData]] = {
            hook: values for hook, values in zip(METRIC_HOOKS, shaped, strict=True) if self._calls.implements(hook)
        }
        refused: list[Rejected] = []
        self._calls.begin("metrics", attempt, deadline)
        try:
            answers = self._export(metrics, deadline)
        except BadChunk as bad:
            self._calls.begin("metrics", attempt + 1, deadline)
            bad_ones = self._find_bad(metrics, bad.error, deadline)
            count = sum(len(data.points) for data in bad_ones)
            refused.append(Rejected(count, f"{bad_ones[0].name} cannot be converted: {describe_error(bad.error)}"))
            metrics = {hook: [data for data in values if data not in bad_ones] for hook, values in metrics.items()}
            self._calls.begin("metrics", attempt + 2, deadline)
            answers = self._export(metrics, deadline)
            self.points += count
        answers.append(self._calls.flush("metrics", deadline))
        if self._wants_deltas:
            self._deltas.committed()
        return self.points, [*refused, *answers]

    def _shaped(
        self, collection: Collection, not_before: float
    ) -> tuple[Sequence[MetricData], Sequence[MetricData], Sequence[MetricData]]:
        """What the exporter gets of a collection, or of the interval that it has not taken yet."""
        shape = self._shape
        gauges = shape.relabel(shape.select(collection.gauges), are_totals=False)
        if self._wants_deltas:
            interval = self._deltas.interval(collection, shape, not_before, keep_observed=self._keeps_observed)
            return interval.counters, gauges, interval.histograms
        counters = shape.relabel(shape.select(collection.counters), are_totals=True)
        return counters, gauges, shape.relabel(shape.select(collection.histograms), are_totals=True)

    def _export(self, metrics: dict[str, Sequence[MetricData]], deadline: float) -> list[Rejected]:
        self.points, begun = 0, time.monotonic()
        answers: list[Rejected] = []
        for hook, values in metrics.items():
            size = self._calls.sizes[hook]
            for chunk, points in metric_chunks(values, size):
                self.points += points
                answers.append(self._give(hook, chunk, points, deadline))
                size.pause(begun, deadline)
        return answers

    def _give(self, hook: str, chunk: Sequence[MetricData], points: int, deadline: float) -> Rejected:
        try:
            return self._calls.export(hook, chunk, points, deadline)
        except Exception as error:
            # Where `begin` does not make the exporter drop what it holds, trying instruments one by
            # one would show their points twice.
            if self._calls.blames_data(error) and (self._calls.can_begin or not self._calls.delivers_at_flush):
                raise BadChunk(error) from error
            raise

    def _find_bad(self, metrics: dict[str, Sequence[MetricData]], error: Exception, deadline: float) -> list[MetricData]:
        """The instruments that the exporter cannot convert; shows each with the exporter's state.

        Raises:
            Exception: ``error``, when no instrument or every instrument is to blame.
        """
        bad: list[MetricData] = []
        works, begun = 0, time.monotonic()
        for hook, values in metrics.items():
            size = self._calls.sizes[hook]
            for data in values:
                try:
                    self._give(hook, [data], len(data.points), deadline)
                    works += 1
                except BadChunk as found:
                    bad.append(data)
                    self._hide(data.name, f"it cannot be converted: {describe_error(found.error)}")
                size.pause(begun, deadline)
        if not bad or not works:
            raise error
        return bad
