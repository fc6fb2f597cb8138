"""Differences in place of totals: nothing is lost, nothing is counted twice, and a retry sends the same interval."""

from __future__ import annotations

import logging
import threading
from collections import Counter as Multiset
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.exporting import (
    CounterData,
    Exporter,
    GaugeData,
    GiveUp,
    HistogramData,
    RetryLater,
    Signal,
    Temporality,
    hookimpl,
)
from eventcore.exporting.hidden import HiddenInstruments
from eventcore.exporting.shaping import Deltas, Shape
from eventcore.recording.values import Collection, HistogramPoint, NumberPoint
from tests.pipeline.conftest import FAST, Bench, eventually

PLAIN = Shape((), (), (), {}, HiddenInstruments(logging.getLogger(__name__)))


def collection(time_ns: int, totals: dict[str, int], *, start_time_ns: int = 1) -> Collection:
    """One counter and one histogram, each with a series for every name."""
    numbers = tuple(NumberPoint((("k", name),), value, start_time_ns, time_ns) for name, value in totals.items())
    spreads = tuple(
        HistogramPoint((("k", name),), value, float(value), 1.0, 1.0, (value, 0), start_time_ns, time_ns)
        for name, value in totals.items()
    )
    return Collection(
        time_ns, (CounterData("c", "", "", ("k",), numbers),), (), (HistogramData("h", "", "", ("k",), (1.0,), spreads),)
    )


def values(data: Sequence[CounterData]) -> dict[str, int | float]:
    return {point.labels[0][1]: point.value for each in data for point in each.points}


def test_the_first_difference_counts_from_the_beginning_of_the_series_and_each_further_one_from_the_last() -> None:
    deltas = Deltas(None)
    first = deltas.interval(collection(10, {"a": 5}), PLAIN, 0.0)
    assert [(p.value, p.start_time_ns, p.time_ns) for p in first.counters[0].points] == [(5, 1, 10)]
    deltas.committed()
    second = deltas.interval(collection(20, {"a": 7, "b": 1}), PLAIN, 0.0)
    assert [(p.value, p.start_time_ns, p.time_ns) for p in second.counters[0].points] == [(2, 10, 20), (1, 1, 20)]
    spread = second.histograms[0].points[0]
    assert (spread.count, spread.sum, spread.buckets, spread.min, spread.max) == (2, 2.0, (2, 0), None, None)


def test_series_to_which_nothing_was_added_are_left_out() -> None:
    deltas = Deltas(None)
    deltas.interval(collection(10, {"a": 5, "b": 5}), PLAIN, 0.0)
    deltas.committed()
    assert values(deltas.interval(collection(20, {"a": 6, "b": 5}), PLAIN, 0.0).counters) == {"a": 1}


def test_an_interval_is_sent_again_as_it_was_until_it_is_settled() -> None:
    deltas = Deltas(None)
    first = deltas.interval(collection(10, {"a": 5}), PLAIN, 0.0)
    assert not deltas.failed(outcome_unknown=False, is_last=False)
    again = deltas.interval(collection(20, {"a": 9}), PLAIN, 0.0)
    assert again.counters == first.counters
    deltas.committed()
    assert values(deltas.interval(collection(30, {"a": 9}), PLAIN, 0.0).counters) == {"a": 4}


def test_an_interval_that_is_given_up_is_part_of_the_next_one() -> None:
    deltas = Deltas(None)
    deltas.interval(collection(10, {"a": 5}), PLAIN, 0.0)
    assert deltas.failed(outcome_unknown=False, is_last=True)
    assert values(deltas.interval(collection(20, {"a": 9}), PLAIN, 0.0).counters) == {"a": 9}


def test_an_interval_whose_outcome_is_unknown_is_sent_once_more_and_then_counts_as_sent() -> None:
    deltas = Deltas(None)
    first = deltas.interval(collection(10, {"a": 5}), PLAIN, 0.0)
    assert not deltas.failed(outcome_unknown=True, is_last=False)
    assert deltas.interval(collection(20, {"a": 9}), PLAIN, 0.0).counters == first.counters
    assert deltas.failed(outcome_unknown=True, is_last=False)
    assert values(deltas.interval(collection(30, {"a": 9}), PLAIN, 0.0).counters) == {"a": 4}


def test_a_series_that_begins_anew_counts_from_its_new_beginning() -> None:
    deltas = Deltas(None)
    deltas.interval(collection(10, {"a": 5}), PLAIN, 0.0)
    deltas.committed()
    interval = deltas.interval(collection(30, {"a": 6}, start_time_ns=15), PLAIN, 0.0)
    assert [(p.value, p.start_time_ns) for p in interval.counters[0].points] == [(6, 15)]


def test_a_series_that_is_left_out_of_a_collection_goes_on_where_it_stood() -> None:
    deltas = Deltas(None)
    for time_ns, totals in ((10, {"a": 5, "b": 5}), (20, {"a": 6})):
        deltas.interval(collection(time_ns, totals), PLAIN, 0.0)
        deltas.committed()
    assert values(deltas.interval(collection(30, {"a": 6, "b": 8}), PLAIN, 0.0).counters) == {"b": 3}


def test_a_successor_goes_on_where_its_predecessor_stood_and_a_late_answer_changes_nothing() -> None:
    old = Deltas(None)
    old.interval(collection(10, {"a": 5}), PLAIN, 0.0)
    old.committed()
    sending = old.interval(collection(20, {"a": 7}), PLAIN, 0.0)
    new = Deltas(Deltas(old))
    new.take_over()
    old.committed()  # the hook of the predecessor returns late
    assert new.interval(collection(30, {"a": 9}), PLAIN, 0.0).counters == sending.counters
    # The predecessor may have delivered it: it is not sent a third time.
    assert new.failed(outcome_unknown=True, is_last=False)
    assert values(new.interval(collection(40, {"a": 9}), PLAIN, 0.0).counters) == {"a": 2}


OUTCOMES = ("committed", "refused", "lost", "arrived, answer lost", "given up", "replaced")


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)), st.sampled_from(OUTCOMES)),
        max_size=40,
    )
)
def test_whatever_happens_the_differences_add_up(steps: list[tuple[dict[str, int], str]]) -> None:
    deltas = Deltas(None)
    totals: Multiset[str] = Multiset()
    arrived: Multiset[str] = Multiset()
    certain = True
    reached: dict[str, int] = {}
    for index, (added, outcome) in enumerate(steps, 1):
        totals.update(added)
        time_ns = index * 10
        # A series begins with its first value.
        interval = deltas.interval(collection(time_ns, dict(totals)), PLAIN, 0.0)
        sent = values(interval.counters)
        assert sent == {name: count for name, count in sent.items() if count > 0}
        if outcome in ("committed", "arrived, answer lost"):
            arrived.update({name: int(count) for name, count in sent.items()})
            for data in interval.counters:
                for point in data.points:
                    # Intervals of a series follow each other without a gap, except when one is sent again.
                    assert not certain or point.start_time_ns == reached.get(point.labels[0][1], 1)
                    reached[point.labels[0][1]] = point.time_ns
        match outcome:
            case "committed":
                deltas.committed()
            case "refused":
                deltas.failed(outcome_unknown=False, is_last=False)
            case "lost" | "arrived, answer lost":
                certain = False
                deltas.failed(outcome_unknown=True, is_last=False)
            case "given up":
                deltas.failed(outcome_unknown=False, is_last=True)
            case _:
                deltas.failed(outcome_unknown=False, is_last=False)
                deltas = Deltas(deltas)
                deltas.take_over()
    # The interval that is not settled yet, and then what came after it.
    for time_ns in (10_000, 10_010):
        rest = values(deltas.interval(collection(time_ns, dict(totals)), PLAIN, 0.0).counters)
        arrived.update({name: int(count) for name, count in rest.items()})
        deltas.committed()
    assert values(deltas.interval(collection(10_020, dict(totals)), PLAIN, 0.0).counters) == {}
    if certain:
        assert +arrived == +totals


class Statsd(Exporter):
    """A backend that adds up what it gets; its answers come from a script."""

    interval: float | None = 3600.0
    temporality: Temporality = "delta"

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.held: list[tuple[str, Any]] = []
        self.sent: list[list[tuple[str, Any]]] = []
        self.total: Multiset[str] = Multiset()

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        self.held = []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        self.held += [(counter.name, point.value) for counter in counters for point in counter.points]

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:
        self.held += [(gauge.name, point.value) for gauge in gauges for point in gauge.points]

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> None:
        self.sent.append(list(self.held))
        if self.script and (answer := self.script.pop(0)) is not None:
            raise answer
        self.total.update({name: value for name, value in self.held if name == "counted"})


@pytest.mark.conforms("Metrics", "`delta`: differences, except for up-down counters.")
def test_an_exporter_that_wants_differences_gets_them(bench: Bench) -> None:
    exporter = Statsd()
    bench.count(3)
    level = bench.registry.up_down_counter("level", unit="", description="", labels=())
    level.add(5)
    bench.add(exporter)
    assert bench.manager.flush(5.0)
    bench.count(4)
    assert bench.manager.flush(5.0)
    # Up-down counters stay what they are.
    assert exporter.sent == [[("counted", 3), ("level", 5)], [("counted", 4), ("level", 5)]]


def test_a_flush_delivers_also_what_was_recorded_after_the_interval_that_is_sent_again(bench: Bench) -> None:
    exporter = Statsd(ConnectionError("down"))
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, backoff=3600.0, max_backoff=3600.0, interval=0.05))
    bench.count(3)
    eventually(lambda: pipeline.stats().cycles["metrics"].counts["retried"] == 1)
    bench.count(4)
    assert bench.manager.flush(5.0)
    counted = [[value for name, value in cycle if name == "counted"] for cycle in exporter.sent]
    assert [each for each in counted if each] == [[3], [3], [4]]
    assert exporter.total["counted"] == 7


@pytest.mark.parametrize("error", [GiveUp("UNAUTHENTICATED"), RetryLater(0.0), ValueError("x")])
def test_no_difference_is_lost_by_a_refusal(bench: Bench, error: Exception) -> None:
    exporter = Statsd(error)
    bench.add(exporter)
    bench.count(3)
    bench.manager.flush(5.0)
    bench.count(4)
    assert bench.manager.flush(5.0)
    assert exporter.total["counted"] == 7


def test_a_successor_under_the_same_name_sends_nothing_again(bench: Bench) -> None:
    bench.count(3)
    first, second = Statsd(), Statsd()
    bench.add(first, "statsd")
    assert bench.manager.flush(5.0)
    bench.count(4)
    bench.add(second, "statsd")
    bench.count(5)
    assert bench.manager.flush(5.0)
    assert first.total["counted"] + second.total["counted"] == 12


def test_a_successor_of_one_that_hangs_sends_its_interval_once_more(
    bench: Bench, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventcore.exporting.delivery.worker._PREDECESSOR_LIMIT", 0.2)

    class Hanging(Statsd):
        @hookimpl
        def flush(self, signal: Signal, timeout: float) -> None:
            gate.wait(30)

    bench.count(3)
    old = bench.add(Hanging(), "statsd", msgspec.structs.replace(FAST, interval=0.05))
    eventually(lambda: old.runner.running is not None and old.runner.running.hook == "flush")
    bench.count(4)
    new = Statsd()
    bench.add(new, "statsd")
    assert bench.manager.flush(5.0)
    gate.set()
    eventually(old.finished.is_set)
    bench.count(1)
    assert bench.manager.flush(5.0)
    assert [cycle for cycle in new.sent if cycle] == [[("counted", 3)], [("counted", 4)], [("counted", 1)]]


@pytest.mark.conforms("Metrics", "`lowmemory`: differences, except for asynchronous counters and up-down counters.")
def test_with_low_memory_the_totals_of_callbacks_stay_totals(bench: Bench) -> None:
    class LowMemory(Statsd):
        temporality: Temporality = "lowmemory"
        kinds: Multiset[tuple[str, str]] = Multiset()

        @hookimpl
        def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
            self.kinds.update((counter.name, counter.temporality) for counter in counters)
            self.held += [(counter.name, point.value) for counter in counters for point in counter.points]

    exporter = LowMemory()
    bench.registry.counter("read", unit="", description="", labels=()).add_callback(lambda: 7)
    bench.count(3)
    bench.add(exporter)
    assert bench.manager.flush(5.0)
    bench.count(4)
    assert bench.manager.flush(5.0)
    assert [dict(cycle) for cycle in exporter.sent] == [{"counted": 3, "read": 7}, {"counted": 4, "read": 7}]
    assert exporter.kinds == {("counted", "delta"): 2, ("read", "cumulative"): 2}
