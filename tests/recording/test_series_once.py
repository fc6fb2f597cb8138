"""Each series is in a collection once, whatever gives its values, and instruments know the order of their creation."""

from __future__ import annotations

import time

import pytest

from eventcore.exporting import CounterData, GaugeData, HistogramData
from eventcore.recording import Collector, HistogramCell, InstrumentRegistry


@pytest.fixture
def registry() -> InstrumentRegistry:
    return InstrumentRegistry(series_limit=2)


def collect(registry: InstrumentRegistry) -> dict[str, CounterData | GaugeData | HistogramData]:
    return {data.name: data for data in Collector(registry).collect(time.monotonic(), 5.0)}


def test_a_gauge_with_a_value_and_a_callback_shows_what_the_callback_says(registry: InstrumentRegistry) -> None:
    gauge = registry.gauge("level")
    gauge.set(1)
    gauge.add_callback(lambda: 2)
    assert [point.value for point in collect(registry)["level"].points] == [2]  # type: ignore[union-attr]


def test_totals_that_are_recorded_and_given_by_a_callback_are_added(registry: InstrumentRegistry) -> None:
    counter = registry.counter("orders", labels=("country",))
    counter.labels("FR").add(1)
    counter.add_callback(lambda: {("FR",): 10, ("DE",): 20})
    in_use = registry.up_down_counter("in.use")
    in_use.add(-1)
    in_use.add_callback(lambda: 5)
    found = collect(registry)
    assert {point.labels[0][1]: point.value for point in found["orders"].points} == {"FR": 11, "DE": 20}  # type: ignore[union-attr]
    assert [point.value for point in found["in.use"].points] == [4]  # type: ignore[union-attr]


def test_two_distributions_of_one_series_are_added(registry: InstrumentRegistry) -> None:
    waits = registry.histogram("wait", boundaries=(1.0, 2.0))
    waits.record(0.5)
    cell = HistogramCell((1.0, 2.0))
    cell.record(1.5)
    cell.record(7)
    waits.add_callback(lambda: cell)
    (point,) = collect(registry)["wait"].points
    assert (point.count, point.sum, point.min, point.max, point.buckets) == (3, 9.0, 0.5, 7, (1, 1, 1))  # type: ignore[union-attr]


def test_an_overflow_value_from_a_callback_joins_the_overflow_series(registry: InstrumentRegistry) -> None:
    counter = registry.counter("orders", labels=("country",))
    for country in ("FR", "DE", "IT"):
        counter.labels(country).add(1)
    registry.series_limit = 100
    counter.add_callback(lambda: {("_overflow_",): 10})
    assert {point.labels[0][1]: point.value for point in collect(registry)["orders"].points} == {  # type: ignore[union-attr]
        "FR": 1,
        "DE": 1,
        "_overflow_": 11,
    }


def test_a_label_value_from_a_callback_that_is_too_long_is_refused(
    registry: InstrumentRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.gauge("level", labels=("who",)).add_callback(lambda: {("x" * 1025,): 1, ("x" * 1024,): 2})
    assert [point.value for point in collect(registry)["level"].points] == [2]  # type: ignore[union-attr]
    assert "does not fit the labels ('who',)" in caplog.text


def test_instruments_are_numbered_in_the_order_of_creation_across_kinds(registry: InstrumentRegistry) -> None:
    registry.histogram("first", boundaries=(1.0,)).record(1)
    registry.counter("second").add(1)
    registry.gauge("third").set(1)
    registry.counter("second").add(1)
    assert {name: data.created for name, data in collect(registry).items()} == {"first": 1, "second": 2, "third": 3}
