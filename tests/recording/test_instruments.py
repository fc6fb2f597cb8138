"""What instruments accept, count and refuse."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.errors import InvalidInstrument, InvalidMeasurement
from eventcore.recording import (
    SECONDS,
    HistogramCell,
    IdGenerator,
    InstrumentRegistry,
    RateSampler,
    Recorder,
    Scope,
    Tracer,
)
from tests.recording.instruments import collect, counter


def test_a_counter_adds_up_per_series(registry: InstrumentRegistry) -> None:
    shipped = counter(registry)
    shipped.labels("FR").add(2)
    shipped.labels("FR").add()
    shipped.labels(country="DE").add(0.5)
    (data,) = collect(registry).counters
    assert (data.name, data.unit, data.description, data.label_names) == (
        "orders.shipped",
        "{order}",
        "Orders shipped.",
        ("country",),
    )
    assert {point.labels: point.value for point in data.points} == {(("country", "FR"),): 3, (("country", "DE"),): 0.5}
    assert all(registry.start_time_ns <= point.start_time_ns <= point.time_ns for point in data.points)


def test_the_bound_series_is_the_same_object_each_time(registry: InstrumentRegistry) -> None:
    assert counter(registry).labels("FR") is counter(registry).labels(country="FR")


def test_an_up_down_counter_is_an_additive_gauge(registry: InstrumentRegistry) -> None:
    active = registry.up_down_counter("active", unit="", description="", labels=())
    active.add(5)
    active.add(-7)
    (data,) = collect(registry).gauges
    assert data.additive
    assert data.points[0].value == -2


def test_a_gauge_shows_the_last_value_and_is_absent_when_unknown(registry: InstrumentRegistry) -> None:
    head = registry.gauge("head", unit="", description="", labels=())
    assert collect(registry).gauges == ()
    head.set(3)
    head.set(4)
    assert collect(registry).gauges[0].points[0].value == 4
    head.set(None)
    assert collect(registry).gauges == ()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6), min_size=1))
def test_a_histograms_count_sum_extremes_and_buckets_agree(values: list[float]) -> None:
    registry = InstrumentRegistry()
    histogram = registry.histogram("h", unit="s", description="", labels=(), boundaries=SECONDS)
    for value in values:
        histogram.record(value)
    point = collect(registry).histograms[0].points[0]
    assert point.count == len(values) == sum(point.buckets)
    assert point.sum == pytest.approx(math.fsum(values), abs=1e-6)
    assert (point.min, point.max) == (min(values), max(values))
    expected = [
        sum(low < value <= high for value in values)
        for low, high in zip((-math.inf, *SECONDS), (*SECONDS, math.inf), strict=True)
    ]
    assert list(point.buckets) == expected


def test_a_timer_records_the_seconds_of_its_block_also_when_it_raises(registry: InstrumentRegistry) -> None:
    timer = registry.histogram("t", unit="s", description="", labels=(), boundaries=SECONDS)
    with pytest.raises(ZeroDivisionError), timer.time():
        raise ZeroDivisionError
    point = collect(registry).histograms[0].points[0]
    assert point.count == 1
    assert 0 < point.sum < 1


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf, "1", None])
def test_a_counter_refuses_what_would_make_it_wrong(registry: InstrumentRegistry, amount: object) -> None:
    series = counter(registry).labels("FR")
    with pytest.raises(InvalidMeasurement, match="expected a finite number, 0 or more"):
        series.add(amount)
    assert series.total == 0


@pytest.mark.parametrize("value", [math.nan, -math.inf, "1"])
def test_a_histogram_and_a_gauge_refuse_what_is_no_finite_number(registry: InstrumentRegistry, value: float) -> None:
    histogram = registry.histogram("h", unit="", description="", labels=(), boundaries=(1,))
    with pytest.raises(InvalidMeasurement, match="finite number"):
        histogram.record(value)
    with pytest.raises(InvalidMeasurement, match="finite number"):
        registry.gauge("g", unit="", description="", labels=()).set(value)
    assert collect(registry).histograms[0].points[0].count == 0


@pytest.mark.parametrize(
    ("values", "by_name", "message"),
    [
        ((), {}, "has 1 labels .country., got 0 values"),
        (("FR", "x"), {}, "got 2 values"),
        ((7,), {}, "expected a str of up to 1024 characters, got 7 of type int"),
        (("x" * 1025,), {}, "got 1025 characters"),
        ((), {"land": "FR"}, "has the labels country; got land"),
        (("FR",), {"country": "FR"}, "in order or by name, not both"),
        (([],), {}, "of type list"),
    ],
)
def test_label_values_that_do_not_fit_are_refused_with_what_was_expected(
    registry: InstrumentRegistry, values: tuple[str, ...], by_name: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidMeasurement, match=message):
        counter(registry).labels(*values, **by_name)


@pytest.mark.parametrize("name", ["", "Orders", "1st", "a..b", "a.", "_a", "a-b", "é", "a" * 256, "a b", 7])
def test_a_metric_name_that_does_not_fit_is_refused(registry: InstrumentRegistry, name: str) -> None:
    with pytest.raises(InvalidInstrument, match="does not fit: expected"):
        counter(registry, name)


@pytest.mark.parametrize(
    "labels", [("le",), ("Country",), ("a.b", "a_b"), ("a", "a"), "country", (7,), tuple(f"l{i}" for i in range(33))]
)
def test_label_names_that_do_not_fit_are_refused(registry: InstrumentRegistry, labels: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInstrument, match="label"):
        counter(registry, labels=labels)


@pytest.mark.parametrize("boundaries", [(1, 1), (2, 1), (math.inf,), tuple(range(257))])
def test_boundaries_that_do_not_fit_are_refused(registry: InstrumentRegistry, boundaries: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInstrument, match="strictly ascending"):
        registry.histogram("h", unit="", description="", labels=(), boundaries=boundaries)


@pytest.mark.parametrize("unit", ["a b", "é", "x" * 64])
def test_a_unit_that_does_not_fit_is_refused(registry: InstrumentRegistry, unit: str) -> None:
    with pytest.raises(InvalidInstrument, match="UCUM"):
        registry.counter("c", unit=unit, description="", labels=())


def test_the_same_name_with_the_same_shape_is_the_same_instrument(registry: InstrumentRegistry) -> None:
    assert counter(registry) is counter(registry)


def test_a_second_instrument_of_another_shape_is_refused_and_both_shapes_are_named(registry: InstrumentRegistry) -> None:
    counter(registry)
    with pytest.raises(InvalidInstrument, match=r"labels country; asked for was gauge 'orders.shipped'"):
        registry.gauge("orders.shipped", unit="{order}", description="", labels=("country",))
    with pytest.raises(InvalidInstrument, match="labels country, city"):
        counter(registry, labels=("country", "city"))


def test_names_that_differ_only_in_dots_and_underscores_are_the_same_name(registry: InstrumentRegistry) -> None:
    counter(registry, "orders.shipped")
    with pytest.raises(InvalidInstrument, match="only in dots and underscores"):
        counter(registry, "orders_shipped")


def test_label_values_beyond_the_cap_share_an_overflow_series_that_is_counted(registry: InstrumentRegistry) -> None:
    shipped = counter(registry)
    for country in "ABCDE":
        shipped.labels(country).add(2)
    shipped.labels("D").add(1)
    values = {point.labels[0][1]: point.value for point in collect(registry).counters[0].points}
    assert values == {"A": 2, "B": 2, "C": 2, "_overflow_": 5}
    assert registry.overflow() == {"orders.shipped": 3}


def test_a_gauges_overflow_is_counted_and_shows_no_value(registry: InstrumentRegistry) -> None:
    gauge = registry.gauge("g", unit="", description="", labels=("k",))
    for key in "ABCD":
        gauge.labels(key).set(1)
    assert len(collect(registry).gauges[0].points) == 3
    assert registry.overflow() == {"g": 1}


def test_a_label_value_with_a_lone_surrogate_can_still_be_exported(registry: InstrumentRegistry) -> None:
    counter(registry).labels("a\ud800b").add(1)
    assert collect(registry).counters[0].points[0].labels == (("country", "a?b"),)


def test_a_switched_off_registry_checks_names_and_records_nothing() -> None:
    registry = InstrumentRegistry(enabled=False)
    shipped = counter(registry)
    shipped.labels("FR").add(1)
    assert collect(registry).counters == ()
    with pytest.raises(InvalidMeasurement):
        shipped.labels()
    with pytest.raises(InvalidInstrument):
        counter(registry, "Bad")


def test_after_a_reset_bound_series_start_again_at_nothing(registry: InstrumentRegistry) -> None:
    series = counter(registry).labels("FR")
    series.add(5)
    before = registry.start_time_ns
    registry.reset()
    series.add(1)
    (data,) = collect(registry).counters
    assert data.points[0].value == 1
    assert data.points[0].start_time_ns > before


measurements = st.floats(-1e6, 1e6) | st.integers(-50, 50) | st.sampled_from(SECONDS)


@given(st.lists(measurements) | st.lists(measurements, min_size=16))
def test_many_values_at_once_count_like_each_on_its_own(values: list[float]) -> None:
    one, many = HistogramCell(SECONDS), HistogramCell(SECONDS)
    for value in values:
        one.record(value)
    many.record_many(values)
    (total, *rest), (expected, *expected_rest) = many.copy(), one.copy()
    assert rest == expected_rest
    assert total == pytest.approx(expected)


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.inf, 2.0], [1.0, "2"], [1e308, 1e308]])
def test_of_many_values_all_are_counted_or_none(values: list[float]) -> None:
    cell = HistogramCell(SECONDS)
    before = cell.copy()
    with pytest.raises(InvalidMeasurement, match="finite"):
        cell.record_many(values)
    assert cell.copy() == before


def test_many_values_are_ignored_by_a_silent_series_and_counted_by_an_overflow_series() -> None:
    silent = InstrumentRegistry(enabled=False).histogram("h", unit="", description="", labels=(), boundaries=(1.0,)).labels()
    silent.record_many([1.0, 2.0])
    assert silent.copy()[3:] == [0, 0]
    registry = InstrumentRegistry(series_limit=1)
    histogram = registry.histogram("h", unit="", description="", labels=("k",), boundaries=(1.0,))
    histogram.labels("first").record_many([1.0])
    histogram.labels("second").record_many([1.0, 2.0])
    assert histogram.overflow == 2


# Since when
def test_a_series_begins_when_it_is_made(registry: InstrumentRegistry) -> None:
    shipped = counter(registry)
    shipped.labels("FR").add(1)
    between = time.time_ns()
    shipped.labels("DE").add(1)
    first, second = collect(registry).counters[0].points
    assert registry.start_time_ns <= first.start_time_ns <= between <= second.start_time_ns <= second.time_ns
    registry.reset()
    shipped.labels("FR").add(1)
    assert collect(registry).counters[0].points[0].start_time_ns >= registry.start_time_ns > second.start_time_ns


def test_a_total_of_a_callback_that_shrinks_began_again(registry: InstrumentRegistry) -> None:
    totals = {("FR",): 5}
    counter(registry).add_callback(lambda: dict(totals))
    first = collect(registry).counters[0].points[0]
    assert first.start_time_ns == registry.start_time_ns
    totals[("FR",)] = 7
    second = collect(registry).counters[0].points[0]
    assert second.start_time_ns == first.start_time_ns
    totals[("FR",)], totals[("DE",)] = 2, 1
    for point in collect(registry).counters[0].points:
        assert point.start_time_ns == second.time_ns


# Boundaries by configuration
def test_the_longest_pattern_that_fits_a_name_sets_the_boundaries() -> None:
    registry = InstrumentRegistry(boundaries={"*": [1], "http.*": [2, 3], "http.server.*": [4]})
    assert registry.histogram("http.server.duration", boundaries=(9,)).boundaries == (4.0,)
    assert registry.histogram("http.client", boundaries=(9,)).boundaries == (2.0, 3.0)
    assert registry.histogram("other", boundaries=(9,)).boundaries == (1.0,)
    observed = registry.histogram("observed", boundaries=(9,))
    cell = HistogramCell((9.0,))
    cell.record(5)
    observed.add_callback(lambda: {(): cell})
    assert collect(registry).histograms[0].boundaries == (9.0,)


def test_the_same_name_in_another_scope_is_refused(registry: InstrumentRegistry) -> None:
    orders = Recorder(registry, Tracer(RateSampler(0), IdGenerator())).scope("shop.orders", "1.2")
    orders.counter("shipped").add(1)
    assert collect(registry).counters[0].scope == Scope("shop.orders", "1.2")
    with pytest.raises(InvalidInstrument, match=r"shop\.orders"):
        registry.counter("shipped")
