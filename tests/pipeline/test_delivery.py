"""What a pipeline delivers, retries, gives up and counts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from eventcore.exporting import CounterData, Rejected, RetryLater, SpanData, hookimpl
from eventcore.exporting.delivery.span_queue import SpanCounts
from tests.pipeline.conftest import FAST, Bench, Collecting, eventually


def account(counts: SpanCounts | None) -> dict[str, int]:
    assert counts is not None
    assert counts.recorded == counts.exported + sum(counts.dropped.values()) + counts.unknown + counts.pending
    unknown = {"unknown": counts.unknown} if counts.unknown else {}
    return {"exported": counts.exported, "pending": counts.pending} | unknown | {k: v for k, v in counts.dropped.items() if v}


def test_a_flush_delivers_everything_recorded_before_it(bench: Bench) -> None:
    exporter = Collecting()
    bench.add(exporter)
    bench.count(41)
    bench.count(1)
    bench.end_spans(3000)
    report = bench.manager.flush(10.0)
    assert report
    assert report["exporter"].spans_exported == 3000
    assert [span.name for span in exporter.spans] == [f"span {number}" for number in range(3000)]
    assert exporter.counters[-1].points[0].value == 42


def test_spans_are_exported_by_the_clock_without_a_flush(bench: Bench) -> None:
    exporter = Collecting()
    bench.add(exporter)
    bench.end_spans(5)
    eventually(lambda: len(exporter.spans) == 5)


def test_metrics_are_exported_by_the_clock(bench: Bench) -> None:
    exporter = Collecting()
    bench.add(exporter, settings=msgspec.structs.replace(FAST, interval=0.05))
    bench.count()
    eventually(lambda: len(exporter.counters) >= 3)


def test_every_cycle_ends_with_flush_and_the_end_is_shutdown(bench: Bench) -> None:
    exporter = Collecting()
    bench.add(exporter)
    bench.count()
    bench.end_spans(1)
    assert bench.manager.shutdown(5.0)
    assert exporter.calls == ["start", "export_spans", "flush", "export_counters", "flush", "shutdown"]


def test_one_instruments_points_come_in_several_small_chunks(bench: Bench) -> None:
    counter = bench.registry.counter("c", unit="", description="", labels=("k",))
    for number in range(500):
        counter.labels(str(number)).add(number)
    exporter = Collecting()
    bench.add(exporter)
    assert bench.manager.flush(5.0)
    assert len(exporter.counters) > 1
    points = [point for data in exporter.counters for point in data.points]
    assert sorted(point.value for point in points) == list(range(500))
    assert all(data.label_names == ("k",) for data in exporter.counters)


def test_an_async_exporter_keeps_one_loop_from_start_to_shutdown(bench: Bench) -> None:
    import asyncio

    class Async:
        interval = 3600.0

        def __init__(self) -> None:
            self.loops: set[int] = set()
            self.ticks = 0

        @hookimpl
        async def start(self) -> None:
            self.loops.add(id(asyncio.get_running_loop()))
            self.ticker = asyncio.create_task(self.tick())

        async def tick(self) -> None:
            while True:
                await asyncio.sleep(0.005)
                self.ticks += 1

        @hookimpl
        async def export_spans(self, spans: list[SpanData]) -> None:
            self.loops.add(id(asyncio.get_running_loop()))

        @hookimpl
        async def shutdown(self) -> None:
            self.loops.add(id(asyncio.get_running_loop()))

    exporter = Async()
    bench.add(exporter)
    bench.end_spans(1)
    assert bench.manager.flush(5.0)
    eventually(lambda: exporter.ticks > 2)
    assert bench.manager.shutdown(5.0)
    assert len(exporter.loops) == 1
    assert exporter.ticker.cancelled()


def test_a_failed_cycle_is_tried_again_with_the_same_batch(bench: Bench) -> None:
    failures = [RuntimeError("down"), RetryLater(after=0.01, reason="UNAVAILABLE")]

    def fail_twice() -> None:
        if failures:
            raise failures.pop()

    exporter = Collecting(fail_twice)
    pipeline = bench.add(exporter)
    bench.end_spans(7)
    eventually(lambda: len(exporter.spans) == 7)
    eventually(lambda: pipeline.stats().cycles["spans"].counts["ok"] == 1)
    assert pipeline.stats().cycles["spans"].counts == {"ok": 1, "retried": 2, "failed": 0}
    assert account(pipeline.stats().spans) == {"exported": 7, "pending": 0}
    assert pipeline.state == "running"


def test_a_batch_is_given_up_by_its_age_and_counted(bench: Bench) -> None:
    def fail() -> None:
        raise ConnectionError("refused")

    exporter = Collecting(fail)
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, max_age=2.0))
    bench.end_spans(4)
    eventually(lambda: exporter.calls.count("export_spans") > 5)
    assert account(pipeline.stats().spans) == {"exported": 0, "pending": 4}
    eventually(lambda: account(pipeline.stats().spans).get("gave_up") == 4)
    # The spans are counted first, the end of their cycle after that.
    eventually(lambda: pipeline.stats().cycles["spans"].counts["failed"] == 1)
    assert pipeline.state == "failing"
    assert "ConnectionError: refused" in pipeline.problem


def test_it_heals_by_itself_when_the_backend_comes_back(bench: Bench) -> None:
    broken = [True]

    def maybe() -> None:
        if broken:
            raise ConnectionError("refused")

    exporter = Collecting(maybe)
    pipeline = bench.add(exporter)
    bench.end_spans(4)
    eventually(lambda: pipeline.state == "failing")
    broken.clear()
    eventually(lambda: len(exporter.spans) == 4)
    eventually(lambda: pipeline.state == "running")


def test_what_the_backend_rejects_is_counted_as_dropped_and_not_sent_again(bench: Bench) -> None:
    answers: list[Any] = [Rejected(2, "too old")]
    exporter = Collecting(lambda: answers.pop() if answers else None)
    pipeline = bench.add(exporter)
    bench.end_spans(5)
    report = bench.manager.flush(5.0)
    assert not report
    assert "rejected 2 of 5 spans: too old" in report["exporter"].reason
    assert account(pipeline.stats().spans) == {"exported": 3, "rejected": 2, "pending": 0}
    assert len(exporter.spans) == 5


def test_a_backend_that_rejects_everything_is_shown_as_failing(bench: Bench) -> None:
    pipeline = bench.add(Collecting(lambda: Rejected(1, "UNAUTHENTICATED")))
    bench.end_spans(1)
    assert not bench.manager.flush(5.0)
    assert pipeline.state == "failing"
    assert "UNAUTHENTICATED" in pipeline.problem


@pytest.mark.parametrize("answer", [False, "ok", 0])
def test_an_answer_that_means_nothing_is_a_failure_and_not_a_success(bench: Bench, answer: object) -> None:
    pipeline = bench.add(Collecting(lambda: answer))
    bench.end_spans(1)
    report = bench.manager.flush(0.5)
    assert "expected None when it has delivered, or Rejected" in report["exporter"].reason
    assert account(pipeline.stats().spans)["exported"] == 0


def test_without_a_flush_hook_every_chunk_commits_on_its_own(bench: Bench) -> None:
    class Eager:
        interval = 3600.0

        def __init__(self) -> None:
            self.names: list[str] = []

        @hookimpl
        def export_spans(self, spans: list[SpanData]) -> None:
            if len(self.names) == 50:
                self.names.append("failed once")
                raise ConnectionError("refused")
            self.names += [span.name for span in spans]

    exporter = Eager()
    pipeline = bench.add(exporter)
    bench.end_spans(120)
    eventually(lambda: account(pipeline.stats().spans)["exported"] == 120)
    exporter.names.remove("failed once")
    assert exporter.names == [f"span {number}" for number in range(120)]


def test_a_full_queue_drops_the_newest_and_counts_them(bench: Bench, gate: threading.Event) -> None:
    exporter = Collecting(lambda: gate.wait(30) and None)
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, span_queue=10, span_batch=5))
    bench.end_spans(25)
    eventually(lambda: account(pipeline.stats().spans).get("queue_full") == 15)
    gate.set()
    eventually(lambda: account(pipeline.stats().spans)["exported"] == 10)
    assert [span.name for span in exporter.spans] == [f"span {number}" for number in range(10)]


def test_spans_beyond_the_processor_budget_are_dropped_before_they_are_converted(bench: Bench) -> None:
    import time

    converted = []

    class Burning:
        interval = 3600.0

        @hookimpl
        def export_spans(self, spans: list[SpanData]) -> None:
            converted.extend(spans)
            until = time.thread_time() + 0.002 * len(spans)
            while time.thread_time() < until:
                pass

    settings = msgspec.structs.replace(FAST, cpu_budget=0.02, span_queue=100, span_batch=50)
    pipeline = bench.add(Burning(), settings=settings)

    def dropped_by_budget() -> int:
        bench.end_spans(50)
        return account(pipeline.stats().spans).get("budget", 0)

    eventually(lambda: dropped_by_budget() > 500)
    counts = pipeline.stats().spans
    assert counts is not None
    assert len(converted) < counts.recorded / 2


def test_spans_lost_in_the_ring_are_in_every_exporters_account(bench: Bench) -> None:
    pipelines = [bench.add(Collecting(), "one"), bench.add(Collecting(), "two")]
    bench.tracer.ring.capacity = 0
    bench.end_spans(3)
    bench.manager.flush(5.0)
    for pipeline in pipelines:
        assert account(pipeline.stats().spans) == {"exported": 0, "queue_full": 3, "pending": 0}


def test_a_pull_exporter_gets_its_cycle_when_it_asks_and_calls_together_share_one(bench: Bench, gate: threading.Event) -> None:
    class Pull(Collecting):
        interval = None

    exporter = Pull(lambda: gate.wait(30) and None)
    bench.add(exporter)
    bench.count(1)
    context = exporter.context
    assert context is not None
    first = context.export_now(10.0)
    eventually(lambda: "export_counters" in exporter.calls)
    bench.count(1)
    later = [context.export_now(10.0) for _ in range(20)]
    gate.set()
    for future in (first, *later):
        assert future.result(10) is None
    assert exporter.calls.count("export_counters") == 2
    assert [data.points[0].value for data in exporter.counters] == [1, 2]


def test_export_now_fails_with_the_cycles_error_or_when_there_is_no_time(bench: Bench, gate: threading.Event) -> None:
    def fail() -> None:
        raise ValueError("broken page")

    exporter = Collecting(fail)
    bench.add(exporter, "failing")
    bench.count()
    assert exporter.context is not None
    with pytest.raises(RuntimeError, match="broken page"):
        exporter.context.export_now(5.0).result(5)
    slow = Collecting(lambda: gate.wait(30) and None)
    bench.add(slow, "slow")
    assert slow.context is not None
    slow.context.export_now(30.0)
    eventually(lambda: "export_counters" in slow.calls)
    with pytest.raises(TimeoutError, match="had no time"):
        slow.context.export_now(0.05).result(5)


def test_export_now_inside_a_hook_raises_instead_of_waiting_for_itself(bench: Bench) -> None:
    errors = []

    class SelfCalling(Collecting):
        @hookimpl
        def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
            assert self.context is not None
            try:
                self.context.export_now()
            except RuntimeError as error:
                errors.append(str(error))

    bench.add(SelfCalling())
    bench.count()
    assert bench.manager.flush(5.0)
    assert "inside a hook" in errors[0]


def test_an_async_hook_that_blocks_beyond_its_timeout_and_returns_has_delivered(bench: Bench) -> None:
    import time

    class Blocking:
        interval = 3600.0
        calls = 0

        @hookimpl
        async def export_spans(self, spans: list[SpanData]) -> None:
            self.calls += 1
            time.sleep(0.2)  # noqa: ASYNC251  # blocks the loop, so that the timeout cannot cancel the hook

    exporter = Blocking()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, export_timeout=0.05))
    bench.end_spans(3)
    eventually(lambda: account(pipeline.stats().spans)["exported"] == 3)
    assert exporter.calls == 1
    assert pipeline.stats().cycles["spans"].counts == {"ok": 1, "retried": 0, "failed": 0}
