"""Assertions on what was recorded, with messages that show what there is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import isclose
from typing import Any, Final

from eventcore.exporting import (
    CounterData,
    GaugeData,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    NumberPoint,
    SpanData,
    canonical_name,
)

_SHOWN: Final = 20


class TelemetryAssertions(ABC):
    """Assertions on metrics and spans: of a ``RecordingTelemetry`` on all that was recorded, of a ``RecordingExporter`` on all
    that it got.

    A label or an attribute whose name has dots is given with underscores: ``command_type="Transfer"`` means ``command.type``.
    Labels that are left out may have any value.
    """

    @abstractmethod
    def metrics(self) -> Iterable[MetricData]:
        """The newest value of every series."""

    @abstractmethod
    def spans(self) -> Sequence[SpanData]:
        """The spans that have ended, oldest first."""

    def assert_counter(self, name: str, value: float, /, **labels: str) -> None:
        """Check a counter: the sum of all its series with these labels.

        Raises:
            AssertionError: it has another value, or there is no such counter.

        >>> from eventcore.testing import RecordingTelemetry
        >>> telemetry = RecordingTelemetry()
        >>> telemetry.counter("orders.shipped", labels=("country",)).labels("FR").add(2)
        >>> telemetry.assert_counter("orders.shipped", 2, country="FR")
        >>> telemetry.assert_counter("orders.shipped", 3)
        Traceback (most recent call last):
        AssertionError: counter 'orders.shipped' is 2; expected 3. It has these series:
          {country=FR} 2
        """
        self._assert_number(CounterData, name, value, labels)

    def assert_gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Check a gauge or an up-down counter. Of a gauge one series must fit; those of an up-down counter are added up.

        Raises:
            AssertionError: it has another value, there is no such gauge, or several series of it fit.
        """
        self._assert_number(GaugeData, name, value, labels)

    def assert_histogram(self, name: str, count: int, /, *, total: float | None = None, **labels: str) -> None:
        """Check a histogram: how many values all its series with these labels have, and their sum.

        Args:
            name: the name of the histogram.
            count: the number of values.
            total: their sum; left out, it is not checked.
            labels: values of labels.

        Raises:
            AssertionError: it has other values, or there is no such histogram.

        >>> from eventcore.testing import RecordingTelemetry
        >>> telemetry = RecordingTelemetry()
        >>> telemetry.histogram("request.duration", unit="s").record(0.25)
        >>> telemetry.assert_histogram("request.duration", 1, total=0.25)
        """
        data, points = self._fitting(HistogramData, name, labels)
        found = sum(point.count for point in points if isinstance(point, HistogramPoint))
        if found != count:
            raise AssertionError(f"histogram {_shown(name, labels)} has {found} values; expected {count}. {_series(data)}")
        found_total = sum(point.sum for point in points if isinstance(point, HistogramPoint))
        if total is not None and not isclose(found_total, total, rel_tol=1e-9, abs_tol=1e-12):
            raise AssertionError(
                f"histogram {_shown(name, labels)} has the sum {found_total}; expected {total}. {_series(data)}"
            )

    def assert_spans(self, name: str, count: int, /, **attributes: Any) -> list[SpanData]:
        """Check how many spans of this name with these attributes there are, and return them, oldest first.

        ``status``, ``kind`` and the ids are fields of the returned spans.

        Raises:
            AssertionError: there are more or fewer.

        >>> from eventcore.testing import RecordingTelemetry
        >>> telemetry = RecordingTelemetry()
        >>> with telemetry.span("ship order", attributes={"order.items": 3}):
        ...     pass
        >>> [span.status for span in telemetry.assert_spans("ship order", 1, order_items=3)]
        ['unset']
        """
        spans = self.spans()
        fitting = [span for span in spans if span.name == name and _fits(span.attributes, attributes)]
        if len(fitting) != count:
            lines = [f"\n  {span.name} {_braces(span.attributes)} {span.status}" for span in spans[-_SHOWN:]]
            shown = f"These are the last of {len(spans)} spans:{''.join(lines)}" if spans else "There are no spans"
            raise AssertionError(f"{len(fitting)} spans {_shown(name, attributes)}; expected {count}. {shown}")
        return fitting

    def assert_span(self, name: str, /, **attributes: Any) -> SpanData:
        """Check that there is exactly one such span, and return it; see ``assert_spans``."""
        return self.assert_spans(name, 1, **attributes)[0]

    def _assert_number(
        self, kind: type[CounterData] | type[GaugeData], name: str, value: float, labels: Mapping[str, str]
    ) -> None:
        data, points = self._fitting(kind, name, labels)
        what = "counter" if kind is CounterData else "gauge"
        values = [point.value for point in points if isinstance(point, NumberPoint)]
        is_sum = isinstance(data, CounterData) or (isinstance(data, GaugeData) and data.additive)
        if not is_sum and len(values) > 1:
            raise AssertionError(f"{what} {_shown(name, labels)} has {len(values)} series; name more labels. {_series(data)}")
        found = sum(values) if values or is_sum else None
        if found is None or not isclose(found, value, rel_tol=1e-9, abs_tol=1e-12):
            shown = "has no value" if found is None else f"is {found}"
            raise AssertionError(f"{what} {_shown(name, labels)} {shown}; expected {value}. {_series(data)}")

    def _fitting(
        self, kind: type[MetricData], name: str, labels: Mapping[str, str]
    ) -> tuple[MetricData, list[NumberPoint | HistogramPoint]]:
        metrics = list(self.metrics())
        found = [data for data in metrics if data.name == name]
        if not found:
            near = get_close_matches(name, [data.name for data in metrics], 3, 0.6)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise AssertionError(f"nothing was recorded for {name!r}{hint}")
        data = found[0]
        if not isinstance(data, kind):
            raise AssertionError(f"{name!r} is {type(data).__name__}, not {kind.__name__}")
        known = {canonical_name(label) for label in data.label_names} | {
            canonical_name(label) for point in data.points for label, _ in point.labels
        }
        if unknown := [label for label in labels if canonical_name(label) not in known]:
            raise AssertionError(f"{name!r} has no label {unknown[0]!r}; its labels are {', '.join(sorted(known)) or 'none'}")
        return data, [point for point in data.points if _fits(point.labels, labels)]


def _fits(found: Iterable[tuple[str, Any]], expected: Mapping[str, Any]) -> bool:
    values = {canonical_name(name): value for name, value in found}
    return all(canonical_name(name) in values and values[canonical_name(name)] == value for name, value in expected.items())


def _shown(name: str, labels: Mapping[str, Any]) -> str:
    return f"{name!r} {_braces(tuple(labels.items()))}" if labels else repr(name)


def _braces(labels: Labels | tuple[tuple[str, Any], ...]) -> str:
    return "{" + ", ".join(f"{name}={value}" for name, value in labels) + "}"


def _series(data: MetricData) -> str:
    lines = [
        f"\n  {_braces(point.labels)} "
        + (f"{point.count} values, sum {point.sum}" if isinstance(point, HistogramPoint) else str(point.value))
        for point in data.points[:_SHOWN]
    ]
    more = f"\n  and {len(data.points) - _SHOWN} more" if len(data.points) > _SHOWN else ""
    return f"It has these series:{''.join(lines)}{more}" if lines else "It has no series"
