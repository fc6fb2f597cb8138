"""Instruments: named, validated once, and asked for their bound series."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import inf
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast

from eventcore.errors import InvalidMeasurement
from eventcore.recording import cells
from eventcore.recording.cells import CounterCell, GaugeCell, HistogramCell, Timing, UpDownCounterCell
from eventcore.recording.names import Label
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
# Making so many points takes well below a slice of processor time (see ``eventcore.ground.pacing``).
_SERIES_BETWEEN_PAUSES: Final = 250
_logger: Final = logging.getLogger(__name__)

T = TypeVar("T")
CellT = TypeVar("CellT", CounterCell, UpDownCounterCell, GaugeCell, HistogramCell)


def _no_pause() -> None:
    """For a collection on a thread that holds up no event loop."""


class CallbackHandle:
    """One callback of an instrument; ``close`` removes it.

    Attributes:
        instrument: the instrument whose values the callback gives.
        function: the callback.
        failures: how often it raised, did not return in time, or gave a value that does not fit.
        busy: true while a call has not returned, so that a hanging callback is never called a second time.
    """

    __slots__ = ("busy", "failures", "function", "instrument")

    def __init__(self, instrument: Instrument[Any], function: Callback) -> None:
        self.instrument = instrument
        self.function = function
        self.failures = 0
        self.busy = False

    def close(self) -> None:
        """Stop asking this callback; closing twice does no harm."""
        self.instrument._callbacks.pop(self, None)

    def fail(self, problem: str, *, exc_info: bool = False) -> None:
        """Count a failure, and log only the first: the later ones are the same."""
        self.failures += 1
        if self.failures == 1:
            _logger.warning("the callback of %r gives no value: %s", self.instrument.name, problem, exc_info=exc_info)


class Instrument(Generic[CellT]):
    """What all instruments share: identity, series by label values, the cap on their number, callbacks.

    Attributes:
        name, unit, description: as given when the instrument was created.
        label_names: in the order in which ``labels`` takes their values.
        open_labels: the labels whose values come from the application; only these can exceed the cap on series.
    """

    kind: ClassVar[str]
    _classes: ClassVar[cells.CellClasses]

    def __init__(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        labels: tuple[str, ...] = (),
        series_limit: int = 2000,
        enabled: bool = True,
    ) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.label_names = tuple(map(str, labels))
        self.open_labels = frozenset(str(label) for label in labels if not isinstance(label, Label) or label.open)
        self._limit = series_limit
        self._class, overflow_class = self._classes.choose(enabled=enabled)
        self._series: dict[tuple[str, ...], Any] = {}
        self._callbacks: dict[CallbackHandle, None] = {}
        self._overflow = self._new_cell((_OVERFLOW,) * len(labels), overflow_class)
        self._observed_overflow = 0

    @property
    def shape(self) -> tuple[object, ...]:
        """What two requests for one name must agree on."""
        return (self.kind, self.name, self.unit, self.label_names)

    @property
    def overflow(self) -> int:
        """How many measurements went to the overflow series because the cap on series was reached."""
        self._overflow.fold()
        return int(self._overflow.measurements) + self._observed_overflow

    def labels(self, *values: str, **by_name: str) -> CellT:
        """The bound series of these label values: keep it, and recording needs no look-up.

        Values come in the order of the instrument's labels, or by name (``**{"event.type": "Shipped"}``); each is a ``str`` of
        up to 1,024 characters. Beyond the cap on series the overflow series is returned, which also counts its measurements.

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
        """Start every series again without a value, keeping the bound series valid; a forked child does this."""
        for cell in (self._overflow, *self._series.copy().values()):
            cell.reset()

    def fold(self) -> None:
        """Record what waits in the buffers of all series."""
        for cell in (self._overflow, *self._series.copy().values()):
            # As `Cell.fold` does, without a call for each of thousands of cells that have no buffer.
            if cell._buffer is not None:
                cell._buffer.fold()

    def collect(
        self, observations: Observations, start_time_ns: int, time_ns: int, pause: Callable[[], None] = _no_pause
    ) -> MetricData | None:
        """The frozen values of all series, or ``None`` when there is none; calls ``pause`` every few hundred series."""
        points: list[Any] = []
        cells = [*self._series.copy().values(), *([self._overflow] if self._overflow.measurements else [])]
        for begin in range(0, len(cells), _SERIES_BETWEEN_PAUSES):
            part = [(cell.labels, cell.current()) for cell in cells[begin : begin + _SERIES_BETWEEN_PAUSES]]
            points += self._points(part, start_time_ns, time_ns)
            pause()
        observed = self._observed(observations)
        while part := list(islice(observed, _SERIES_BETWEEN_PAUSES)):
            points += self._points(part, start_time_ns, time_ns)
            pause()
        return self._data(tuple(points)) if points else None

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

    def _new_cell(self, values: tuple[str, ...], cell_class: type[Any]) -> Any:
        return cell_class(self._zip(values))

    def _zip(self, values: tuple[str, ...]) -> Labels:
        return tuple(zip(self.label_names, values, strict=True))

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
        # No lock, so that a signal handler or a finalizer may record, too. Threads that race here get the same cell, because
        # `setdefault` is atomic; at the cap each of them may add one series more.
        if (cell := self._series.get(values)) is not None:
            return cell  # type: ignore[no-any-return]  # holds cells of this class only
        if len(self._series) >= self._limit:
            return self._overflow  # type: ignore[no-any-return]  # a cell of this class
        return self._series.setdefault(values, self._new_cell(values, self._class))  # type: ignore[no-any-return]  # as above

    def _ordered(self, by_name: Mapping[str, str]) -> tuple[str, ...]:
        if by_name.keys() != set(self.label_names):
            raise InvalidMeasurement(
                f"{self.name!r} has the labels {', '.join(self.label_names) or 'none'}; got {', '.join(sorted(by_name))}"
            )
        return tuple(by_name[name] for name in self.label_names)

    def _observed(self, observations: Observations) -> Iterator[tuple[Labels, Any]]:
        """Values from callbacks with their labels; those beyond the cap are counted and left out."""
        self._observed_overflow += max(0, len(observations) - self._limit)
        for values, observation in islice(observations.items(), self._limit):
            yield self._zip(values), observation

    def _points(self, series: list[tuple[Labels, Any]], start: int, now: int) -> list[Any]:
        return [NumberPoint(labels, value, start, now) for labels, value in series if value is not None]

    def _data(self, points: tuple[Any, ...]) -> MetricData:
        raise NotImplementedError  # pragma: no cover  # each kind of instrument has its own


class Counter(Instrument[CounterCell]):
    """A total that only grows: requests, bytes, failures."""

    kind = "counter"
    _classes = cells.COUNTER

    def add(self, amount: int | float = 1) -> None:
        """Add to the only series of an instrument without labels."""
        self.labels().add(amount)

    def check_observation(self, value: object) -> bool:
        """A total is finite and not negative."""
        return isinstance(value, (int, float)) and 0 <= value < inf

    def _data(self, points: tuple[Any, ...]) -> CounterData:
        return CounterData(self.name, self.unit, self.description, self.label_names, points)


class UpDownCounter(Instrument[UpDownCounterCell]):
    """A sum that grows and shrinks: things in use, in a queue, in flight."""

    kind = "up_down_counter"
    _classes = cells.UP_DOWN_COUNTER

    def add(self, amount: int | float) -> None:
        """Add to the only series of an instrument without labels."""
        self.labels().add(amount)

    def _data(self, points: tuple[Any, ...]) -> GaugeData:
        return GaugeData(self.name, self.unit, self.description, self.label_names, points, additive=True)


class Gauge(Instrument[GaugeCell]):
    """A current value: a temperature, a position, an age."""

    kind = "gauge"
    _classes = cells.GAUGE

    def set(self, value: int | float | None) -> None:
        """Set the only series of an instrument without labels; ``None`` makes it absent."""
        self.labels().set(value)

    def _data(self, points: tuple[Any, ...]) -> GaugeData:
        return GaugeData(self.name, self.unit, self.description, self.label_names, points)


class Histogram(Instrument[HistogramCell]):
    """How values are distributed over fixed boundaries: durations, sizes."""

    kind = "histogram"
    _classes = cells.HISTOGRAM

    def __init__(self, name: str, *, boundaries: tuple[float, ...], **common: Any) -> None:
        self.boundaries = boundaries
        super().__init__(name, **common)

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
        """A histogram's callback gives cells with the same boundaries."""
        return isinstance(value, HistogramCell) and value.boundaries == self.boundaries

    def _new_cell(self, values: tuple[str, ...], cell_class: type[Any]) -> Any:
        return cell_class(self.boundaries, self._zip(values))

    def _points(self, series: list[tuple[Labels, Any]], start: int, now: int) -> list[Any]:
        points: list[HistogramPoint] = []
        for labels, state in series:
            total, low, high, *buckets = state.copy() if isinstance(state, HistogramCell) else state
            if not (count := sum(buckets)):
                total, low, high = 0.0, None, None
            points.append(HistogramPoint(labels, count, total, low, high, tuple(buckets), start, now))
        return points

    def _data(self, points: tuple[Any, ...]) -> HistogramData:
        return HistogramData(self.name, self.unit, self.description, self.label_names, self.boundaries, points)
