"""Which class of cell an instrument uses: with or without a lock, for overflow, with exemplars."""

from __future__ import annotations

import sys
from typing import Any, Final, NamedTuple

from eventcore.recording.cells import (
    CounterCell,
    GaugeCell,
    HistogramCell,
    LockedCounterCell,
    LockedHistogramCell,
    LockedOverflowCounterCell,
    LockedOverflowHistogramCell,
    LockedOverflowUpDownCounterCell,
    LockedUpDownCounterCell,
    NoOpCell,
    OverflowCounterCell,
    OverflowGaugeCell,
    OverflowHistogramCell,
    OverflowUpDownCounterCell,
    UpDownCounterCell,
)
from eventcore.recording.spans import _current


def with_exemplars(cell_class: type[Any]) -> type[Any]:
    """The same kind of cell, which keeps an exemplar when it records inside a sampled span: an application asks for it."""

    def add(self: CounterCell, amount: int | float = 1) -> None:
        cell_class.add(self, amount)
        if (span := _current.get()) is not None and span._ring is not None:
            self.offer(amount, span)

    def record(self: HistogramCell, value: int | float) -> None:
        cell_class.record(self, value)
        if (span := _current.get()) is not None and span._ring is not None:
            self.offer(value, span)

    methods: dict[str, Any] = {"record": record} if issubclass(cell_class, HistogramCell) else {"add": add}
    return type(f"{cell_class.__name__}WithExemplars", (cell_class,), {"__slots__": (), **methods})


class CellClasses(NamedTuple):
    """The classes of one kind of cell. A gauge needs no lock anywhere: setting it is one store."""

    plain: type[Any]
    overflow: type[Any]
    locked: type[Any]
    locked_overflow: type[Any]

    def choose(self, *, enabled: bool, exemplars: bool = False) -> tuple[type[Any], type[Any]]:
        """The classes for the series and for the overflow series of an instrument, on this interpreter."""
        if not enabled:
            return NoOpCell, NoOpCell
        gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
        plain, overflow = (self.plain, self.overflow) if gil_enabled else (self.locked, self.locked_overflow)
        return (with_exemplars(plain), with_exemplars(overflow)) if exemplars else (plain, overflow)


COUNTER: Final = CellClasses(CounterCell, OverflowCounterCell, LockedCounterCell, LockedOverflowCounterCell)
UP_DOWN_COUNTER: Final = CellClasses(
    UpDownCounterCell, OverflowUpDownCounterCell, LockedUpDownCounterCell, LockedOverflowUpDownCounterCell
)
GAUGE: Final = CellClasses(GaugeCell, OverflowGaugeCell, GaugeCell, OverflowGaugeCell)
HISTOGRAM: Final = CellClasses(HistogramCell, OverflowHistogramCell, LockedHistogramCell, LockedOverflowHistogramCell)
