"""What instruments accept, count and refuse."""

from __future__ import annotations

import gc
import math
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.errors import InvalidInstrument, InvalidMeasurement
from eventcore.recording import (
    SECONDS,
    Collection,
    Collector,
    HistogramCell,
    IdGenerator,
    InstrumentRegistry,
    Label,
    RateSampler,
    Recorder,
    Scope,
    TraceContext,
    Tracer,
)


@pytest.fixture
def registry() -> InstrumentRegistry:
    return InstrumentRegistry(series_limit=3)


def collect(registry: InstrumentRegistry) -> Collection:
    return Collector(registry).collect(time.monotonic(), 5.0)


def counter(registry: InstrumentRegistry, name: str = "orders.shipped", labels: tuple[str, ...] = ("country",)):  # type: ignore[no-untyped-def]  # the type under test is inferred
    return registry.counter(name, unit="{order}", description="Orders shipped.", labels=labels)


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


# What cannot poison a series


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


# Exemplars


@pytest.fixture
def tracer() -> Tracer:
    tracer = Tracer(RateSampler("all"), IdGenerator())
    tracer.wanted = True
    return tracer


def test_series_that_ask_for_exemplars_keep_the_newest_value_of_a_sampled_span(
    registry: InstrumentRegistry, tracer: Tracer
) -> None:
    total = registry.counter("c", exemplars=True).labels()
    wait = registry.histogram("h", boundaries=(1.0, 10.0), exemplars=True).labels()
    total.add(1)
    with tracer.span("one") as one:
        total.add(2)
        wait.record(0.5)
        wait.record(5)
    with tracer.span("two") as two:
        wait.record(7)
    with tracer.span("unsampled", parent=TraceContext(1, 2, 0)):
        total.add(3)
        wait.record(0.7)
    collection = collect(registry)
    (exemplar,) = collection.counters[0].points[0].exemplars
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (2, one.trace_id, one.span_id)
    assert abs(exemplar.time_ns - time.time_ns()) < 60 * 10**9
    first, second = collection.histograms[0].points[0].exemplars
    assert (first.value, first.trace_id) == (0.5, one.trace_id)
    assert (second.value, second.trace_id) == (7, two.trace_id)
    assert (collection.counters[0].points[0].value, collection.histograms[0].points[0].count) == (6, 4)


def test_other_series_keep_none_unless_one_is_offered(registry: InstrumentRegistry, tracer: Tracer) -> None:
    wait = registry.histogram("h", boundaries=(1.0,)).labels()
    with tracer.span("one") as one:
        wait.record(0.5)
    assert collect(registry).histograms[0].points[0].exemplars == ()
    wait.offer(0.5, one)
    assert [exemplar.span_id for exemplar in collect(registry).histograms[0].points[0].exemplars] == [one.span_id]
    registry.reset()
    wait.record(1)
    assert collect(registry).histograms[0].points[0].exemplars == ()


# Caps


def test_only_open_labels_become_overflow(registry: InstrumentRegistry) -> None:
    outcome = Label("outcome", ("ok", "error"))
    calls = registry.counter("calls", labels=(Label("store"), Label("command.type", open=True), outcome))
    for number in range(10):
        calls.labels("default", str(number), "ok").add(1)
        calls.labels("default", str(number), "error").add(2)
    values = {tuple(value for _, value in point.labels): point.value for point in collect(registry).counters[0].points}
    assert values == {
        ("default", "0", "ok"): 1,
        ("default", "0", "error"): 2,
        ("default", "1", "ok"): 1,
        ("default", "_overflow_", "ok"): 8,
        ("default", "_overflow_", "error"): 18,
    }
    assert calls.overflow == 17


def test_series_with_fixed_labels_alone_always_fit() -> None:
    registry = InstrumentRegistry(series_limit=1, total_series_limit=1)
    counter(registry).labels("FR").add(1)
    states = registry.gauge("state", labels=(Label("state", ("a", "b", "c")),))
    for state in "abc":
        states.labels(state).set(1)
    assert len(collect(registry).gauges[0].points) == 3
    assert registry.overflow() == {}


def test_all_instruments_together_have_a_cap(caplog: pytest.LogCaptureFixture) -> None:
    registry = InstrumentRegistry(series_limit=8, total_series_limit=10)
    first, second = registry.counter("first", labels=("k",)), registry.counter("second", labels=("k",))
    for number in range(6):
        first.labels(str(number)).add(1)
        second.labels(str(number)).add(1)
    assert registry.overflow() == {"first": 1, "second": 1}
    assert len(caplog.records) == 1


def test_one_warning_names_the_instrument_the_label_with_most_values_and_a_sample(caplog: pytest.LogCaptureFixture) -> None:
    registry = InstrumentRegistry(series_limit=4)
    calls = registry.counter("calls", labels=("method", "customer"))
    for number in range(20):
        calls.labels("get" if number % 2 else "put", f"customer {number}").add(1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for part in ("'calls'", "4 series", "'customer'", "'customer 4'", "'_overflow_'", "series_limit"):
        assert part in record.getMessage()


def test_an_applications_own_overflow_label_is_the_overflow_series(registry: InstrumentRegistry) -> None:
    shipped = counter(registry)
    for country in ("_overflow_", "FR", "DE", "IT", "ES"):
        shipped.labels(country).add(1)
    points = collect(registry).counters[0].points
    assert sorted((point.labels[0][1], point.value) for point in points) == [("DE", 1), ("FR", 1), ("IT", 1), ("_overflow_", 2)]


def test_a_histogram_gets_its_share_of_the_cap() -> None:
    registry = InstrumentRegistry(series_limit=10)
    kind = Label("command.type", open=True, histogram_share=0.2)
    wait, total = registry.histogram("wait", boundaries=(1.0,), labels=(kind,)), registry.counter("total", labels=(kind,))
    for number in range(5):
        wait.labels(str(number)).record(1)
        total.labels(str(number)).add(1)
    collection = collect(registry)
    assert len(collection.histograms[0].points) == 3
    assert len(collection.counters[0].points) == 5


# Series that are removed


def test_a_removed_series_is_gone_and_comes_back_with_its_total_when_a_bound_handle_moves_it() -> None:
    registry = InstrumentRegistry(series_limit=3)
    shipped = counter(registry)
    kept = shipped.labels("FR")
    kept.add(5)
    shipped.labels("DE").add(1)
    assert shipped.remove("FR")
    assert not shipped.remove("FR")
    assert not shipped.remove(country="IT")
    assert [point.labels for point in collect(registry).counters[0].points] == [(("country", "DE"),)]
    assert shipped.labels("FR") is kept
    kept.add(1)
    assert {point.labels[0][1]: point.value for point in collect(registry).counters[0].points} == {"DE": 1, "FR": 6}
    assert shipped.labels("FR") is kept


def test_a_removed_gauge_comes_back_with_the_same_value_and_a_histogram_through_its_buffer(
    registry: InstrumentRegistry,
) -> None:
    gauge, wait = registry.gauge("g", labels=("k",)), registry.histogram("h", labels=("k",), boundaries=(1.0,))
    level, waited = gauge.labels("a"), wait.labels("a")
    level.set(3)
    waited.record(1)
    gauge.remove("a")
    wait.remove("a")
    collection = collect(registry)
    assert (collection.gauges, collection.histograms) == ((), ())
    level.set(3)
    waited.buffer().append(1.0)
    collection = collect(registry)
    assert collection.gauges[0].points[0].value == 3
    assert collection.histograms[0].points[0].count == 2


def test_a_removed_series_that_nobody_holds_leaves_room_and_no_trace() -> None:
    registry = InstrumentRegistry(series_limit=2, total_series_limit=2)
    shipped = counter(registry)
    for number in range(100):
        shipped.labels(str(number)).add(1)
        assert shipped.remove(str(number))
    gc.collect()
    assert collect(registry).counters == ()
    assert registry.overflow() == {}
    assert not shipped._removed
    assert registry.caps.used == 0


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
