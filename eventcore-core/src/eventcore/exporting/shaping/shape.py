"""The shape of one exporter's metrics: which instruments it gets, without some labels, and with some more.

Where a label is dropped, the points that differ only in it are merged into one. A series that is no
longer collected stays in the merged total: a total must not fall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol, TypeVar, final

import msgspec

from eventcore.ground.pacing import THREAD_PAUSE, THREAD_SLICE
from eventcore.recording.values import CounterData, GaugeData, HistogramData, HistogramPoint, Labels

DataT = TypeVar("DataT", CounterData, GaugeData, HistogramData)

# So many series more than a collection has are kept apart; older ones are folded into one remainder.
_KEPT: Final = 1000


class Pacer:
    """Cuts the work of this thread into slices, so that the event loop gets the GIL (see ``eventcore.ground.pacing``)."""

    def __init__(self) -> None:
        self._slice_end = time.thread_time() + THREAD_SLICE

    def pause(self) -> None:
        """Pause if a slice of processor time has been used up."""
        if time.thread_time() > self._slice_end:
            time.sleep(THREAD_PAUSE)
            self._slice_end = time.thread_time() + THREAD_SLICE


def added(one: Any, other: Any) -> Any:
    """Two points of one instrument as one, with the labels of the first: since the earlier beginning, until the later end."""
    times = {
        "start_time_ns": min(one.start_time_ns, other.start_time_ns),
        "time_ns": max(one.time_ns, other.time_ns),
    }
    if not isinstance(one, HistogramPoint):
        return msgspec.structs.replace(one, value=one.value + other.value, **times)
    return msgspec.structs.replace(
        one,
        count=one.count + other.count,
        sum=one.sum + other.sum,
        min=_of_both(min, one.min, other.min),
        max=_of_both(max, one.max, other.max),
        buckets=tuple(map(int.__add__, one.buckets, other.buckets)),
        **times,
    )


@final
class _Ledger:
    """The last point of every series of one instrument, merged into totals that never fall."""

    def __init__(self) -> None:
        self._last: dict[Labels, Any] = {}
        # By merged labels: series that began anew or have long been gone.
        self._remainder: dict[Labels, Any] = {}

    def merge(self, points: Sequence[Any], shorten: Callable[[Labels], Labels]) -> list[Any]:
        """The merged totals after these points have been collected."""
        last = self._last
        for point in points:
            before = last.pop(point.labels, None)
            if before is not None and before.start_time_ns != point.start_time_ns:
                _add(self._remainder, shorten(point.labels), before)
            last[point.labels] = point  # at the end: the dict is in the order of the last appearance
        while len(last) > len(points) + _KEPT:
            gone = last.pop(next(iter(last)))
            _add(self._remainder, shorten(gone.labels), gone)
        now = max((point.time_ns for point in points), default=0)
        merged = dict(self._remainder)
        for point in last.values():
            _add(merged, shorten(point.labels), point)
        return [msgspec.structs.replace(point, time_ns=max(point.time_ns, now)) for point in merged.values()]


class Hidden(Protocol):
    """Where instruments are named that an exporter does not get as they are."""

    def report(self, instrument: str, reason: str) -> None:
        """Note why an instrument is not shown as it should be."""
        ...

    def leave_out(self, instrument: str) -> None:
        """Note that the configuration leaves an instrument out."""
        ...


@final
class Shape:
    """Selects instruments, and changes their labels. Used by one worker thread alone.

    Args:
        include: patterns of the names of the instruments that the exporter gets; none: all.
        exclude: patterns of the names of instruments that it does not get.
        drop_labels: names of the labels that are left out.
        labels: labels with a constant value that every point gets.
        hidden: shows with the exporter's state what is left out, and that a setting does not hold for an instrument.
    """

    def __init__(
        self,
        include: Sequence[str],
        exclude: Sequence[str],
        drop_labels: Sequence[str],
        labels: Mapping[str, str],
        hidden: Hidden,
    ) -> None:
        self._include, self._exclude = tuple(include), tuple(exclude)
        self._dropped = frozenset(drop_labels)
        self._added = tuple(labels.items())
        self._hidden = hidden
        self._wanted: dict[str, bool] = {}
        self._ledgers: dict[str, _Ledger] = {}

    def select(self, metrics: Iterable[DataT]) -> list[DataT]:
        """The instruments that the exporter gets."""
        return [data for data in metrics if self._wants(data.name)]

    def relabel(self, metrics: Iterable[DataT], *, are_totals: bool) -> list[DataT]:
        """The same metrics without the dropped and with the additional labels.

        Args:
            metrics: what ``select`` has returned, or differences of it.
            are_totals: whether the points of counters and histograms are totals, which must not
                fall when a series is no longer collected.
        """
        if not self._dropped and not self._added:
            return list(metrics)
        pacer = Pacer()
        relabelled: list[DataT] = []
        for data in metrics:
            relabelled.append(self._with_labels(self._without_labels(data, are_totals)))
            pacer.pause()
        return relabelled

    def _wants(self, name: str) -> bool:
        if (wanted := self._wanted.get(name)) is None:
            included = not self._include or any(fnmatchcase(name, pattern) for pattern in self._include)
            wanted = included and not any(fnmatchcase(name, pattern) for pattern in self._exclude)
            self._wanted[name] = wanted
            if not wanted:
                self._hidden.leave_out(name)
        return wanted

    def _without_labels(self, data: DataT, are_totals: bool) -> DataT:
        dropped = self._dropped.intersection(data.label_names)
        if not dropped:
            return data
        if isinstance(data, GaugeData) and not data.additive:
            # Two temperatures have no sum.
            self._hidden.report(
                data.name, f"its labels {', '.join(sorted(dropped))} are kept: the values of a gauge cannot be merged"
            )
            return data
        names = tuple(name for name in data.label_names if name not in dropped)

        def shorten(labels: Labels) -> Labels:
            return tuple(label for label in labels if label[0] not in dropped)

        if are_totals and not isinstance(data, GaugeData):
            merged = self._ledgers.setdefault(data.name, _Ledger()).merge(data.points, shorten)
        else:
            sums: dict[Labels, Any] = {}
            for point in data.points:
                _add(sums, shorten(point.labels), point)
            merged = list(sums.values())
        return msgspec.structs.replace(data, label_names=names, points=tuple(merged))

    def _with_labels(self, data: DataT) -> DataT:
        # A label of the instrument itself says more than a constant one of the same name.
        new: Labels = tuple((name, value) for name, value in self._added if name not in data.label_names)
        if not new:
            return data
        points = tuple([msgspec.structs.replace(point, labels=point.labels + new) for point in data.points])
        names = (*data.label_names, *(name for name, _ in new))
        return msgspec.structs.replace(data, label_names=names, points=points)


def _add(sums: dict[Labels, Any], labels: Labels, point: Any) -> None:
    so_far = sums.get(labels)
    sums[labels] = msgspec.structs.replace(point, labels=labels) if so_far is None else added(so_far, point)


def _of_both(choose: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else choose(one, other)
