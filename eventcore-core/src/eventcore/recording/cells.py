"""Cells: each series adds up its values in one cell, once, however many exporters are installed.

On builds with the GIL a cell takes no lock. CPython switches threads only at calls and at backward jumps, so a
read-modify-write without either is atomic; the methods below make all their calls before they change the cell. That is how
CPython works, not what Python promises, so a stress test checks it on each version. Builds without the GIL use the ``Locked``
classes.

An ``Overflow`` cell is the one series for all label values beyond the cap; it also counts its measurements. A ``NoOpCell``
serves telemetry that is switched off.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import repeat
from math import inf, isfinite
from operator import add, sub
from time import perf_counter, time_ns
from typing import Any, ClassVar, Final, NoReturn, cast

from eventcore.errors import InvalidMeasurement
from eventcore.ground import own_logger, shown, type_name
from eventcore.recording.spans import Span
from eventcore.recording.values import Exemplar, Labels

# Fewer values than this are recorded one by one, which then takes less time than looking up every bound.
_FEW: Final = 16
# No float can be added to an int that is much larger.
_TOO_LARGE: Final = 1 << 64
_logger: Final = own_logger(__name__)


def _refuse(value: object, expected: str) -> NoReturn:
    if type(value) not in (int, float):
        raise InvalidMeasurement(f"cannot record {shown(value)} of type {type_name(type(value))}: expected {expected}")
    raise InvalidMeasurement(f"cannot record {shown(value)}: expected {expected}")


def _checked(value: object, least: float, expected: str) -> int | float:
    """A number of another type than ``int`` and ``float``, such as a ``Decimal`` or one of numpy, as one of these two."""
    number = plain_number(value) if not isinstance(value, str) else None
    if number is None or not max(least, -_TOO_LARGE) <= number < inf:
        _refuse(value, expected)
    return number


def plain_number(value: object) -> int | float | None:
    """A value as an exact ``int`` or ``float``; ``None`` when it is no finite number.

    Added as it is, a ``Decimal`` would make a cell that nobody can add a ``float`` to, and that no exporter can take.
    """
    if type(value) is int:
        return value
    try:
        number = value if type(value) is float else int(value) if isinstance(value, int) else float(cast(Any, value))
    except Exception:  # noqa: BLE001  # an object that took part in an addition and cannot be a number
        return None
    return number if isfinite(number) else None


class Buffer:
    """Values that wait to be recorded into one cell: appending one takes a fifth of the time of recording it.

    For a hot path with many values. Its owner must call ``fold`` now and then, so that the buffer stays small; each collection
    folds it, too.

    Attributes:
        append: add one finite number; safe from any thread.
        values: the numbers that wait.
        counter: a cell that also counts the numbers, if there is one.
    """

    __slots__ = ("_folding", "_record_many", "append", "counter", "values")

    def __init__(self, record_many: Callable[[Sequence[float]], None]) -> None:
        self._record_many = record_many
        self.counter: CounterCell | None = None
        self.values: list[float] = []
        self.append: Final[Callable[[float], None]] = self.values.append
        self._folding = threading.Lock()

    def fold(self) -> None:
        """Record the values that wait now. Does nothing while another thread folds this buffer."""
        # The event loop and a collecting thread both fold. Neither may wait here: the other thread may be inside a signal
        # handler that waits for a flush. Values that this call leaves behind are in the next collection.
        if not self._folding.acquire(blocking=False):
            return
        try:
            # Other threads go on appending, which only adds values behind those that are taken here.
            if waiting := self.values[:]:
                del self.values[: len(waiting)]
                self._record_many(waiting)
                if self.counter is not None:
                    self.counter.add_ones(len(waiting))
        except Exception:
            # Raised here, it would fail a command or a collection that has nothing to do with the value.
            _logger.exception("a batch of measurements is dropped")
        finally:
            self._folding.release()

    def clear(self) -> None:
        """Forget the values that wait. Only in a forked child: a thread of the parent may have held the lock."""
        self._folding = threading.Lock()
        self.values.clear()


class Cell:
    """What all cells share.

    Attributes:
        labels: the label names and values of the series.
        is_overflow: whether it is the one series for all label values beyond the cap.
        measurements: how many were recorded; only an overflow cell counts them.
        start_time_ns: when the series began, in nanoseconds since the Unix epoch.
    """

    __slots__ = ("__weakref__", "_buffer", "_exemplars", "_lock", "labels", "measurements", "start_time_ns")
    _locked: ClassVar = False
    is_overflow: ClassVar = False

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self._buffer: Buffer | None = None
        self.reset()

    def reset(self) -> None:
        """Start again without a value. A forked child does this; it has one thread then, so no lock is needed."""
        self.measurements = 0
        self.start_time_ns = time_ns()
        # By bucket. Each value is replaced as a whole, so that reading needs no lock.
        self._exemplars: dict[int, Exemplar] | None = None
        if self._locked:
            # Re-entrant, because a signal handler may record while its own thread holds the lock.
            self._lock = threading.RLock()
        if self._buffer is not None:
            self._buffer.clear()

    def record_many(self, values: Sequence[int | float]) -> None:
        """Record every one of ``values``, or none of them."""
        raise NotImplementedError  # pragma: no cover  # each kind of cell that is buffered has its own

    def offer(self, value: int | float, span: Span) -> None:
        """Keep a measurement that is recorded, too, as the series' exemplar: ``span``, which is sampled, leads to its trace.

        The newest one counts; a histogram keeps the newest of each bucket.
        """
        exemplar = Exemplar(value, time_ns(), span.trace_id, span.span_id)
        if (exemplars := self._exemplars) is None:
            self._exemplars = {self._bucket(value): exemplar}
        else:
            exemplars[self._bucket(value)] = exemplar

    def exemplars(self) -> tuple[Exemplar, ...]:
        """Those that were offered, in the order of their buckets."""
        offered = self._exemplars
        return () if offered is None else tuple([exemplar for _, exemplar in sorted(offered.copy().items())])

    def _bucket(self, value: int | float) -> int:
        return 0

    def buffer(self) -> Buffer:
        """The buffer of this cell: one, however often it is asked for."""
        if self._buffer is None:
            self._buffer = Buffer(self.record_many)
        return self._buffer

    def fold(self) -> None:
        """Record what waits in the buffer, if there is one."""
        if self._buffer is not None:
            self._buffer.fold()

    def current(self) -> Any:
        """The value, without what waits in the buffer. A collection folds all cells first, so that its values agree."""
        raise NotImplementedError  # pragma: no cover  # each kind of cell has its own

    def read(self) -> Any:
        """The value, with what waits in the buffer."""
        self.fold()
        return self.current()


class _SumCell(Cell):
    __slots__ = ("total",)

    def reset(self) -> None:
        super().reset()
        self.total: int | float = 0

    def add(self, amount: int | float) -> None:
        raise NotImplementedError  # pragma: no cover  # a counter and an up-down counter accept different amounts

    def record_many(self, values: Sequence[int | float]) -> None:
        self.add(sum(values))

    def current(self) -> int | float:
        return self.total


class CounterCell(_SumCell):
    """A total that only grows."""

    __slots__ = ()

    def add(self, amount: int | float = 1) -> None:
        """Add ``amount``, which is finite and not negative."""
        # Exact types first: comparing two ints, or two floats, takes half the time of comparing an int with infinity.
        if type(amount) is int:
            if not 0 <= amount < _TOO_LARGE:
                _refuse(amount, "a finite number, 0 or more")
        elif type(amount) is not float or not 0.0 <= amount < inf:
            amount = _checked(amount, 0, "a finite number, 0 or more")
        self.total += amount

    def add_ones(self, count: int) -> None:
        """Add 1, ``count`` times."""
        self.add(count)

    def count(self, buffer: Buffer) -> None:
        """Add 1 for each value that is recorded through ``buffer`` of another cell, which is no overflow cell.

        Reading the total folds the buffer, which has one counter.
        """
        buffer.counter = self
        self._buffer = buffer


class UpDownCounterCell(_SumCell):
    """A sum that may shrink."""

    __slots__ = ()

    def add(self, amount: int | float) -> None:
        """Add ``amount``, which is finite and may be negative."""
        if type(amount) is int:
            if not -_TOO_LARGE < amount < _TOO_LARGE:
                _refuse(amount, "a finite number")
        elif type(amount) is not float or not -inf < amount < inf:
            amount = _checked(amount, -inf, "a finite number")
        self.total += amount


class GaugeCell(Cell):
    """The last value that was set; ``None`` while it is unknown."""

    __slots__ = ("value",)

    def reset(self) -> None:
        super().reset()
        self.value: int | float | None = None

    def set(self, value: int | float | None) -> None:
        """Set the finite ``value``; ``None`` makes the series absent until the next value."""
        if type(value) is not int and (type(value) is not float or not -inf < value < inf) and value is not None:
            value = _checked(value, -inf, "a finite number, or None where it is not known")
        self.value = value

    def current(self) -> int | float | None:
        return self.value


class HistogramCell(Cell):
    """Sum, minimum, maximum and counts per bucket in one list: one ``list.copy`` is atomic, so they always agree.

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
        self.state: list[Any] = [0.0, inf, -inf] + [0] * (len(self.boundaries) + 1)

    def record(self, value: int | float) -> None:
        """Count the finite ``value`` in its bucket."""
        try:
            # `value - value` is 0 for a finite number and NaN for infinity and NaN. NaN is truthy, so this one test finds both.
            if value - value:
                _refuse(value, "a finite number")
            index = bisect_left(self._bounds, value)
            state = self.state
            # First, because it raises for what is no number to a float: then nothing is changed.
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
        """Count a ``Decimal``, for example; refuse what is no number."""
        if is_broken := not isinstance(self.state[0], float):
            # An object that adds itself to a number in its own way took part. The series begins again.
            self.reset()
        number = None if isinstance(value, str) else plain_number(value)
        # An int that is too large for a float is the same again.
        if number is None or (number is value and not is_broken):
            _refuse(value, "a finite number")
        HistogramCell.record(self, number)

    def record_many(self, values: Sequence[int | float]) -> None:
        """Count finite values, all of them or none: many of them take a fifth of the time of as many calls of ``record``."""
        if not values:
            return
        try:
            total = sum(values)
            if total - total:
                _refuse(next((value for value in values if value - value), total), "finite numbers with a finite sum")
            ordered = sorted(values)
            _ = self.state[0] + total  # raises for what is no number to a float
        except (TypeError, OverflowError):
            _refuse(values, "a sequence of finite numbers")
        if len(ordered) < _FEW:
            for value in values:
                # Not `self.record`: a subclass already holds its lock around this method.
                HistogramCell.record(self, value)
            return
        # There are fewer buckets than values, so look the bounds up among the sorted values and count by subtraction.
        up_to = [*map(bisect_right, repeat(ordered), self.boundaries), len(ordered)]
        low, high = ordered[0], ordered[-1]
        state = self.state
        more: list[Any] = [total, 0.0, 0.0, *map(sub, up_to, (0, *up_to))]
        # One call in C reads the old state and stores the new one, so no thread sees a part of it.
        state[:] = map(add, state, more)
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
        return self.state.copy()


class Timing:
    """One run of a timer."""

    __slots__ = ("_cell", "_start")

    def __init__(self, cell: HistogramCell) -> None:
        self._cell = cell

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._cell.record(perf_counter() - self._start)


class OverflowCounterCell(CounterCell):
    __slots__ = ()
    is_overflow = True

    def add(self, amount: int | float = 1) -> None:
        CounterCell.add(self, amount)
        self.measurements += 1

    def add_ones(self, count: int) -> None:
        CounterCell.add(self, count)
        self.measurements += count


class OverflowUpDownCounterCell(UpDownCounterCell):
    __slots__ = ()
    is_overflow = True

    def add(self, amount: int | float) -> None:
        UpDownCounterCell.add(self, amount)
        self.measurements += 1

    def record_many(self, values: Sequence[int | float]) -> None:
        UpDownCounterCell.add(self, sum(values))
        self.measurements += len(values)


class OverflowGaugeCell(GaugeCell):
    """Counts and keeps no value: the last one of many unrelated series says nothing."""

    __slots__ = ()
    is_overflow = True

    def set(self, value: int | float | None) -> None:
        self.measurements += 1


class OverflowHistogramCell(HistogramCell):
    __slots__ = ()
    is_overflow = True

    def record(self, value: int | float) -> None:
        HistogramCell.record(self, value)
        self.measurements += 1

    def record_many(self, values: Sequence[int | float]) -> None:
        HistogramCell.record_many(self, values)
        self.measurements += len(values)


class LockedCounterCell(CounterCell):
    __slots__ = ()
    _locked = True

    def add(self, amount: int | float = 1) -> None:
        with self._lock:
            super().add(amount)

    def add_ones(self, count: int) -> None:
        with self._lock:
            super().add_ones(count)


class LockedUpDownCounterCell(UpDownCounterCell):
    __slots__ = ()
    _locked = True

    def add(self, amount: int | float) -> None:
        with self._lock:
            super().add(amount)

    def record_many(self, values: Sequence[int | float]) -> None:
        with self._lock:
            super().record_many(values)


class LockedHistogramCell(HistogramCell):
    __slots__ = ()
    _locked = True

    def record(self, value: int | float) -> None:
        with self._lock:
            super().record(value)

    def record_many(self, values: Sequence[int | float]) -> None:
        with self._lock:
            super().record_many(values)

    def current(self) -> list[Any]:
        with self._lock:
            return self.state.copy()


# In these, `super()` of the locked class is the overflow class.


class LockedOverflowCounterCell(LockedCounterCell, OverflowCounterCell):
    __slots__ = ()


class LockedOverflowUpDownCounterCell(LockedUpDownCounterCell, OverflowUpDownCounterCell):
    __slots__ = ()


class LockedOverflowHistogramCell(LockedHistogramCell, OverflowHistogramCell):
    __slots__ = ()


class NoOpCell(HistogramCell):
    """Stands for a cell of any kind where telemetry is switched off."""

    __slots__ = ()

    def __init__(self, *arguments: Any) -> None:
        *boundaries, labels = arguments
        super().__init__(boundaries[0] if boundaries else (), labels)

    def _ignore(self, *_: Any, **__: Any) -> None:
        pass

    add = set = count = record = record_many = offer = _ignore
