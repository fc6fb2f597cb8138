"""Cells: each series adds up its values in one cell, once, however many exporters are installed.

On builds with the GIL a cell takes no lock. CPython switches threads only at calls and at backward jumps, so a
read-modify-write without either is atomic; the methods below make all their calls before they change the cell. That is how
CPython works, not what Python promises, so a stress test checks it on each version. Builds without the GIL use the ``Locked``
classes.

An ``Overflow`` cell is the one series for all label values beyond the cap; it also counts its measurements. A ``NoOpCell``
serves telemetry that is switched off.
"""

from __future__ import annotations

from eventcore.recording.cells.cell import Buffer, Cell
from eventcore.recording.cells.checks import plain_number
from eventcore.recording.cells.histograms import Distribution, HistogramCell, Timing
from eventcore.recording.cells.numbers import CounterCell, GaugeCell, UpDownCounterCell
from eventcore.recording.cells.variants import (
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
)

__all__ = [
    "Buffer",
    "Cell",
    "CounterCell",
    "Distribution",
    "GaugeCell",
    "HistogramCell",
    "LockedCounterCell",
    "LockedHistogramCell",
    "LockedOverflowCounterCell",
    "LockedOverflowHistogramCell",
    "LockedOverflowUpDownCounterCell",
    "LockedUpDownCounterCell",
    "NoOpCell",
    "OverflowCounterCell",
    "OverflowGaugeCell",
    "OverflowHistogramCell",
    "OverflowUpDownCounterCell",
    "Timing",
    "UpDownCounterCell",
    "plain_number",
]
