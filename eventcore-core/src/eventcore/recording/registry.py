"""The registry: every instrument by name, created once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from math import isfinite
from typing import Any, Final, TypeVar

from eventcore.errors import InvalidInstrument
from eventcore.ground import shown, text_of
from eventcore.recording.instruments import Counter, Gauge, Histogram, Instrument, UpDownCounter
from eventcore.recording.kinds import SeriesCaps
from eventcore.recording.names import canonical_name, check_label_names, check_metric_name, check_unit
from eventcore.recording.values import EVENTCORE

SECONDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Boundaries for durations, from the microseconds of a command in memory to the seconds of one that is stuck."""

_MAX_BOUNDARIES: Final = 256
_TOTAL: Final = 10_000

InstrumentT = TypeVar("InstrumentT", bound=Instrument[Any])


class InstrumentRegistry:
    """Creates each instrument once; asking again with the same shape returns the same one.

    Args:
        series_limit: how many series an instrument may have before further label values share its overflow series.
        total_series_limit: how many series all instruments may have; by default 10,000, or ``series_limit`` if that is more.
        boundaries: by patterns of names such as ``"http.*"``, the boundaries of the histograms whose names fit, in place of
            those that the code asks for. Of several patterns that fit, the longest counts.
        enabled: false makes every instrument a no-op that only checks names and labels.
    """

    def __init__(
        self,
        *,
        series_limit: int = 2000,
        total_series_limit: int | None = None,
        boundaries: Mapping[str, Sequence[float]] | None = None,
        enabled: bool = True,
    ) -> None:
        self.caps = SeriesCaps(series_limit, max(_TOTAL, series_limit) if total_series_limit is None else total_series_limit)
        self._boundaries = boundaries or {}
        self.enabled = enabled
        self.start_time_ns = time.time_ns()
        self._instruments: dict[str, Instrument[Any]] = {}
        self._lock = threading.RLock()

    @property
    def series_limit(self) -> int:
        """How many series an instrument that is created from now on may have."""
        return self.caps.each

    @series_limit.setter
    def series_limit(self, limit: int) -> None:
        self.caps.each = limit
        self.caps.total = max(self.caps.total, limit)

    def counter(self, name: str, *, labels: Iterable[str] = (), **options: Any) -> Counter:
        """The counter of that name. ``options``: ``unit``, ``description``, ``scope``, ``exemplars``."""
        return self._get(Counter, name, labels, **options)

    def up_down_counter(self, name: str, *, labels: Iterable[str] = (), **options: Any) -> UpDownCounter:
        """The up-down counter of that name."""
        return self._get(UpDownCounter, name, labels, **options)

    def gauge(self, name: str, *, labels: Iterable[str] = (), **options: Any) -> Gauge:
        """The gauge of that name."""
        return self._get(Gauge, name, labels, **options)

    def histogram(self, name: str, *, boundaries: Iterable[float], labels: Iterable[str] = (), **options: Any) -> Histogram:
        """The histogram of that name."""
        try:
            bounds = tuple(float(boundary) for boundary in boundaries)
        except (TypeError, ValueError) as error:
            raise InvalidInstrument(f"boundaries of {name!r}: expected numbers, got {shown(boundaries)}") from error
        if problem := boundaries_problem(bounds):
            raise InvalidInstrument(f"boundaries of {name!r}: {problem}")
        return self._get(Histogram, name, labels, boundaries=bounds, configured=self._configured(name), **options)

    def instruments(self) -> tuple[Instrument[Any], ...]:
        """Every instrument, in order of creation."""
        return tuple(self._instruments.copy().values())

    def overflow(self) -> dict[str, int]:
        """Per instrument, the measurements that went to its overflow series; instruments without any are left out."""
        return {instrument.name: count for instrument in self.instruments() if (count := instrument.overflow)}

    def reset(self) -> None:
        """Start every series again without a value: a forked child must not report the totals of its parent again."""
        self._lock = threading.RLock()
        self.start_time_ns = time.time_ns()
        for instrument in self.instruments():
            instrument.reset()

    def _configured(self, name: str) -> tuple[float, ...]:
        fitting = [pattern for pattern in self._boundaries if fnmatchcase(name, pattern)]
        return tuple(map(float, self._boundaries[max(fitting, key=len)])) if fitting else ()

    def _get(
        self, kind: type[InstrumentT], name: str, labels: Iterable[str], *, unit: str = "", description: str = "", **more: Any
    ) -> InstrumentT:
        check_metric_name(name)
        check_unit(name, unit)
        created = kind(
            name,
            unit=unit,
            description=text_of(description),
            labels=check_label_names(name, labels),
            caps=self.caps,
            enabled=self.enabled,
            **more,
        )
        with self._lock:
            created.created = len(self._instruments) + 1
            known = self._instruments.setdefault(canonical_name(name), created)
        if known.shape != created.shape:
            raise InvalidInstrument(
                f"instrument {name!r} exists with another shape: {_describe(known)}; asked for was {_describe(created)}. "
                "Names that differ only in dots and underscores are the same name"
            )
        return known  # type: ignore[return-value]  # the shapes agree, so the kinds do


def boundaries_problem(bounds: Sequence[float]) -> str:
    """What is wrong with the boundaries of a histogram; empty when they fit."""
    ascending = all(low < high for low, high in pairwise(bounds))
    if ascending and len(bounds) <= _MAX_BOUNDARIES and all(map(isfinite, bounds)):
        return ""
    return f"expected up to {_MAX_BOUNDARIES} finite, strictly ascending numbers, got {shown(tuple(bounds), 300)}"


def _describe(instrument: Instrument[Any]) -> str:
    labels = ", ".join(instrument.label_names) or "none"
    boundaries = f", boundaries {instrument.boundaries}" if isinstance(instrument, Histogram) else ""
    scope = "" if instrument.scope == EVENTCORE else f", scope {instrument.scope.name!r} {instrument.scope.version}".rstrip()
    return f"{instrument.kind} {instrument.name!r}, unit {instrument.unit!r}, labels {labels}{boundaries}{scope}"
