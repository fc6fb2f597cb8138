"""How many series there may be, and what becomes of those that are removed."""

from __future__ import annotations

import gc

import pytest

from eventcore.recording import (
    InstrumentRegistry,
    Label,
)
from tests.recording.instruments import collect, counter


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


def test_a_label_with_room_leaves_an_instrument_some_series_when_all_have_reached_their_cap() -> None:
    registry = InstrumentRegistry(series_limit=8, total_series_limit=8)
    flood = registry.counter("flood", labels=("k",))
    kept = registry.counter("kept", labels=(Label("exporter", open=True, room=2), Label("state", ("a", "b"))))
    mixed = registry.counter("mixed", labels=(Label("exporter", open=True, room=2), "k"))
    watched = registry.gauge("watched", labels=(Label("exporter", open=True, room=2),))
    watched.add_callback(lambda: {(str(number),): number for number in range(3)})
    for number in range(12):
        flood.labels(str(number)).add(1)
    for number in range(3):
        kept.labels(str(number), "a").add(1)
        mixed.labels("e", str(number)).add(1)
    collection = collect(registry)
    shown = {data.name: [point.labels[0][1] for point in data.points] for data in collection.counters}
    assert shown["kept"] == ["0", "1", "_overflow_"]
    assert shown["mixed"] == ["_overflow_"]
    assert [point.value for point in collection.gauges[0].points] == [0, 1]
    assert registry.overflow() == {"flood": 4, "kept": 1, "mixed": 3, "watched": 1}


def test_room_is_no_more_than_an_instrument_may_have() -> None:
    registry = InstrumentRegistry(series_limit=1, total_series_limit=1)
    kept = registry.counter("kept", labels=(Label("exporter", open=True, room=2),))
    for number in range(3):
        kept.labels(str(number)).add(1)
    assert registry.overflow() == {"kept": 2}


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
