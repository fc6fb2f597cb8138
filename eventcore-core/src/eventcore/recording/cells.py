"""Cells: where a recorded value is added up, once, however many exporters there are.

On builds with the global interpreter lock the cells take no lock of their own. CPython hands the lock over only at calls and
backward jumps, so a read-modify-write without either is not interrupted; every method below does its calls first. That is the
interpreter's behaviour and not the language's promise: a stress test guards it on each version. Where there is no global lock,
``locked`` twins are used.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import repeat
from math import inf
from operator import add, sub
from time import perf_counter
from typing import Any, Final, NoReturn, TypeVar

from eventcore.errors import InvalidMeasurement
from eventcore.recording.values import Labels

# So many values are recorded one by one: that takes less time than looking up all bounds.
_FEW: Final = 16


def _refuse(value: object, expected: str) -> NoReturn:
    if not isinstance(value, (int, float)):
        raise InvalidMeasurement(f"cannot record {value!r:.80} of type {type(value).__name__}: expected {expected}")
    raise InvalidMeasurement(f"cannot record {value!r:.80}: expected {expected}")


class CounterCell:
    """A total that only grows."""

    __slots__ = ("labels", "total")

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self.total: int | float = 0

    def add(self, amount: int | float = 1) -> None:
        """Add ``amount``, which is finite and not negative."""
        try:
            fits = 0 <= amount < inf
        except TypeError:
            fits = False
        if not fits:
            _refuse(amount, "a finite number, 0 or more")
        self.total += amount


class UpDownCounterCell:
    """A sum that may shrink."""

    __slots__ = ("labels", "total")

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self.total: int | float = 0

    def add(self, amount: int | float) -> None:
        """Add ``amount``, which is finite and may be negative."""
        try:
            fits = -inf < amount < inf
        except TypeError:
            fits = False
        if not fits:
            _refuse(amount, "a finite number")
        self.total += amount


class GaugeCell:
    """The last value that was set; ``None`` while it is unknown."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self.value: int | float | None = None

    def set(self, value: int | float | None) -> None:
        """Set the finite ``value``; ``None`` makes the series absent until it is known again."""
        if value is not None:
            try:
                fits = -inf < value < inf
            except TypeError:
                fits = False
            if not fits:
                _refuse(value, "a finite number, or None where it is not known")
        self.value = value


class HistogramCell:
    """Sum, minimum, maximum and counts per bucket in one list, so that one ``list.copy`` sees them agree.

    Args:
        boundaries: ascending upper bounds of the buckets; one more bucket takes what is above them all.
        labels: the label names and values of the series.
    """

    __slots__ = ("_bounds", "boundaries", "labels", "state")

    def __init__(self, boundaries: tuple[float, ...], labels: Labels = ()) -> None:
        self.labels = labels
        self.boundaries = boundaries
        # Three bounds below every number make the index of a bucket the place of its count in the list.
        self._bounds = (-inf, -inf, -inf, *boundaries)
        # [sum, minimum, maximum, bucket, …]: list items at the front are the quickest to reach.
        self.state: list[Any] = [0.0, inf, -inf] + [0] * (len(boundaries) + 1)

    def record(self, value: int | float) -> None:
        """Count the finite ``value`` in its bucket."""
        try:
            # Nothing but a finite number is nothing when taken from itself: infinities leave not-a-number, which is true.
            if value - value:
                _refuse(value, "a finite number")
            place = bisect_left(self._bounds, value)
        except TypeError:
            _refuse(value, "a finite number")
        state = self.state
        state[place] += 1
        state[0] += value
        if value < state[1]:
            state[1] = value
        if value > state[2]:
            state[2] = value

    def record_many(self, values: Sequence[int | float]) -> None:
        """Count finite values, all of them or none: for many of them a fifth of the time that ``record`` takes."""
        if not values:
            return
        try:
            total = sum(values)
            if total - total:
                _refuse(next((value for value in values if value - value), total), "finite numbers with a finite sum")
            ordered = sorted(values)
        except TypeError:
            _refuse(values, "a sequence of finite numbers")
        if len(ordered) < _FEW:
            for value in values:
                # Not its twin's, who counts or locks around the whole.
                HistogramCell.record(self, value)
            return
        # There are fewer buckets than values: look the bounds up among the values, which also takes equal values together.
        up_to = [*map(bisect_right, repeat(ordered), self.boundaries), len(ordered)]
        low, high = ordered[0], ordered[-1]
        state = self.state
        more: list[Any] = [total, 0.0, 0.0, *map(sub, up_to, (0, *up_to))]
        # The old state is read while the new one is stored, within one step of the interpreter.
        state[:] = map(add, state, more)
        if low < state[1]:
            state[1] = low
        if high > state[2]:
            state[2] = high

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
        """The state at one instant; the layout is the one of ``state``."""
        return self.state.copy()


class RecordBuffer:
    """Values on their way into a histogram: putting one aside takes a fifth of recording it.

    For a hot path with an owner that folds now and then, and at each collection (``Telemetry.on_collect``).

    Attributes:
        record: puts one finite number aside.
        values: what has been put aside.
    """

    __slots__ = ("_cell", "record", "values")

    def __init__(self, cell: HistogramCell) -> None:
        self._cell = cell
        self.values: list[float] = []
        self.record: Final[Callable[[float], None]] = self.values.append

    def fold(self) -> int:
        """Record what was put aside until now, and return how much that was; by one thread at a time."""
        values = self.values
        if count := len(values):
            self._cell.record_many(values[:count])
            del values[:count]
        return count


class Timing:
    """One run of a timer."""

    __slots__ = ("_cell", "_start")

    def __init__(self, cell: HistogramCell) -> None:
        self._cell = cell

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._cell.record(perf_counter() - self._start)


Cell = TypeVar("Cell", CounterCell, UpDownCounterCell, GaugeCell, HistogramCell)
_RECORDING_METHOD: Final = {CounterCell: "add", UpDownCounterCell: "add", GaugeCell: "set", HistogramCell: "record"}


def _variant(cell: type[Any], prefix: str, slots: tuple[str, ...], members: dict[str, Any]) -> type[Any]:
    name = prefix + cell.__name__
    return type(name, (cell,), {"__slots__": slots, "__module__": __name__, "__qualname__": name, **members})


def locked_where_needed(cell: type[Cell], *, gil: bool | None = None) -> type[Cell]:
    """The class to use on this interpreter: ``cell`` itself where a global lock makes it atomic, else a twin with a lock.

    A gauge needs no lock anywhere: setting it is one store.
    """
    if gil is None:
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    method = _RECORDING_METHOD[cell]
    if gil or method == "set":
        return cell
    record = getattr(cell, method)

    def __init__(self: Any, *args: Any) -> None:
        cell.__init__(self, *args)
        # Re-entrant, because a signal handler may record while the same thread holds it.
        self._lock = threading.RLock()

    def locked(self: Any, value: Any = 1) -> None:
        with self._lock:
            record(self, value)

    members: dict[str, Any] = {"__init__": __init__, method: locked}
    if issubclass(cell, HistogramCell):

        def record_many(self: Any, values: Sequence[Any]) -> None:
            with self._lock:
                HistogramCell.record_many(self, values)

        def copy(self: Any) -> list[Any]:
            with self._lock:
                return HistogramCell.copy(self)

        members |= {"record_many": record_many, "copy": copy}
    return _variant(cell, "Locked", ("_lock",), members)


def counting(cell: type[Cell]) -> type[Cell]:
    """A twin that also counts its ``measurements``: the series for label values beyond the cap.

    The gauge among them counts and keeps no value, for the last of many unrelated values says nothing.
    """
    method = _RECORDING_METHOD[cell]
    record = getattr(cell, method)

    def __init__(self: Any, *args: Any) -> None:
        cell.__init__(self, *args)
        self.measurements = 0

    def counted(self: Any, value: Any = 1) -> None:
        record(self, None if method == "set" else value)
        self.measurements += 1

    members: dict[str, Any] = {"__init__": __init__, method: counted}
    if issubclass(cell, HistogramCell):

        def record_many(self: Any, values: Sequence[Any]) -> None:
            cell.record_many(self, values)
            self.measurements += len(values)

        members["record_many"] = record_many
    return _variant(cell, "Overflow", ("measurements",), members)


def silent(cell: type[Cell]) -> type[Cell]:
    """A twin that records nothing, for telemetry that is switched off."""

    def ignore(self: object, value: object = 1) -> None:
        pass

    members: dict[str, Any] = {_RECORDING_METHOD[cell]: ignore}
    if issubclass(cell, HistogramCell):
        members["record_many"] = ignore
    return _variant(cell, "Silent", (), members)
