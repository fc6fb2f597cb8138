"""Collecting: callbacks are asked with a limit, and collections are shared by who is due together."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from eventcore.recording import Collector, CounterCell, HistogramCell, InstrumentRegistry
from eventcore.recording.cells import (
    LockedCounterCell,
    LockedHistogramCell,
    LockedOverflowCounterCell,
    LockedOverflowHistogramCell,
    OverflowCounterCell,
    OverflowHistogramCell,
)


@pytest.fixture
def registry() -> InstrumentRegistry:
    return InstrumentRegistry()


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


def test_callbacks_give_single_values_or_one_for_each_label_value_and_none_is_absent(registry: InstrumentRegistry) -> None:
    registry.gauge("single", unit="", description="", labels=()).add_callback(lambda: 7)
    registry.gauge("unknown", unit="", description="", labels=()).add_callback(lambda: None)
    registry.counter("many", unit="", description="", labels=("k",)).add_callback(lambda: {("a",): 1, ("b",): None, ("c",): 3})
    collection = Collector(registry).collect(time.monotonic(), 5.0)
    assert [gauge.name for gauge in collection.gauges] == ["single"]
    assert {point.labels[0][1]: point.value for point in collection.counters[0].points} == {"a": 1, "c": 3}


def test_a_histogram_takes_cells_from_a_callback(registry: InstrumentRegistry) -> None:
    cell = HistogramCell((1.0,))
    cell.record(0.5)
    registry.histogram("h", unit="", description="", labels=("k",), boundaries=(1.0,)).add_callback(lambda: {("a",): cell})
    point = Collector(registry).collect(time.monotonic(), 5.0).histograms[0].points[0]
    assert (point.labels, point.count, point.buckets) == ((("k", "a"),), 1, (1, 0))


def test_a_closed_callback_is_asked_no_more(registry: InstrumentRegistry) -> None:
    handle = registry.gauge("g", unit="", description="", labels=()).add_callback(lambda: 1)
    handle.close()
    handle.close()
    assert Collector(registry).collect(time.monotonic(), 5.0).gauges == ()


def test_a_callback_that_raises_or_answers_nonsense_is_absent_counted_and_logged_once(
    registry: InstrumentRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise RuntimeError("no database")

    gauge = registry.gauge("g", unit="", description="", labels=())
    handles = [gauge.add_callback(broken), gauge.add_callback(lambda: "text"), gauge.add_callback(lambda: {("too", "many"): 1})]
    registry.gauge("fine", unit="", description="", labels=()).add_callback(lambda: 1)
    collector = Collector(registry)
    for _ in range(2):
        assert [g.name for g in collector.collect(time.monotonic(), 5.0).gauges] == ["fine"]
    assert [handle.failures for handle in handles] == [2, 2, 2]
    assert len(caplog.records) == 3
    assert "no database" in caplog.text


def test_a_callback_that_hangs_holds_up_the_others_for_the_limit_only_and_is_never_called_twice(
    registry: InstrumentRegistry, hang: threading.Event
) -> None:
    calls = []

    def hanging() -> int:
        calls.append(1)
        hang.wait(30)
        return 1

    registry.gauge("first", unit="", description="", labels=()).add_callback(lambda: 1)
    registry.gauge("hanging", unit="", description="", labels=()).add_callback(hanging)
    registry.gauge("last", unit="", description="", labels=()).add_callback(lambda: 1)
    collector = Collector(registry, callback_limit=0.2)
    begun = time.monotonic()
    for _ in range(3):
        assert {gauge.name for gauge in collector.collect(time.monotonic(), 5.0).gauges} == {"first", "last"}
    assert len(calls) == 1
    assert time.monotonic() - begun < 2


def test_callbacks_that_hang_share_one_limit_and_the_others_still_answer(
    registry: InstrumentRegistry, hang: threading.Event
) -> None:
    registry.gauge("first", unit="", description="", labels=()).add_callback(lambda: 1)
    for name in ("a", "b", "c"):
        registry.gauge(f"hanging.{name}", unit="", description="", labels=()).add_callback(lambda: hang.wait(30))
    registry.gauge("last", unit="", description="", labels=()).add_callback(lambda: 1)
    collector = Collector(registry, callback_limit=0.4)
    begun = time.monotonic()
    assert {gauge.name for gauge in collector.collect(time.monotonic(), 1.5).gauges} == {"first", "last"}
    assert time.monotonic() - begun < 0.7


def test_a_slow_callback_that_answers_within_the_limit_is_not_left_out(registry: InstrumentRegistry) -> None:
    def slow() -> int:
        time.sleep(0.3)
        return 2

    registry.gauge("slow", unit="", description="", labels=()).add_callback(slow)
    registry.gauge("quick", unit="", description="", labels=()).add_callback(lambda: 1)
    collection = Collector(registry, callback_limit=2.0).collect(time.monotonic(), 5.0)
    assert {gauge.name: gauge.points[0].value for gauge in collection.gauges} == {"slow": 2, "quick": 1}


def test_a_collection_is_shared_by_whoever_accepts_its_age_and_made_anew_for_who_does_not(registry: InstrumentRegistry) -> None:
    asked = itertools.count(1)
    registry.gauge("g", unit="", description="", labels=()).add_callback(lambda: next(asked))
    collector = Collector(registry)
    begun = time.monotonic()
    first = collector.collect(begun, 5.0)
    assert collector.collect(begun, 5.0) is first
    assert collector.collect(time.monotonic(), 5.0).gauges[0].points[0].value == 2


def test_what_waits_in_a_buffer_is_recorded_when_it_is_collected(registry: InstrumentRegistry) -> None:
    buffer = registry.histogram("h", unit="", description="", labels=(), boundaries=(1.0,)).labels().buffer()
    total = registry.counter("c", unit="", description="", labels=()).labels().buffer()
    durations = registry.counter("d", unit="", description="", labels=()).labels()
    durations.count(buffer)
    active = registry.up_down_counter("u", unit="", description="", labels=()).labels().buffer()
    collector = Collector(registry)
    for number in (0.5, 2):
        buffer.append(number)
        total.append(1)
        active.append(number)
    active.append(-0.5)
    collection = collector.collect(time.monotonic(), 5.0)
    point = collection.histograms[0].points[0]
    assert (point.count, point.sum, point.min, point.max, point.buckets) == (2, 2.5, 0.5, 2, (1, 1))
    assert [counter.points[0].value for counter in collection.counters] == [2, 2]
    assert collection.gauges[0].points[0].value == 2
    assert buffer.values == total.values == active.values == []
    buffer.append(3)
    assert durations.read() == 3
    buffer.fold()
    assert collector.collect(time.monotonic(), 5.0).histograms[0].points[0].sum == 5.5


def test_a_total_and_the_count_of_its_durations_agree_however_long_a_collection_takes(
    registry: InstrumentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = registry.counter("total", unit="", description="", labels=()).labels()
    buffer = registry.histogram("h", unit="s", description="", labels=(), boundaries=(1.0,)).labels().buffer()
    total.count(buffer)
    # Commands end while the collecting thread pauses between the two instruments.
    monkeypatch.setattr("eventcore.recording.collector._Pacer.pause", lambda _: buffer.append(0.5))
    for _ in range(3):
        buffer.append(0.5)
        collection = Collector(registry).collect(time.monotonic(), 5.0)
        assert collection.counters[0].points[0].value == collection.histograms[0].points[0].count


def test_what_waits_in_the_buffer_of_an_overflow_series_is_collected_and_counted() -> None:
    registry = InstrumentRegistry(series_limit=1)
    histogram = registry.histogram("h", unit="s", description="", labels=("k",), boundaries=(1.0,))
    histogram.labels("a").record(0.5)
    buffer = histogram.labels("b").buffer()
    buffer.append(0.5)
    buffer.append(0.5)
    assert registry.overflow() == {"h": 2}
    buffer.append(0.5)
    points = Collector(registry).collect(time.monotonic(), 5.0).histograms[0].points
    assert {dict(point.labels)["k"]: point.count for point in points} == {"a": 1, "_overflow_": 3}
    assert registry.overflow() == {"h": 3}


def test_a_cell_has_one_buffer_which_a_reset_empties(registry: InstrumentRegistry) -> None:
    cell = registry.counter("c", unit="", description="", labels=()).labels()
    buffer = cell.buffer()
    assert cell.buffer() is buffer
    buffer.append(5)
    registry.reset()
    buffer.append(1)
    assert cell.read() == 1


def test_a_bad_value_in_a_buffer_fails_neither_a_collection_nor_what_comes_after_it(
    registry: InstrumentRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = registry.histogram("h", unit="", description="", labels=(), boundaries=(1.0,)).labels().buffer()
    collector = Collector(registry)
    buffer.append(float("nan"))
    assert collector.collect(time.monotonic(), 5.0).histograms[0].points[0].count == 0
    assert "dropped" in caplog.text
    buffer.append(1)
    assert collector.collect(time.monotonic(), 5.0).histograms[0].points[0].count == 1


def test_waiting_for_another_collection_is_bounded(registry: InstrumentRegistry, hang: threading.Event) -> None:
    registry.gauge("g", unit="", description="", labels=()).add_callback(lambda: hang.wait(30))
    collector = Collector(registry, callback_limit=5.0)
    slow = threading.Thread(target=collector.collect, args=(time.monotonic(), 5.0), daemon=True)
    slow.start()
    while not collector._lock.locked():
        time.sleep(0.001)
    with pytest.raises(TimeoutError, match="still under way"):
        collector.collect(time.monotonic(), 0.05)
    hang.set()
    slow.join(5)


@pytest.mark.parametrize(
    ("counter", "histogram"),
    [
        (CounterCell(), HistogramCell((0.5,))),
        (LockedCounterCell(), LockedHistogramCell((0.5,))),
        (OverflowCounterCell(), OverflowHistogramCell((0.5,))),
        (LockedOverflowCounterCell(), LockedOverflowHistogramCell((0.5,))),
    ],
    ids=["plain", "locked", "overflow", "locked overflow"],
)
def test_no_count_is_lost_and_no_histogram_is_torn_by_eight_threads(counter: CounterCell, histogram: HistogramCell) -> None:
    each, threads = 30_000, 8
    buffered, total = histogram.buffer(), counter.buffer()
    done = threading.Event()
    torn = []

    def record() -> None:
        for number in range(each // 5):
            total.append(1)
            histogram.record(1.0)
            counter.add(4)
            histogram.record_many([1.0, 1.0])
            buffered.append(1.0)
            buffered.append(1.0)
            if not number % 100:
                buffered.fold()
                total.fold()

    def read() -> None:
        while not done.is_set():
            total, _, _, below, above = histogram.copy()
            # What a collection does: the next value meets a cell without a list.
            settled = histogram.settle()
            assert settled is not None
            if below + above != total or settled.count != settled.total:
                torn.append((below, above, total, settled))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    writers = [threading.Thread(target=record, daemon=True) for _ in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    done.set()
    reader.join(10)
    assert counter.read() == each * threads
    assert histogram.copy() == [float(each * threads), 1.0, 1.0, 0, each * threads]
    assert torn == []
    if isinstance(histogram, OverflowHistogramCell):
        assert histogram.measurements == each * threads


def test_the_interpreter_decides_whether_cells_are_locked(
    monkeypatch: pytest.MonkeyPatch, registry: InstrumentRegistry
) -> None:
    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    assert type(registry.counter("c", unit="", description="", labels=()).labels()) is LockedCounterCell
    monkeypatch.setattr("sys._is_gil_enabled", lambda: True, raising=False)
    assert type(registry.counter("d", unit="", description="", labels=()).labels()) is CounterCell


def test_a_collection_of_many_series_is_nothing_that_the_garbage_collector_visits(registry: InstrumentRegistry) -> None:
    counter = registry.counter("sent", unit="", description="", labels=("k",))
    histogram = registry.histogram("took", unit="s", description="", labels=("k",), boundaries=(1.0, 2.0))
    for number in range(1000):
        counter.labels(f"k{number}").add(1)
        histogram.labels(f"k{number}").record(number)
    collector = Collector(registry)
    collector.collect(time.monotonic(), 5.0)
    gc.collect()
    before = {id(tracked) for tracked in gc.get_objects()}
    collection = collector.collect(time.monotonic(), 5.0)
    # A tuple is visited once, when it is young. If all that it holds is plain, it is never visited again.
    gc.collect()
    tracked = [each for each in gc.get_objects() if id(each) not in before and not isinstance(each, type(collection))]
    assert len([*collection.counters[0].points, *collection.histograms[0].points]) == 2000
    assert len(tracked) < 100
