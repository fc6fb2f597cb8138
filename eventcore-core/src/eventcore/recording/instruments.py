"""Instruments: named, validated once, and asked for their bound series."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import inf
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast

import msgspec

from eventcore.errors import InvalidMeasurement
from eventcore.ground import cut, own_logger, shown, type_name
from eventcore.recording import kinds
from eventcore.recording.cells import Cell, CounterCell, GaugeCell, HistogramCell, Timing, UpDownCounterCell, plain_number
from eventcore.recording.kinds import OVERFLOW, SeriesCaps, SeriesLimit
from eventcore.recording.names import Label
from eventcore.recording.values import (
    EVENTCORE,
    CounterData,
    GaugeData,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    NumberPoint,
    Scope,
)

Observations: TypeAlias = Mapping[tuple[str, ...], Any]
Callback: TypeAlias = Callable[[], Any]
"""Gives a number, ``None`` for "not known now", or a mapping from label values to either."""

_MAX_LABEL_LENGTH: Final = 1024
# Making so many points takes well below a slice of processor time (see ``eventcore.ground.pacing``).
_SERIES_BETWEEN_PAUSES: Final = 250
_logger: Final = own_logger(__name__)

T = TypeVar("T")
CellT = TypeVar("CellT", CounterCell, UpDownCounterCell, GaugeCell, HistogramCell)


def _no_pause() -> None: ...


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

    def fail(self, problem: str) -> None:
        """Count a failure, and log only the first: the later ones are the same."""
        self.failures += 1
        if self.failures == 1:
            _logger.warning("the callback of %r gives no value: %s", self.instrument.name, problem)


class Instrument(Generic[CellT]):
    """What all instruments share: identity, series by label values, the cap on their number, callbacks.

    Attributes:
        name, unit, description: as given when the instrument was created.
        label_names: in the order in which ``labels`` takes their values.
        open_labels: the labels whose values come from the application; only these can exceed the cap on series.
        scope: the part of the program that created it.
        created: its place in the order in which the registry's instruments were created, from 1; 0 outside a registry.
    """

    kind: ClassVar[str]
    _classes: ClassVar[kinds.CellClasses]

    def __init__(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        labels: tuple[str, ...] = (),
        caps: SeriesCaps | None = None,
        scope: Scope = EVENTCORE,
        exemplars: bool = False,
        enabled: bool = True,
    ) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.label_names = tuple(map(str, labels))
        self.open_labels = frozenset(str(label) for label in labels if not isinstance(label, Label) or label.open)
        self.scope = scope
        self.created = 0
        self._caps = caps or SeriesCaps()
        self._limit = SeriesLimit(self._caps, labels, histogram=self.kind == "histogram")
        self._cell_classes = self._classes.choose(enabled=enabled, exemplars=exemplars)
        self._series: dict[tuple[str, ...], Any] = {}
        # Series beyond the cap, by the values of their fixed labels.
        self._overflows: dict[tuple[str, ...], Any] = {}
        self._removed: dict[tuple[str, ...], tuple[weakref.ref[Cell], Any]] = {}
        self._callbacks: dict[CallbackHandle, None] = {}
        self._observed_overflow = 0

    @property
    def shape(self) -> tuple[object, ...]:
        """What two requests for one name must agree on."""
        return (self.kind, self.name, self.unit, self.label_names, self.scope)

    @property
    def overflow(self) -> int:
        """How many measurements went to an overflow series because a cap on series was reached."""
        overflows = list(self._overflows.values())
        for cell in overflows:
            cell.fold()
        return sum(int(cell.measurements) for cell in overflows) + self._observed_overflow

    def labels(self, *values: str, **by_name: str) -> CellT:
        """The bound series of these label values: keep it, and recording needs no look-up.

        Values come in the order of the instrument's labels, or by name (``**{"event.type": "Shipped"}``); each is a ``str`` of
        up to 1,024 characters. Beyond a cap on series an overflow series is returned, which also counts its measurements: the
        values of its open labels are ``_overflow_``.

        Raises:
            InvalidMeasurement: number, names or types of the values do not fit.
        """
        try:
            return self._series[values]  # type: ignore[no-any-return]  # holds cells of this class only
        except (KeyError, TypeError):
            return self._find(values, by_name)

    def remove(self, *values: str, **by_name: str) -> bool:
        """Show a series no more, for example one of a customer who has left. Returns whether it was shown.

        If a bound series that somebody kept is moved again, it comes back with its total.

        Raises:
            InvalidMeasurement: as for ``labels``.
        """
        key = self._key(values, by_name)
        cell = self._series.pop(key, None)
        if cell is None:
            return False
        self._caps.used -= 1
        cell.fold()
        if isinstance(cell, GaugeCell):
            # So that setting the same value again moves it.
            cell.value = None
        self._removed[key] = (weakref.ref(cell), cell.current())
        return True

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
        for cell in self._cells():
            cell.reset()
        for key, (reference, _) in self._removed.copy().items():
            if (cell := reference()) is not None:
                cell.reset()
                self._removed[key] = (reference, cell.current())

    def fold(self) -> None:
        """Record what waits in the buffers of all series."""
        if self._removed:
            self._take_back()
        for cell in self._cells():
            # As `Cell.fold` does, without a call for each of thousands of cells that have no buffer.
            if cell._buffer is not None:
                cell._buffer.fold()

    def collect(
        self, observations: Observations, start_time_ns: int, time_ns: int, pause: Callable[[], None] = _no_pause
    ) -> MetricData | None:
        """The frozen values of all series, or ``None`` when there is none; calls ``pause`` every few hundred series.

        Args:
            observations: what the callbacks gave.
            start_time_ns: when their series began, unless they say so themselves.
            time_ns: the time of the collection.
        """
        points: list[Any] = []
        cells = [*self._series.copy().values(), *(cell for cell in self._overflows.copy().values() if cell.measurements)]
        for begin in range(0, len(cells), _SERIES_BETWEEN_PAUSES):
            points += self._points(cells[begin : begin + _SERIES_BETWEEN_PAUSES], time_ns)
            pause()
        observed = self._observed(observations)
        given: list[Any] = []
        while part := list(islice(observed, _SERIES_BETWEEN_PAUSES)):
            given += self._observed_points(part, start_time_ns, time_ns)
            pause()
        points = self._joined(points, given) if points and given else points or given
        return self._data(tuple(points)) if points else None

    def checked_labels(self, values: object) -> tuple[str, ...] | None:
        """Label values from a callback, one for each of the instrument's labels; ``None`` when they do not fit."""
        try:
            if isinstance(values, tuple):
                return self._key(cast("tuple[str, ...]", values), {})
        except InvalidMeasurement:
            pass
        return None

    def check_observation(self, value: object) -> bool:
        """Whether this instrument can show a callback's value."""
        return type(value) in (int, float, bool) and -inf < cast(float, value) < inf

    def _cells(self) -> list[Any]:
        return [*self._series.copy().values(), *self._overflows.copy().values()]

    def _new_cell(self, values: tuple[str, ...], cell_class: type[Any]) -> Any:
        return cell_class(self._zip(values))

    def _zip(self, values: tuple[str, ...]) -> Labels:
        return tuple(zip(self.label_names, values, strict=True))

    def _find(self, values: tuple[str, ...], by_name: Mapping[str, str]) -> CellT:
        key = self._key(values, by_name)
        # No lock, so that a signal handler or a finalizer may record, too. Threads that race here get the same cell, because
        # `setdefault` is atomic; at the cap each of them may add one series more.
        if (cell := self._series.get(key)) is not None:
            return cell  # type: ignore[no-any-return]  # holds cells of this class only
        removed = self._removed.get(key)
        if removed is not None and (watched := removed[0]()) is not None:
            return cast(CellT, watched)
        caps = self._caps
        if self.open_labels and (self._limit.left(len(self._series)) <= 0 or OVERFLOW in key):
            shared = tuple(OVERFLOW if label in self.open_labels else value for label, value in self._zip(key))
            if shared != key:
                caps.reached_by(self, key)
            if (cell := self._overflows.get(shared)) is None:
                cell = self._overflows.setdefault(shared, self._new_cell(shared, self._cell_classes[1]))
            return cell  # type: ignore[no-any-return]  # as above
        caps.used += 1
        return self._series.setdefault(key, self._new_cell(key, self._cell_classes[0]))  # type: ignore[no-any-return]  # as above

    def _key(self, values: tuple[str, ...], by_name: Mapping[str, str]) -> tuple[str, ...]:
        """Label values in order, checked."""
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
            # By the methods of `str`: a subclass may have changed them.
            if not issubclass(type(value), str) or str.__len__(value) > _MAX_LABEL_LENGTH:
                is_text = issubclass(type(value), str)
                got = f"{str.__len__(value)} characters" if is_text else f"{shown(value)} of type {type_name(type(value))}"
                raise InvalidMeasurement(
                    f"label {label!r} of {self.name!r}: expected a str of up to {_MAX_LABEL_LENGTH} characters, got {got}"
                )
        return tuple(cut(value, _MAX_LABEL_LENGTH) for value in values)

    def _ordered(self, by_name: Mapping[str, str]) -> tuple[str, ...]:
        if by_name.keys() != set(self.label_names):
            raise InvalidMeasurement(
                f"{self.name!r} has the labels {', '.join(self.label_names) or 'none'}; got {', '.join(sorted(by_name))}"
            )
        return tuple(by_name[name] for name in self.label_names)

    def _take_back(self) -> None:
        """Show removed series again that were moved, and forget those that nobody holds."""
        for key, (reference, last) in self._removed.copy().items():
            cell = reference()
            if cell is None:
                self._removed.pop(key, None)
            elif cell.read() != last:
                self._removed.pop(key, None)
                self._series.setdefault(key, cell)
                self._caps.used += 1

    def _observed(self, observations: Observations) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Values from callbacks with their labels; those beyond a cap are counted and left out."""
        limit = max(0, self._limit.left()) if self.open_labels else len(observations)
        if len(observations) > limit:
            self._observed_overflow += len(observations) - limit
            self._caps.reached_by(self, next(islice(observations, limit, None)))
        yield from islice(observations.items(), limit)

    def _points(self, cells: list[Any], now: int) -> list[Any]:
        points: list[NumberPoint] = []
        for cell in cells:
            if (value := cell.current()) is None:
                continue
            if (number := value if type(value) is int else plain_number(value)) is None:
                # An object that is no number took part in an addition, or the sum became infinite. Start again.
                cell.reset()
                continue
            exemplars = () if cell._exemplars is None else cell.exemplars()
            points.append(NumberPoint(cell.labels, number, cell.start_time_ns, now, exemplars))
        return points

    def _observed_points(self, series: list[tuple[tuple[str, ...], Any]], start: int, now: int) -> list[Any]:
        return [NumberPoint(self._zip(key), value + 0, start, now) for key, value in series]

    def _joined(self, points: list[Any], observed: list[Any]) -> list[Any]:
        """Each series once, though some were recorded and given by a callback, too."""
        joined = {point.labels: point for point in points}
        for point in observed:
            recorded = joined.get(point.labels)
            joined[point.labels] = point if recorded is None else self._both(recorded, point)
        return list(joined.values())

    def _both(self, recorded: Any, observed: Any) -> Any:
        """One point for a series with two: their sum."""
        since = min(recorded.start_time_ns, observed.start_time_ns)
        return msgspec.structs.replace(recorded, value=recorded.value + observed.value, start_time_ns=since)

    def _data(self, points: tuple[Any, ...]) -> MetricData:
        raise NotImplementedError  # pragma: no cover  # each kind of instrument has its own


class Counter(Instrument[CounterCell]):
    """A total that only grows: requests, bytes, failures."""

    kind = "counter"
    _classes = kinds.COUNTER

    def __init__(self, name: str, **common: Any) -> None:
        super().__init__(name, **common)
        # Of series from callbacks: when each began, and its last total; and the time of the last collection.
        self._observed_since: dict[tuple[str, ...], tuple[int, int | float]] = {}
        self._observed_at = 0

    def add(self, amount: int | float = 1) -> None:
        """Add to the only series of an instrument without labels."""
        self.labels().add(amount)

    def check_observation(self, value: object) -> bool:
        """A total is finite and not negative."""
        return super().check_observation(value) and cast(float, value) >= 0

    def reset(self) -> None:
        super().reset()
        self._observed_since, self._observed_at = {}, 0

    def _observed_points(self, series: list[tuple[tuple[str, ...], Any]], start: int, now: int) -> list[Any]:
        """A total that has shrunk began again, at some time after the collection before."""
        before, self._observed_at = self._observed_at or start, now
        points: list[NumberPoint] = []
        for key, value in series:
            since, last = self._observed_since.get(key, (before, 0))
            if value < last:
                since = before
            self._observed_since[key] = (since, value)
            points.append(NumberPoint(self._zip(key), value + 0, since, now))
        return points

    def _data(self, points: tuple[Any, ...]) -> CounterData:
        described = (self.name, self.unit, self.description, self.label_names)
        return CounterData(*described, points, self.scope, self.created, observed=bool(self._callbacks))


class UpDownCounter(Instrument[UpDownCounterCell]):
    """A sum that grows and shrinks: things in use, in a queue, in flight."""

    kind = "up_down_counter"
    _classes = kinds.UP_DOWN_COUNTER

    def add(self, amount: int | float) -> None:
        """Add to the only series of an instrument without labels."""
        self.labels().add(amount)

    def _data(self, points: tuple[Any, ...]) -> GaugeData:
        return GaugeData(self.name, self.unit, self.description, self.label_names, points, True, self.scope, self.created)


class Gauge(Instrument[GaugeCell]):
    """A current value: a temperature, a position, an age."""

    kind = "gauge"
    _classes = kinds.GAUGE

    def set(self, value: int | float | None) -> None:
        """Set the only series of an instrument without labels; ``None`` makes it absent."""
        self.labels().set(value)

    def _both(self, recorded: Any, observed: Any) -> Any:
        """What the callback says now is newer than what was set before."""
        return observed

    def _data(self, points: tuple[Any, ...]) -> GaugeData:
        return GaugeData(self.name, self.unit, self.description, self.label_names, points, False, self.scope, self.created)


class Histogram(Instrument[HistogramCell]):
    """How values are distributed over fixed boundaries: durations, sizes."""

    kind = "histogram"
    _classes = kinds.HISTOGRAM

    def __init__(self, name: str, *, boundaries: tuple[float, ...], configured: tuple[float, ...] = (), **common: Any) -> None:
        self.boundaries = configured or boundaries
        self._asked = boundaries
        self._bounds: tuple[float, ...] = ()
        super().__init__(name, **common)

    @property
    def shape(self) -> tuple[object, ...]:
        return (*super().shape, self._asked)

    def add_callback(self, function: Callback) -> CallbackHandle:
        # Its cells have the boundaries that the code asks for.
        if not self._series:
            self.boundaries = self._asked
        return super().add_callback(function)

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
        cell = cell_class(self.boundaries, self._zip(values))
        # One tuple for the cells of all series.
        self._bounds = cell._bounds = self._bounds if self._bounds == cell._bounds else cell._bounds
        return cell

    def _points(self, cells: list[Any], now: int) -> list[Any]:
        points: list[HistogramPoint] = []
        for cell in cells:
            if (found := cell.settle()) is None:
                # See `Instrument._points`.
                cell.reset()
                continue
            low, high = (found.low, found.high) if found.count else (None, None)
            exemplars = () if cell._exemplars is None else cell.exemplars()
            points.append(
                HistogramPoint(
                    cell.labels, found.count, found.total, low, high, found.buckets, cell.start_time_ns, now, exemplars
                )
            )
        return points

    def _both(self, recorded: Any, observed: Any) -> Any:
        """Both distributions as one."""
        if not (recorded.count and observed.count):
            return recorded if recorded.count else observed
        return msgspec.structs.replace(
            recorded,
            count=recorded.count + observed.count,
            sum=recorded.sum + observed.sum,
            min=min(recorded.min, observed.min),
            max=max(recorded.max, observed.max),
            buckets=tuple(map(int.__add__, recorded.buckets, observed.buckets)),
            start_time_ns=min(recorded.start_time_ns, observed.start_time_ns),
        )

    def _observed_points(self, series: list[tuple[tuple[str, ...], Any]], start: int, now: int) -> list[Any]:
        points: list[HistogramPoint] = []
        for key, cell in series:
            labels = self._zip(key)
            points += [msgspec.structs.replace(point, labels=labels) for point in self._points([cell], now)]
        return points

    def _data(self, points: tuple[Any, ...]) -> HistogramData:
        described = (self.name, self.unit, self.description, self.label_names)
        return HistogramData(*described, self.boundaries, points, self.scope, self.created)
