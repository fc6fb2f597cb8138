"""From a row of the catalogue to the instrument of one telemetry."""

from __future__ import annotations

from eventcore.catalogue.rows import CATALOGUE, Kind, Row
from eventcore.recording import Counter, Gauge, Histogram, UpDownCounter
from eventcore.telemetry import Telemetry


class Declaring:
    """Gives the instruments of the catalogue by the names of their rows.

    Raises:
        KeyError: the catalogue has no such row of that kind.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def counter(self, name: str) -> Counter:
        """A counter of the catalogue."""
        row = _row(name, "counter")
        return self._telemetry.counter(f"eventcore.{name}", unit=row.unit, description=row.description, labels=row.labels)

    def up_down_counter(self, name: str) -> UpDownCounter:
        """An up-down counter of the catalogue."""
        row = _row(name, "up_down_counter")
        return self._telemetry.up_down_counter(
            f"eventcore.{name}", unit=row.unit, description=row.description, labels=row.labels
        )

    def gauge(self, name: str) -> Gauge:
        """A gauge of the catalogue."""
        row = _row(name, "gauge")
        return self._telemetry.gauge(f"eventcore.{name}", unit=row.unit, description=row.description, labels=row.labels)

    def histogram(self, name: str) -> Histogram:
        """A histogram of the catalogue."""
        row = _row(name, "histogram")
        return self._telemetry.histogram(
            f"eventcore.{name}",
            unit=row.unit,
            description=row.description,
            labels=row.labels,
            boundaries=row.boundaries or (),
        )


def _row(name: str, kind: Kind) -> Row:
    row = CATALOGUE[name]
    if row.kind != kind:
        raise KeyError(f"{name} is a {row.kind}, not a {kind}")
    return row
