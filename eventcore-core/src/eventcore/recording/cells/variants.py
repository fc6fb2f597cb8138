"""The cells of series beyond the cap, of interpreters without the GIL, and of telemetry that is switched off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventcore.recording.cells.histograms import Distribution, HistogramCell
from eventcore.recording.cells.numbers import CounterCell, GaugeCell, UpDownCounterCell


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
            return super().current()

    def settle(self) -> Distribution | None:
        with self._lock:
            return super().settle()


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
