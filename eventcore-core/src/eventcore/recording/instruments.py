"""Instruments: named, validated once, and asked for their bound series."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast

from eventcore.errors import InvalidMeasurement
from eventcore.recording.cells import (
    CounterCell,
    GaugeCell,
    HistogramCell,
    Timing,
    UpDownCounterCell,
    counting,
    locked_where_needed,
    silent,
)
from eventcore.recording.values import (
    CounterData,
    GaugeData,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    NumberPoint,
)

Observations: TypeAlias = Mapping[tuple[str, ...], Any]
Callback: TypeAlias = Callable[[], Any]
"""Gives a number, ``None`` for "not known now", or a mapping from label values to either."""

_OVERFLOW: Final = "_overflow_"
_MAX_LABEL_LENGTH: Final = 1024
_SLICE: Final = 250
_logger: Final = logging.getLogger(__name__)

T = TypeVar("T")
CellT = TypeVar("CellT", CounterCell, UpDownCounterCell, GaugeCell, HistogramCell)


def _no_rest() -> None:
    """For a collection that nobody waits beside."""


def _slices(cells: list[T]) -> Iterator[list[T]]:
    """Parts that take well below a millisecond to collect."""
    for begin in range(0, len(cells), _SLICE):
        yield cells[begin : begin + _SLICE]


class CallbackHandle:
    """One callback of an instrument; ``close`` takes it away."""

    __slots__ = ("_instrument", "busy", "failures", "function")

    def __init__(self, instrument: Instrument[Any], function: Callback) -> None:
        self._instrument = instrument
        self.function = function
        self.failures = 0
        # Set while a call has not returned, so that a hanging callback is never called a second time.
        self.busy = False

    @property
    def instrument(self) -> Instrument[Any]:
        """The instrument whose values the callback gives."""
        return self._instrument

    def close(self) -> None:
        """Stop asking this callback; closing twice does no harm."""
        self._instrument._callbacks.pop(self, None)

    def fail(self, problem: str, *, exc_info: bool = False) -> None:
        """Count a failure, and log the first of a row: the ones after it say the same."""
        self.failures += 1
        if self.failures == 1:
            _logger.warning("the callback of %r gives no value: %s", self._instrument.name, problem, exc_info=exc_info)


class Instrument(Generic[CellT]):
    """What all instruments share: identity, series by label values, the cap on their number, callbacks."""

    kind: ClassVar[str]
    _base: ClassVar[type[Any]]

    def __init__(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        label_names: tuple[str, ...] = (),
        series_limit: int = 2000,
        enabled: bool = True,
    ) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.label_names = label_names
        self._limit = series_limit
        self._class = locked_where_needed(self._base) if enabled else silent(self._base)
        self._series: dict[tuple[str, ...], Any] = {}
        self._callbacks: dict[CallbackHandle, None] = {}
        overflow_class = counting(self._class) if enabled else self._class
        self._overflow = overflow_class(*self._arguments((_OVERFLOW,) * len(label_names)))
        self._observed_overflow = 0

    @property
    def shape(self) -> tuple[object, ...]:
        """What two requests for one name must agree on."""
        return (self.kind, self.name, self.unit, self.label_names)

    @property
    def overflow(self) -> int:
        """How many measurements went to the overflow series because the cap on series was reached."""
        return getattr(self._overflow, "measurements", 0) + self._observed_overflow

    def labels(self, *values: str, **by_name: str) -> CellT:
        """The bound series of these label values: hold it, and recording needs no look-up.

        Values come in the order of the instrument's labels, or by name (``**{"event.type": "Shipped"}``); each is a ``str`` of
        up to 1,024 characters. Beyond the cap on series the overflow series is returned, which counts what it gets.

        Raises:
            InvalidMeasurement: number, names or types of the values do not fit.
        """
        try:
            return self._series[values]  # type: ignore[no-any-return]  # holds cells of this class only
        except (KeyError, TypeError):
            return self._find(values, by_name)

    def add_callback(self, function: Callback) -> CallbackHandle:
        """Take values from ``function`` at each collection, called off the event loop and with a limit on its time."""
        handle = CallbackHandle(self, function)
        self._callbacks[handle] = None
        return handle

    def callbacks(self) -> tuple[CallbackHandle, ...]:
        """The callbacks that are registered now."""
        return tuple(self._callbacks.copy())

    def reset(self) -> None:
        """Let every series start again at nothing, keeping the bound series valid (a forked child does this)."""
        for cell in (self._overflow, *self._series.copy().values()):
            cell.__init__(*self._arguments(tuple(value for _, value in cell.labels)))

    def collect(
        self, observations: Observations, start_time_ns: int, time_ns: int, rest: Callable[[], None] = _no_rest
    ) -> MetricData | None:
        """The frozen values of all series, or ``None`` when there is none; ``rest`` is called now and then."""
        raise NotImplementedError  # pragma: no cover  # each instrument has its own

    def check_labels(self, values: object) -> bool:
        """Whether these are label values, one for each of the instrument's labels."""
        return (
            isinstance(values, tuple)
            and len(cast(tuple[object, ...], values)) == len(self.label_names)
            and all(isinstance(value, str) for value in cast(tuple[object, ...], values))
        )

    def check_observation(self, value: object) -> bool:
        """Whether a callback's value is one that this instrument can show."""
        return isinstance(value, (int, float)) and -inf < value < inf

    def _arguments(self, values: tuple[str, ...]) -> tuple[Any, ...]:
        """What a cell of these label values is made with."""
        return (tuple(zip(self.label_names, values, strict=True)),)

    def _find(self, values: tuple[str, ...], by_name: Mapping[str, str]) -> CellT:
        if by_name and not values:
            values = self._ordered(by_name)
        elif by_name:
            raise InvalidMeasurement(f"label values of {self.name!r}: give them in order or by name, not both")
        if len(values) != len(self.label_names):
            raise InvalidMeasurement(
                f"{self.name!r} has {len(self.label_names)} labels ({', '.join(self.label_names) or 'none'}), "
                f"got {len(values)} values"
            )
        for label, value in zip(self.label_names, values, strict=True):
            if not isinstance(value, str) or len(value) > _MAX_LABEL_LENGTH:
                got = f"{len(value)} characters" if isinstance(value, str) else f"{value!r:.80} of type {type(value).__name__}"
                raise InvalidMeasurement(
                    f"label {label!r} of {self.name!r}: expected a str of up to {_MAX_LABEL_LENGTH} characters, got {got}"
                )
        values = tuple(str.encode(value, errors="replace").decode() for value in values)
        # Without a lock, so that a signal handler or a finalizer may record too. Threads that race at the cap may each add one.
        if (cell := self._series.get(values)) is not None:
            return cell  # type: ignore[no-any-return]  # holds cells of this class only
        if len(self._series) >= self._limit:
            return self._overflow  # type: ignore[no-any-return]  # a cell of this class
        return self._series.setdefault(values, self._class(*self._arguments(values)))  # type: ignore[no-any-return]  # as above

    def _ordered(self, by_name: Mapping[str, str]) -> tuple[str, ...]:
        if by_name.keys() != set(self.label_names):
            raise InvalidMeasurement(
                f"{self.name!r} has the labels {', '.join(self.label_names) or 'none'}; got {', '.join(sorted(by_name))}"
            )
        return tuple(by_name[name] for name in self.label_names)

    def _cells(self) -> list[CellT]:
        cells = list(self._series.copy().values())
        if getattr(self._overflow, "measurements", 0):
            cells.append(self._overflow)
        return cells

    def _observed(self, observations: Observations) -> list[tuple[Labels, Any]]:
        """Values from callbacks with their labels, cut off at the cap."""
        if len(observations) > self._limit:
            self._observed_overflow += len(observations) - self._limit
        return [
            (tuple(zip(self.label_names, values, strict=True)), observation)
            for values, observation in list(observations.items())[: self._limit]
        ]

    def _number_points(
        self, observations: Observations, start: int, now: int, rest: Callable[[], None], value: str
    ) -> tuple[NumberPoint, ...]:
        points: list[NumberPoint] = []
        for cells in _slices(self._cells()):
            known = [(cell.labels, getattr(cell, value)) for cell in cells]
            points += [NumberPoint(labels, number, start, now) for labels, number in known if number is not None]
            rest()
        points += [NumberPoint(labels, number, start, now) for labels, number in self._observed(observations)]
        return tuple(points)


class Counter(Instrument[CounterCell]):
    """A total that only grows: requests, bytes, failures."""

    kind = "counter"
    _base = CounterCell

    def add(self, amount: int | float = 1) -> None:
        """Add to the only series of an instrument without labels."""
        self.labels().add(amount)

    def check_observation(self, value: object) -> bool:
        """A total is finite and not negative."""
        return isinstance(value, (int, float)) and 0 <= value < inf

    def collect(
        self, observations: Observations, start_time_ns: int, time_ns: int, rest: Callable[[], None] = _no_rest
    ) -> CounterData | None:
        """The totals since ``start_time_ns``."""
        points = self._number_points(observations, start_time_ns, time_ns, rest, "total")
        return CounterData(self.name, self.unit, self.description, self.label_names, points) if points else None


class UpDownCounter(Instrument[UpDownCounterCell]):
    """A sum that grows and shrinks: things in use, in a queue, in flight."""

    kind = "up_down_counter"
    _base = UpDownCounterCell

    def add(self, amount: int | float) -> None:
        """Add to the only series of an instrument without labels."""
        self.labels().add(amount)

    def collect(
        self, observations: Observations, start_time_ns: int, time_ns: int, rest: Callable[[], None] = _no_rest
    ) -> GaugeData | None:
        """The sums now."""
        points = self._number_points(observations, start_time_ns, time_ns, rest, "total")
        return GaugeData(self.name, self.unit, self.description, self.label_names, points, additive=True) if points else None


class Gauge(Instrument[GaugeCell]):
    """A value that is what it is now: a temperature, a position, an age."""

    kind = "gauge"
    _base = GaugeCell

    def set(self, value: int | float | None) -> None:
        """Set the only series of an instrument without labels; ``None`` makes it absent."""
        self.labels().set(value)

    def collect(
        self, observations: Observations, start_time_ns: int, time_ns: int, rest: Callable[[], None] = _no_rest
    ) -> GaugeData | None:
        """The values now; a series without one is absent."""
        points = self._number_points(observations, start_time_ns, time_ns, rest, "value")
        return GaugeData(self.name, self.unit, self.description, self.label_names, points) if points else None


class Histogram(Instrument[HistogramCell]):
    """How values are distributed over fixed boundaries: durations, sizes."""

    kind = "histogram"
    _base = HistogramCell

    def __init__(self, name: str, *, boundaries: tuple[float, ...], **rest: Any) -> None:
        self.boundaries = boundaries
        super().__init__(name, **rest)

    @property
    def shape(self) -> tuple[object, ...]:
        """Boundaries are part of a histogram's shape."""
        return (*super().shape, self.boundaries)

    def record(self, value: int | float) -> None:
        """Record into the only series of an instrument without labels."""
        self.labels().record(value)

    def time(self) -> Timing:
        """Time a block into the only series of an instrument without labels."""
        return self.labels().time()

    def check_observation(self, value: object) -> bool:
        """A histogram's callback gives cells with the same boundaries, kept by whoever counts."""
        return isinstance(value, HistogramCell) and value.boundaries == self.boundaries

    def collect(
        self, observations: Observations, start_time_ns: int, time_ns: int, rest: Callable[[], None] = _no_rest
    ) -> HistogramData | None:
        """Count, sum, extremes and buckets since ``start_time_ns``, in agreement for each series."""
        points: list[HistogramPoint] = []
        for known in _slices([(cell.labels, cell) for cell in self._cells()] + self._observed(observations)):
            for labels, cell in known:
                total, low, high, *buckets = cell.copy()
                if count := sum(buckets):
                    points.append(HistogramPoint(labels, count, total, low, high, tuple(buckets), start_time_ns, time_ns))
                else:
                    points.append(HistogramPoint(labels, 0, 0.0, None, None, tuple(buckets), start_time_ns, time_ns))
            rest()
        if not points:
            return None
        return HistogramData(self.name, self.unit, self.description, self.label_names, self.boundaries, tuple(points))

    def _arguments(self, values: tuple[str, ...]) -> tuple[Any, ...]:
        return (self.boundaries, *super()._arguments(values))
