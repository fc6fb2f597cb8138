"""Reads a collection of eventcore: totals, sums by label, and percentiles."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, final

import msgspec

from eventcore.exporting import CounterData, GaugeData, HistogramData, HistogramPoint, MetricData, NumberPoint
from eventcore.telemetry import Collection

__all__ = ["Distribution", "Readings"]

Point = TypeVar("Point", NumberPoint, HistogramPoint)


@final
class Distribution(msgspec.Struct, frozen=True):
    """The distribution of values in a histogram.

    Attributes:
        boundaries: the upper bounds of the buckets.
        buckets: the number of values in each bucket; one bucket more than boundaries.
        largest: the largest value.
    """

    boundaries: Sequence[float] = ()
    buckets: Sequence[int] = ()
    largest: float = 0.0

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.buckets)

    def since(self, earlier: "Distribution") -> "Distribution":
        """The distribution of the values that were recorded after ``earlier``."""
        if not earlier.buckets:
            return self
        buckets = [now - before for now, before in zip(self.buckets, earlier.buckets, strict=True)]
        return Distribution(self.boundaries, buckets, self.largest)

    def quantile(self, share: float) -> float | None:
        """The value that ``share`` (0 to 1) of the values do not exceed, interpolated within a bucket; ``None`` without values.

        >>> Distribution(boundaries=(1.0, 2.0), buckets=(50, 50, 0), largest=2.0).quantile(0.75)
        1.5
        """
        target, below = share * self.count, 0
        if not target:
            return None
        for index, inside in enumerate(self.buckets):
            if inside and below + inside >= target:
                low = self.boundaries[index - 1] if index else 0.0
                high = min(self.boundaries[index], self.largest) if index < len(self.boundaries) else self.largest
                return low + max(high - low, 0.0) * (target - below) / inside
            below += inside
        return self.largest


@final
class Readings:
    """The metrics of one collection. ``where`` selects the series that have all these labels."""

    def __init__(self, collection: Collection) -> None:
        self.time_ns = collection.time_ns
        self._metrics: dict[str, MetricData] = {metric.name: metric for metric in collection}

    def total(self, name: str, where: Mapping[str, str] | None = None) -> int:
        """The sum over the selected series of a counter or gauge."""
        return int(sum(point.value for _, point in self._numbers(name, where or {})))

    def value(self, name: str, where: Mapping[str, str]) -> float | None:
        """The value of the selected series of a gauge; ``None`` when there is none."""
        return next((point.value for _, point in self._numbers(name, where)), None)

    def by(self, name: str, *labels: str, where: Mapping[str, str] | None = None) -> Counter[tuple[str, ...]]:
        """The sums over the selected series, by the values of ``labels``."""
        parts: Counter[tuple[str, ...]] = Counter()
        for known, point in self._numbers(name, where or {}):
            parts[tuple(known[label] for label in labels)] += int(point.value)
        return parts

    def distribution(self, name: str, where: Mapping[str, str] | None = None) -> Distribution:
        """The distribution over the selected series of a histogram."""
        metric = self._metrics.get(name)
        if not isinstance(metric, HistogramData):
            return Distribution()
        points = [point for _, point in _matching(metric.points, where or {}) if point.count]
        buckets = [sum(counts) for counts in zip(*(point.buckets for point in points), strict=True)]
        return Distribution(metric.boundaries, buckets, max((point.max or 0.0 for point in points), default=0.0))

    def _numbers(self, name: str, where: Mapping[str, str]) -> Iterator[tuple[dict[str, str], NumberPoint]]:
        metric = self._metrics.get(name)
        if isinstance(metric, (CounterData, GaugeData)):
            yield from _matching(metric.points, where)


def _matching(points: Sequence[Point], where: Mapping[str, str]) -> Iterator[tuple[dict[str, str], Point]]:
    for point in points:
        labels = dict(point.labels)
        if where.items() <= labels.items():
            yield labels, point
