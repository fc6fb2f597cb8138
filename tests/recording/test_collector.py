"""Collecting: callbacks are asked with a limit, and collections are shared by who is due together."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from eventcore.recording import Collector, CounterCell, HistogramCell, InstrumentRegistry, RecordBuffer
from eventcore.recording.cells import locked_where_needed


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


def test_a_collection_is_shared_by_whoever_accepts_its_age_and_made_anew_for_who_does_not(registry: InstrumentRegistry) -> None:
    asked = itertools.count(1)
    registry.gauge("g", unit="", description="", labels=()).add_callback(lambda: next(asked))
    collector = Collector(registry)
    begun = time.monotonic()
    first = collector.collect(begun, 5.0)
    assert collector.collect(begun, 5.0) is first
    assert collector.collect(time.monotonic(), 5.0).gauges[0].points[0].value == 2


def test_what_is_put_aside_is_recorded_when_a_collection_begins_until_its_owner_ends_that(
    registry: InstrumentRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = RecordBuffer(registry.histogram("h", unit="", description="", labels=(), boundaries=(1.0,)).labels())
    collector = Collector(registry)

    def broken() -> None:
        raise RuntimeError("no time")

    collector.prepare_by(broken)
    collector.prepare_by(buffer.fold)
    buffer.record(0.5)
    buffer.record(2)
    point = collector.collect(time.monotonic(), 5.0).histograms[0].points[0]
    assert (point.count, point.sum, point.min, point.max, point.buckets) == (2, 2.5, 0.5, 2, (1, 1))
    assert "no time" in caplog.text
    collector.prepare_no_more_by(buffer.fold)
    buffer.record(3)
    assert collector.collect(time.monotonic(), 5.0).histograms[0].points[0].count == 2
    assert (buffer.fold(), buffer.fold()) == (1, 0)
    assert collector.collect(time.monotonic(), 5.0).histograms[0].points[0].sum == 5.5


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


@pytest.mark.parametrize("gil", [True, False], ids=["bare", "locked"])
def test_no_count_is_lost_and_no_histogram_is_torn_by_eight_threads(gil: bool) -> None:
    counter = locked_where_needed(CounterCell, gil=gil)() if not gil else CounterCell()
    histogram = locked_where_needed(HistogramCell, gil=gil)((0.5,)) if not gil else HistogramCell((0.5,))
    each, threads = 30_000, 8
    done = threading.Event()
    torn = []

    def record() -> None:
        for _ in range(each // 5):
            counter.add(1)
            histogram.record(1.0)
            counter.add(4)
            histogram.record_many([1.0, 1.0, 1.0, 1.0])

    def read() -> None:
        while not done.is_set():
            total, _, _, below, above = histogram.copy()
            if below + above != total:
                torn.append((below, above, total))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    writers = [threading.Thread(target=record, daemon=True) for _ in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    done.set()
    reader.join(10)
    assert counter.total == each * threads
    assert histogram.copy() == [float(each * threads), 1.0, 1.0, 0, each * threads]
    assert torn == []
