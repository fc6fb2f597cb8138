"""The registry: every instrument by name, created once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, TypeVar

from eventcore.errors import InvalidInstrument
from eventcore.recording.instruments import Counter, Gauge, Histogram, Instrument, UpDownCounter
from eventcore.recording.names import canonical_name, check_label_names, check_metric_name, check_unit

SECONDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Boundaries for durations, from the microseconds of a command in memory to the seconds of one that is stuck."""

_MAX_BOUNDARIES: Final = 256

InstrumentT = TypeVar("InstrumentT", bound=Instrument[Any])


class InstrumentRegistry:
    """Creates each instrument once; asking again with the same shape returns the same one.

    Args:
        series_limit: how many series an instrument may have before further label values share its overflow series.
        enabled: false makes every instrument a no-op that only checks names and labels.
    """

    def __init__(self, *, series_limit: int = 2000, enabled: bool = True) -> None:
        self.series_limit = series_limit
        self.enabled = enabled
        self.start_time_ns = time.time_ns()
        self._instruments: dict[str, Instrument[Any]] = {}
        self._lock = threading.RLock()

    def counter(self, name: str, *, unit: str, description: str, labels: Iterable[str]) -> Counter:
        """The counter of that name."""
        return self._get(Counter, name, unit, description, labels)

    def up_down_counter(self, name: str, *, unit: str, description: str, labels: Iterable[str]) -> UpDownCounter:
        """The up-down counter of that name."""
        return self._get(UpDownCounter, name, unit, description, labels)

    def gauge(self, name: str, *, unit: str, description: str, labels: Iterable[str]) -> Gauge:
        """The gauge of that name."""
        return self._get(Gauge, name, unit, description, labels)

    def histogram(
        self, name: str, *, unit: str, description: str, labels: Iterable[str], boundaries: Iterable[float]
    ) -> Histogram:
        """The histogram of that name."""
        bounds = tuple(float(boundary) for boundary in boundaries)
        ascending = all(low < high for low, high in pairwise(bounds))
        if not ascending or len(bounds) > _MAX_BOUNDARIES or any(abs(bound) == float("inf") for bound in bounds):
            raise InvalidInstrument(
                f"boundaries of {name!r}: expected up to {_MAX_BOUNDARIES} finite, strictly ascending numbers, "
                f"got {bounds!r:.300}"
            )
        return self._get(Histogram, name, unit, description, labels, boundaries=bounds)

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

    def _get(
        self, kind: type[InstrumentT], name: str, unit: str, description: str, labels: Iterable[str], **more: Any
    ) -> InstrumentT:
        check_metric_name(name)
        check_unit(name, unit)
        created = kind(
            name,
            unit=unit,
            description=description,
            labels=check_label_names(name, labels),
            series_limit=self.series_limit,
            enabled=self.enabled,
            **more,
        )
        with self._lock:
            known = self._instruments.setdefault(canonical_name(name), created)
        if known.shape != created.shape:
            raise InvalidInstrument(
                f"instrument {name!r} exists with another shape: {_describe(known)}; asked for was {_describe(created)}. "
                "Names that differ only in dots and underscores are the same name"
            )
        return known  # type: ignore[return-value]  # the shapes agree, so the kinds do


def _describe(instrument: Instrument[Any]) -> str:
    labels = ", ".join(instrument.label_names) or "none"
    boundaries = f", boundaries {instrument.boundaries}" if isinstance(instrument, Histogram) else ""
    return f"{instrument.kind} {instrument.name!r}, unit {instrument.unit!r}, labels {labels}{boundaries}"
