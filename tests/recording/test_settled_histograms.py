"""After a collection, the garbage collector finds no list in a histogram's series until the next value is recorded."""

from __future__ import annotations

import gc
import time
from decimal import Decimal

import pytest

from eventcore.errors import InvalidMeasurement
from eventcore.exporting import HistogramPoint
from eventcore.recording import Collector, HistogramCell, InstrumentRegistry


def collected(registry: InstrumentRegistry) -> list[HistogramPoint]:
    return [point for data in Collector(registry).collect(time.monotonic(), 5.0).histograms for point in data.points]


def visited(registry: InstrumentRegistry) -> int:
    """Objects that a full garbage collection visits because of the registry's series, beside one for each series."""
    gc.collect()
    before = len(gc.get_objects())
    histogram = registry.histogram("wait", labels=("item",), boundaries=(1.0, 2.0))
    for number in range(1000):
        histogram.labels(f"item{number}").record(number)
    assert len(collected(registry)) == 1000
    # The first one finds that no tuple of the labels can be part of a cycle.
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects()) - before - 1000


def test_a_thousand_collected_series_have_one_object_each_for_the_garbage_collector() -> None:
    assert visited(InstrumentRegistry(series_limit=1000)) < 300


def test_values_before_and_after_a_collection_add_up(registry: InstrumentRegistry) -> None:
    wait = registry.histogram("wait", boundaries=(1.0, 2.0)).labels()
    assert [(point.count, point.min, point.max, point.buckets) for point in collected(registry)] == [(0, None, None, (0, 0, 0))]
    wait.record(0.5)
    [first] = collected(registry)
    [again] = collected(registry)
    assert (first.count, first.sum, first.min, first.max, first.buckets) == (1, 0.5, 0.5, 0.5, (1, 0, 0))
    assert (again.count, again.buckets, wait.copy()) == (1, (1, 0, 0), [0.5, 0.5, 0.5, 1, 0, 0])
    wait.record(3)
    wait.record_many([1.5] * 20)
    [point] = collected(registry)
    assert (point.count, point.sum, point.min, point.max, point.buckets) == (22, 33.5, 0.5, 3, (1, 20, 1))
    wait.record_many([0.25])
    assert wait.copy() == [33.75, 0.25, 3, 2, 20, 1]


@pytest.mark.parametrize("value", ["1", None, float("nan"), Decimal("NaN"), 10**400])
def test_a_value_that_is_refused_after_a_collection_changes_nothing(registry: InstrumentRegistry, value: object) -> None:
    wait = registry.histogram("wait", boundaries=(1.0,)).labels()
    wait.record(0.5)
    before = collected(registry)[0].buckets
    with pytest.raises(InvalidMeasurement):
        wait.record(value)  # type: ignore[arg-type]  # not a number
    with pytest.raises(InvalidMeasurement):
        wait.record_many([1.0, value])  # type: ignore[list-item]  # as above
    assert collected(registry)[0].buckets == before == (1, 0)


def test_a_decimal_is_the_first_value_after_a_collection() -> None:
    cell = HistogramCell((1.0,))
    cell.settle()
    cell.record(Decimal("0.5"))  # type: ignore[arg-type]  # is taken as a float
    assert cell.copy() == [0.5, 0.5, 0.5, 1, 0]
