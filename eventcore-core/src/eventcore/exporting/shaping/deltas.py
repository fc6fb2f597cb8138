"""Differences for one exporter: what was added to each counter and histogram since the last committed cycle.

An *interval* is what one cycle exports. It is frozen until it is settled: a retry sends the same
interval again, while new values wait for the next one. Only a commit moves the point from which the
next differences count, so that nothing is lost and nothing is counted twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final, TypeVar, final

import msgspec

from eventcore.exporting.shaping.shape import Pacer, Shape
from eventcore.recording.values import Collection, CounterData, HistogramData, HistogramPoint, Labels, NumberPoint

_SeriesKey = tuple[str, Labels]
_PointT = TypeVar("_PointT", NumberPoint, HistogramPoint)

# So many series more than a collection has keep their last values: one that is left out of some
# collections, because its callback failed, goes on where it stood.
_KEPT: Final = 20_000


@final
class Interval(msgspec.Struct, frozen=True):
    """What one cycle exports, and what its commit changes.

    Attributes:
        counters, histograms: the differences, in the exporter's shape.
        reached: the totals that these differences lead to.
        not_before: the collection began at this time or later (``time.monotonic``).
        doubtful: whether a cycle with it had an unknown outcome.
    """

    counters: Sequence[CounterData]
    histograms: Sequence[HistogramData]
    reached: dict[_SeriesKey, Any]
    not_before: float
    doubtful: bool = False


@final
class Deltas:
    """The differences of one exporter, and of those that replace it.

    The worker thread calls every method; ``take_over`` also reads the predecessor's state, which is
    why the state is replaced as a whole, under a lock.

    Args:
        predecessor: the differences of the exporter that this one replaces.
    """

    def __init__(self, predecessor: Deltas | None) -> None:
        self._lock = threading.Lock()
        self._predecessor = predecessor
        self._committed: dict[_SeriesKey, Any] = {}
        self._interval: Interval | None = None
        self._is_sending = False
        self._covered = 0.0

    def take_over(self) -> None:
        """Go on where the predecessor stood. What it does from now on changes nothing here."""
        predecessor, self._predecessor = self._predecessor, None
        if predecessor is not None:
            predecessor.take_over()
            self._committed, self._interval, outcome_unknown = predecessor.state()
            self.failed(outcome_unknown=outcome_unknown, is_last=False)

    def state(self) -> tuple[dict[_SeriesKey, Any], Interval | None, bool]:
        """What was committed, the interval that is not, and whether a cycle is sending it now. Any thread."""
        with self._lock:
            return self._committed, self._interval, self._is_sending

    def interval(self, collection: Collection, shape: Shape, not_before: float, *, keep_observed: bool = False) -> Interval:
        """The interval to export: the one that is not settled yet, else the differences to this collection.

        Args:
            collection: the totals.
            shape: which of them the exporter gets, and how.
            not_before: the earliest time at which the collection may have begun (``time.monotonic``).
            keep_observed: whether counters whose totals a callback gives stay totals.
        """
        if self._interval is None:
            reached: dict[_SeriesKey, Any] = {}
            pacer = Pacer()
            selected = shape.select(collection.counters)
            totals = [each for each in selected if each.observed] if keep_observed else []
            counters = [
                data
                for each in selected
                if not (keep_observed and each.observed)
                and (data := self._difference(each, _counter_difference, reached, pacer)).points
            ]
            histograms = [
                data
                for each in shape.select(collection.histograms)
                if (data := self._difference(each, _histogram_difference, reached, pacer)).points
            ]
            self._interval = Interval(
                [*shape.relabel(counters, are_totals=False), *shape.relabel(totals, are_totals=True)],
                shape.relabel(histograms, are_totals=False),
                reached,
                not_before,
            )
        with self._lock:
            self._is_sending = True
        return self._interval

    def covers(self, begun: float) -> bool:
        """Whether the last committed interval contains everything that was recorded before ``begun``."""
        return self._covered >= begun

    def committed(self) -> None:
        """The interval was delivered: the next differences count from here."""
        if (interval := self._interval) is None:
            return
        committed = self._committed | interval.reached
        # The oldest entries come first, because a dict keeps the order of the first insertion.
        for key in list(committed)[: max(len(committed) - len(interval.reached) - _KEPT, 0)]:
            if key not in interval.reached:
                del committed[key]
        with self._lock:
            self._committed, self._interval, self._is_sending = committed, None, False
        self._covered = interval.not_before

    def failed(self, *, outcome_unknown: bool, is_last: bool) -> bool:
        """The interval was not delivered, or its outcome is unknown. Returns whether it is settled, and not sent again.

        Args:
            outcome_unknown: whether it may have arrived. After a second time it counts as delivered:
                sent a third time, it would be counted twice or three times for sure.
            is_last: whether it was tried long enough. Its values are then part of the next interval,
                unless they may have arrived.
        """
        interval = self._interval
        with self._lock:
            self._is_sending = False
        if interval is None:
            return is_last
        if interval.doubtful and (outcome_unknown or is_last):
            self.committed()
            return True
        if outcome_unknown:
            self._interval = msgspec.structs.replace(interval, doubtful=True)
        elif is_last:
            self._interval = None
        return is_last and not outcome_unknown

    def _difference(self, data: Any, difference: Any, reached: dict[_SeriesKey, Any], pacer: Pacer) -> Any:
        points: list[Any] = []
        for point in data.points:
            key = (data.name, point.labels)
            before = self._committed.get(key)
            # A series of another beginning is a new one, of which nothing was exported.
            if before is not None and before.start_time_ns != point.start_time_ns:
                before = None
            if (new := difference(point, before)) is not None:
                points.append(new)
                reached[key] = point
            pacer.pause()
        return msgspec.structs.replace(data, points=tuple(points), temporality="delta")


def _counter_difference(point: NumberPoint, before: NumberPoint | None) -> NumberPoint | None:
    if before is None or point.value < before.value:
        # A callback's total that has fallen began anew at some time since.
        return _since(point, before) if point.value else None
    value = point.value - before.value
    return msgspec.structs.replace(_since(point, before), value=value) if value else None


def _histogram_difference(point: HistogramPoint, before: HistogramPoint | None) -> HistogramPoint | None:
    if before is None or any(new < old for new, old in zip(point.buckets, before.buckets, strict=True)):
        return msgspec.structs.replace(_since(point, before), min=None, max=None) if point.count else None
    if point.count == before.count:
        return None
    return msgspec.structs.replace(
        _since(point, before),
        count=point.count - before.count,
        sum=point.sum - before.sum,
        min=None,
        max=None,
        buckets=tuple(map(int.__sub__, point.buckets, before.buckets)),
    )


def _since(point: _PointT, before: _PointT | None) -> _PointT:
    return point if before is None else msgspec.structs.replace(point, start_time_ns=before.time_ns)
