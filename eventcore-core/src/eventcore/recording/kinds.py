"""Which class of cell an instrument uses (with or without a lock, for overflow, with exemplars), and how many it may have."""

from __future__ import annotations

import sys
from typing import Any, Final, NamedTuple

from eventcore.ground import own_logger, shown
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
from eventcore.recording.names import Label
from eventcore.recording.spans import _current

OVERFLOW: Final = "_overflow_"
"""The value of the open labels of an overflow series."""

_logger: Final = own_logger(__name__)


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


class SeriesCaps:
    """How many series there may be, and how many there are in all instruments.

    Without a lock: at a cap, threads that race may each add one series more.

    Attributes:
        each: of one instrument.
        total: of all instruments together.
        used: series that count for the total.
    """

    __slots__ = ("_reached", "each", "total", "used", "warned")

    def __init__(self, each: int = 2000, total: int = 10_000) -> None:
        self.each = each
        self.total = total
        self.used = 0
        self.warned = False
        self._reached: set[str] = set()

    def reached_by(self, instrument: Any, values: tuple[str, ...]) -> None:
        """Log once for each instrument, and once for the total, which label has too many values."""
        if instrument.name in self._reached or (self.used >= self.total and self.warned):
            return
        self._reached.add(instrument.name)
        if in_all := self.used >= self.total:
            self.warned = True
        keys = [*instrument._series.copy(), values]
        columns = [(len(set(column)), at) for at, column in enumerate(zip(*keys, strict=True))]
        count, at = max((count, at) for count, at in columns if instrument.label_names[at] in instrument.open_labels)
        limit = f"all instruments together have {self.total} series" if in_all else f"it has {instrument._limit.own} series"
        _logger.warning(
            "%r takes no further series: %s. Its label %r has %d values here, for example %s; measurements of further ones are "
            "recorded with the value %r. Use a label with fewer values, or raise %s in the table [telemetry]",
            instrument.name,
            limit,
            instrument.label_names[at],
            count - 1,
            shown(values[at]),
            OVERFLOW,
            "total_series_limit" if in_all else "series_limit",
        )


class SeriesLimit:
    """How many series one instrument may have.

    Args:
        caps: those of all instruments.
        labels: of the instrument.
        histogram: whether it is one, which is as many numbers as it has buckets: so some labels leave it fewer series.

    Attributes:
        own: its cap.
        room: so many fit also when all instruments together have reached their cap.
    """

    __slots__ = ("_caps", "own", "room")

    def __init__(self, caps: SeriesCaps, labels: tuple[str, ...], *, histogram: bool) -> None:
        self._caps = caps
        known = [label for label in labels if isinstance(label, Label)]
        shares = [label.histogram_share for label in known] if histogram else []
        self.own = max(1, int(caps.each * min(shares, default=1.0)))
        # An application's own labels are plain texts.
        self.room = min((label.room for label in known if label.open), default=0) if len(known) == len(labels) else 0

    def left(self, used: int = 0) -> int:
        """How many series fit beside the ``used`` ones of the instrument; 0 or less if none does."""
        return min(self.own - used, max(self.room - used, self._caps.total - self._caps.used))
