"""Cells of histograms: sum, minimum, maximum and counts per bucket."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import repeat
from math import inf
from operator import add, sub
from time import perf_counter
from typing import Any, Final, cast, final

import msgspec

from eventcore.recording.cells.cell import Cell
from eventcore.recording.cells.checks import plain_number, refuse
from eventcore.recording.values import Labels

# Fewer values than this are recorded one by one, which then takes less time than looking up every bound.
_FEW: Final = 16
_NUMBERS: Final = (int, float)


@final
class Distribution(msgspec.Struct, frozen=True, gc=False):
    """What a histogram cell has counted, as a value that the garbage collector does not visit.

    Attributes:
        total: the sum of the values.
        low, high: the smallest and the largest value; infinite without values.
        buckets: how many values are in each bucket.
        count: how many values there are.
    """

    total: float
    low: float
    high: float
    buckets: tuple[int, ...]
    count: int


class HistogramCell(Cell):
    """Sum, minimum, maximum and counts per bucket in one list: one ``list.copy`` is atomic, so they always agree.

    A garbage collection visits a list and each number in it, and there may be thousands of series. So each collection of the
    values replaces the list by a ``Distribution``, and the next value that is recorded makes a list again.

    Args:
        boundaries: ascending upper bounds of the buckets; one more bucket takes the values above all of them.
        labels: the label names and values of the series.
    """

    __slots__ = ("_bounds", "boundaries", "state")

    def __init__(self, boundaries: tuple[float, ...], labels: Labels = ()) -> None:
        self.boundaries = boundaries
        # Three bounds below every number make the index of a bucket the index of its count in ``state``.
        self._bounds = (-inf, -inf, -inf, *boundaries)
        super().__init__(labels)

    def reset(self) -> None:
        super().reset()
        # [sum, minimum, maximum, bucket, …]: CPython reaches small indices fastest.
        self.state: list[Any] | Distribution = Distribution(0.0, inf, -inf, (0,) * (len(self.boundaries) + 1), 0)

    def record(self, value: int | float) -> None:
        """Count the finite ``value`` in its bucket."""
        try:
            # `value - value` is 0 for a finite number and NaN for infinity and NaN. NaN is truthy, so this one test finds both.
            if value - value:
                refuse(value, "a finite number")
            index = bisect_left(self._bounds, value)
            # From here on there is no call, so no other thread can replace the list before the value is in it.
            state: Any = self.state
            # First, because it raises for what is no number to a float, and for a `Distribution`: then nothing is changed.
            state[0] += value
            state[index] += 1
        except (TypeError, OverflowError):
            self._record_other(value)
            return
        if value < state[1]:
            state[1] = value
        if value > state[2]:
            state[2] = value

    def _record_other(self, value: object) -> None:
        """Count the first value after a collection, or a ``Decimal``, for example; refuse what is no number."""
        if type(self.state) is Distribution:
            self._as_list()
            HistogramCell.record(self, value)  # type: ignore[arg-type]  # it comes back here if it is no number
            return
        state: Any = self.state
        if is_broken := not isinstance(state[0], float):
            # An object that adds itself to a number in its own way took part. The series begins again.
            self.reset()
        number = None if isinstance(value, str) else plain_number(value)
        # An int that is too large for a float is the same again.
        if number is None or (number is value and not is_broken):
            refuse(value, "a finite number")
        HistogramCell.record(self, number)

    def record_many(self, values: Sequence[int | float]) -> None:
        """Count finite values, all of them or none: many of them take a fifth of the time of as many calls of ``record``."""
        if not values:
            return
        try:
            total = sum(values)
            if total - total:
                refuse(next((value for value in values if value - value), total), "finite numbers with a finite sum")
            ordered = sorted(values)
            _ = self._as_list()[0] + total  # raises for what is no number to a float
        except (TypeError, OverflowError):
            refuse(values, "a sequence of finite numbers")
        if len(ordered) < _FEW:
            for value in values:
                # Not `self.record`: a subclass already holds its lock around this method.
                HistogramCell.record(self, value)
            return
        # There are fewer buckets than values, so look the bounds up among the sorted values and count by subtraction.
        up_to = [*map(bisect_right, repeat(ordered), self.boundaries), len(ordered)]
        low, high = ordered[0], ordered[-1]
        more: list[Any] = [total, 0.0, 0.0, *map(sub, up_to, (0, *up_to))]
        while True:
            state = self._as_list()
            # One call in C reads the old state and stores the new one, so no thread sees a part of it.
            state[:] = map(add, state, more)
            if self.state is state:
                break
            # A collection has replaced the list since, and has not seen these values: they go into the next one.
        if low < state[1]:
            state[1] = low
        if high > state[2]:
            state[2] = high

    def _bucket(self, value: int | float) -> int:
        return bisect_left(self.boundaries, value)

    def time(self) -> Timing:
        """A context manager that records the seconds which its block takes, also when the block raises.

        >>> cell = HistogramCell((0.1, 1.0))
        >>> with cell.time():
        ...     pass
        >>> cell.copy()[3]
        1
        """
        return Timing(self)

    def copy(self) -> list[Any]:
        """The state at one instant, with what waits in the buffer; the layout is the one of ``state``."""
        state: list[Any] = self.read()
        return state

    def current(self) -> list[Any]:
        state = self.state
        return state.copy() if type(state) is list else _as_list(cast(Distribution, state))

    def settle(self) -> Distribution | None:
        """What was counted, without what waits in the buffer; the cell needs no list until the next value is recorded.

        ``None`` if an object that is no number took part, or the sum is not finite.
        """
        state = self.state
        if type(state) is Distribution:
            return state
        seen = state.copy()
        total, low, high, *buckets = seen
        if total - total or not type(total) is type(low) is type(high) is float:
            # Ints, for example.
            numbers = tuple(map(plain_number, (total, low, high)))
            if None in numbers:
                return None
            total, low, high = cast("tuple[float, float, float]", numbers)
        settled = Distribution(total, low, high, tuple(buckets), sum(buckets))
        # Exact numbers are compared without a call of Python code, so no other thread records between comparing and storing.
        is_exact = type(seen[0]) is float and type(seen[1]) in _NUMBERS and type(seen[2]) in _NUMBERS
        if is_exact and seen == state and self.state is state:
            self.state = settled
        return settled

    def _as_list(self) -> list[Any]:
        """The list, which is made if there is none."""
        while type(state := self.state) is not list:
            made = _as_list(cast(Distribution, state))
            if self.state is state:
                self.state = made
        return state


def _as_list(distribution: Distribution) -> list[Any]:
    return [distribution.total, distribution.low, distribution.high, *distribution.buckets]


class Timing:
    """One run of a timer."""

    __slots__ = ("_cell", "_start")

    def __init__(self, cell: HistogramCell) -> None:
        self._cell = cell

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._cell.record(perf_counter() - self._start)
