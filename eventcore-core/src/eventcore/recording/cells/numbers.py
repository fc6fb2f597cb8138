"""Cells of counters and gauges: one number."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from eventcore.recording.cells.cell import Buffer, Cell
from eventcore.recording.cells.checks import TOO_LARGE, checked, refuse


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
            if not 0 <= amount < TOO_LARGE:
                refuse(amount, "a finite number, 0 or more")
        elif type(amount) is not float or not 0.0 <= amount < inf:
            amount = checked(amount, 0, "a finite number, 0 or more")
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
            if not -TOO_LARGE < amount < TOO_LARGE:
                refuse(amount, "a finite number")
        elif type(amount) is not float or not -inf < amount < inf:
            amount = checked(amount, -inf, "a finite number")
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
            value = checked(value, -inf, "a finite number, or None where it is not known")
        self.value = value

    def current(self) -> int | float | None:
        return self.value
