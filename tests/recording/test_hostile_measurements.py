"""What is no number of any kind cannot poison a series."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from eventcore.errors import InvalidMeasurement
from eventcore.recording import (
    InstrumentRegistry,
)
from tests.recording.instruments import collect


class Money:
    """A number of its own kind, which can be compared and added."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __radd__(self, other: object) -> str:
        return "money"

    def __sub__(self, other: object) -> int:
        return 0

    def __lt__(self, other: object) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __lt__


@pytest.mark.parametrize("number", [Decimal(2), Fraction(2), True + True])
def test_a_number_of_another_type_counts_and_leaves_the_series_as_it_was(registry: InstrumentRegistry, number: Any) -> None:
    total = registry.counter("c").labels()
    level = registry.up_down_counter("u").labels()
    gauge = registry.gauge("g").labels()
    wait = registry.histogram("h", boundaries=(1.0, 10.0)).labels()
    for add in (total.add, level.add, wait.record):
        add(number)
        add(0.5)
    gauge.set(number)
    collection = collect(registry)
    points = [*collection.counters[0].points, *(point for data in collection.gauges for point in data.points)]
    assert {type(point.value) for point in points} <= {int, float}
    assert collection.counters[0].points[0].value == 2.5
    point = collection.histograms[0].points[0]
    assert (point.count, point.sum, point.min, point.max) == (2, 2.5, 0.5, 2)
    assert all(type(value) in (int, float) for value in (point.sum, point.min, point.max))


@pytest.mark.parametrize("bad", [Money(1), 10**400, "1", None, [], math.nan, Decimal("NaN"), object()])
def test_what_is_no_finite_number_is_refused_and_changes_nothing(registry: InstrumentRegistry, bad: Any) -> None:
    total = registry.counter("c").labels()
    level = registry.up_down_counter("u").labels()
    wait = registry.histogram("h", boundaries=(1.0, 10.0)).labels()
    for record in (total.add, level.add, wait.record):
        record(1)
        with pytest.raises(InvalidMeasurement):
            record(bad)
        record(1)
    collection = collect(registry)
    assert collection.counters[0].points[0].value == 2
    assert collection.gauges[0].points[0].value == 2
    # A number of its own kind may make a series begin again.
    assert collection.histograms[0].points[0].count == (1 if isinstance(bad, Money) else 2)


def test_a_value_whose_repr_raises_is_refused_like_any_other(registry: InstrumentRegistry) -> None:
    def fail(*_: object) -> str:
        raise SystemExit

    hostile: Any = type("Hostile", (), {"__repr__": fail, "__str__": fail})()
    for refused in (registry.counter("c").labels().add, registry.gauge("g").set, registry.counter("d", labels=("k",)).labels):
        with pytest.raises(InvalidMeasurement, match="Hostile"):
            refused(hostile)


def test_a_sum_that_became_infinite_begins_again(registry: InstrumentRegistry) -> None:
    total, wait = registry.counter("c").labels(), registry.histogram("h", boundaries=(1.0,)).labels()
    for add in (total.add, wait.record):
        for _ in range(2):
            add(1.7e308)
    collection = collect(registry)
    assert (collection.counters, collection.histograms) == ((), ())
    for add in (total.add, wait.record):
        add(1)
    collection = collect(registry)
    assert collection.counters[0].points[0].value == collection.histograms[0].points[0].sum == 1
