"""Reading a collection: totals, parts and percentiles of what the library has measured."""

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
    """How values are distributed: ``buckets[i]`` of them up to ``boundaries[i]``, the last ones above, none above ``most``."""

    boundaries: Sequence[float] = ()
    buckets: Sequence[int] = ()
    most: float = 0.0

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.buckets)

    def since(self, earlier: "Distribution") -> "Distribution":
        """The values that came after ``earlier``."""
        if not earlier.buckets:
            return self
        buckets = [now - before for now, before in zip(self.buckets, earlier.buckets, strict=True)]
        return Distribution(self.boundaries, buckets, self.most)

    def quantile(self, share: float) -> float | None:
        """The value that ``share`` of the values do not exceed, to the precision of the buckets; ``None`` without values.

        >>> Distribution(boundaries=(1.0, 2.0), buckets=(50, 50, 0), most=2.0).quantile(0.75)
        1.5
        """
        wanted, below = share * self.count, 0
        if not wanted:
            return None
        for index, inside in enumerate(self.buckets):
            if inside and below + inside >= wanted:
                low = self.boundaries[index - 1] if index else 0.0
                high = min(self.boundaries[index], self.most) if index < len(self.boundaries) else self.most
                return low + max(high - low, 0.0) * (wanted - below) / inside
            below += inside
        return self.most


@final
class Readings:
    """One collection, by name."""

    def __init__(self, collection: Collection) -> None:
        self.time_ns = collection.time_ns
        self._metrics: dict[str, MetricData] = {metric.name: metric for metric in collection}

    def total(self, name: str, where: Mapping[str, str] | None = None) -> int:
        """The sum of the series of a counter or gauge that have these labels."""
        return int(sum(point.value for _, point in self._numbers(name, where or {})))

    def value(self, name: str, where: Mapping[str, str]) -> float | None:
        """The one series of a gauge that has these labels; ``None`` when its value is not known."""
        return next((point.value for _, point in self._numbers(name, where)), None)

    def by(self, name: str, *labels: str, where: Mapping[str, str] | None = None) -> Counter[tuple[str, ...]]:
        """The same, split by the values of ``labels``."""
        parts: Counter[tuple[str, ...]] = Counter()
        for known, point in self._numbers(name, where or {}):
            parts[tuple(known[label] for label in labels)] += int(point.value)
        return parts

    def distribution(self, name: str, where: Mapping[str, str] | None = None) -> Distribution:
        """The series of a histogram that have these labels, together."""
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
