"""The order in which hooks are called, what their answers and exceptions mean, and when a cycle is tried again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from eventcore.exporting import CounterData, Exporter, ExporterContext, GiveUp, Rejected, RetryLater, Signal, SpanData, hookimpl
from eventcore.exporting.delivery import ExporterReport
from tests.pipeline.conftest import FAST, Bench, Collecting, eventually

Step = Callable[[], Any]


class Scripted(Exporter):
    """Collects in its export hooks and delivers in ``flush``, whose answers come from a script for each signal."""

    interval: float | None = 3600.0

    def __init__(self, spans: Sequence[Step] = (), metrics: Sequence[Step] = ()) -> None:
        self.script: dict[str, list[Step]] = {"spans": list(spans), "metrics": list(metrics)}
        self.held: dict[str, list[Any]] = {"spans": [], "metrics": []}
        self.arrived: dict[str, list[str]] = {"spans": [], "metrics": []}
        self.calls: list[str] = []

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        self.calls.append(f"begin {signal} {attempt}")
        self.held[signal] = []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        self.calls.append("export_counters")
        self.held["metrics"] += [counter.name for counter in counters]

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        self.calls.append("export_spans")
        self.held["spans"] += [span.name for span in spans]

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        self.calls.append(f"flush {signal}")
        answer = self.script[signal].pop(0)() if self.script[signal] else None
        self.arrived[signal] += self.held[signal]
        return answer

    def lost_answer(self) -> None:
        """The data arrives, and the call is cut before its answer comes."""
        self.arrived["spans"] += self.held["spans"]
        raise RetryLater(reason="CANCELLED", outcome_unknown=True)


def raising(error: BaseException) -> Step:
    def step() -> Any:
        raise error

    return step


def adds_up(report: ExporterReport) -> bool:
    settled = report.spans_exported + sum(report.spans_dropped.values()) + report.spans_unknown
    return report.spans_recorded == settled + report.spans_pending


def test_a_cycle_is_begin_the_hooks_of_one_signal_and_the_flush_of_that_signal(bench: Bench) -> None:
    exporter = Scripted()
    bench.add(exporter)
    bench.count()
    bench.end_spans(1)
    assert bench.manager.flush(5.0)
    assert exporter.calls == [
        *("begin spans 1", "export_spans", "flush spans"),
        *("begin metrics 1", "export_counters", "flush metrics"),
    ]


def test_a_failed_cycle_begins_anew_with_the_number_of_the_attempt(bench: Bench) -> None:
    exporter = Scripted(spans=[raising(RetryLater(0.01)), raising(ConnectionError("down"))], metrics=[raising(OSError("down"))])
    bench.add(exporter)
    bench.count()
    bench.end_spans(2)
    assert bench.manager.flush(5.0)
    begins = [call for call in exporter.calls if call.startswith("begin")]
    assert [call for call in begins if "spans" in call] == ["begin spans 1", "begin spans 2", "begin spans 3"]
    assert [call for call in begins if "metrics" in call] == ["begin metrics 1", "begin metrics 2"]
    assert exporter.arrived == {"spans": ["span 0", "span 1"], "metrics": ["counted"]}


def test_a_signal_that_fails_leaves_the_other_alone(bench: Bench) -> None:
    exporter = Scripted(spans=[raising(ConnectionError("no traces here"))] * 1000)
    pipeline = bench.add(exporter)
    bench.count()
    bench.end_spans(3)
    report = bench.manager.flush(0.4)["exporter"]
    assert not report.delivered
    assert "no traces here" in report.reason
    assert exporter.arrived == {"spans": [], "metrics": ["counted"]}
    assert pipeline.stats().cycles["metrics"].counts == {"ok": 1, "retried": 0, "failed": 0}
    assert adds_up(report)


def test_a_half_cycle_of_spans_is_never_sent_by_the_flush_of_metrics(bench: Bench) -> None:
    """The time of the span cycle is used up after its first chunk, before its flush."""

    class Slow(Scripted):
        slow = True

        @hookimpl
        def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
            super().export_spans(spans, timeout)
            if self.slow:
                time.sleep(0.3)

    exporter = Slow()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, export_timeout=0.2, interval=0.1))
    bench.count()
    bench.end_spans(500)
    eventually(lambda: pipeline.stats().cycles["spans"].counts["retried"] >= 1)
    flushes = exporter.calls.count("flush metrics")
    eventually(lambda: exporter.calls.count("flush metrics") > flushes)
    assert exporter.arrived["spans"] == []
    exporter.slow = False
    report = bench.manager.flush(5.0)["exporter"]
    assert report.spans_exported == len(exporter.arrived["spans"]) == 500


def test_chunks_that_an_exporter_without_begin_still_holds_may_arrive_with_its_next_flush(bench: Bench) -> None:
    """Nothing tells it that the cycle has ended without a flush, so that the pipeline cannot say what arrives."""

    class WithoutBegin:
        interval = 3600.0

        def __init__(self) -> None:
            self.held: list[str] = []
            self.arrived: list[str] = []

        @hookimpl
        def export_spans(self, spans: Sequence[SpanData]) -> None:
            self.held += [span.name for span in spans]
            time.sleep(0.15)

        @hookimpl
        def flush(self) -> None:
            self.arrived += self.held
            self.held = []

    exporter = WithoutBegin()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, export_timeout=0.1, span_interval=0.02))
    bench.end_spans(60)
    eventually(lambda: pipeline.queue.counts().unknown)
    assert adds_up(bench.manager.shutdown(2.0)["exporter"])


async def test_an_async_exporter_that_never_started_leaves_no_thread_behind(bench: Bench) -> None:
    class Async:
        interval = 3600.0

        @hookimpl
        async def start(self) -> None:
            raise OSError("port 9464 is taken")

        @hookimpl
        async def export_spans(self) -> None: ...

    bench.add(Async(), "no_thread", wait=False)
    eventually(lambda: bench.manager.pipelines()[0].status.start_error)
    bench.manager.shutdown(2.0)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "eventcore-loop-no_thread"])


def test_a_backend_that_refuses_once_gets_everything_before_the_deadline_of_shutdown(bench: Bench) -> None:
    slow_backoff = msgspec.structs.replace(FAST, backoff=1.0, max_backoff=30.0, span_interval=3600.0)
    exporter = Scripted(spans=[raising(RetryLater(reason="UNAVAILABLE"))])
    bench.add(exporter, settings=slow_backoff)
    bench.end_spans(5)
    begun = time.monotonic()
    report = bench.manager.shutdown(10.0)
    assert time.monotonic() - begun < 5.0
    assert report.delivered
    assert exporter.arrived["spans"] == [f"span {number}" for number in range(5)]


def test_flush_tries_again_while_time_is_left_and_then_says_what_is_missing(bench: Bench) -> None:
    exporter = Scripted(spans=[raising(ConnectionError("down"))] * 1000)
    bench.add(exporter)
    bench.end_spans(2)
    begun = time.monotonic()
    report = bench.manager.flush(0.5)["exporter"]
    assert 0.3 < time.monotonic() - begun < 1.0
    assert (report.delivered, report.spans_pending) == (False, 2)
    assert exporter.calls.count("flush spans") > 3


def test_a_flush_does_not_wait_for_a_backend_that_asks_for_more_time_than_there_is(bench: Bench) -> None:
    exporter = Scripted(spans=[raising(RetryLater(after=60.0, reason="RESOURCE_EXHAUSTED"))])
    bench.add(exporter, settings=msgspec.structs.replace(FAST, max_backoff=100.0))
    bench.end_spans(2)
    begun = time.monotonic()
    report = bench.manager.flush(10.0)["exporter"]
    assert time.monotonic() - begun < 5.0
    assert "RESOURCE_EXHAUSTED" in report.reason
    assert exporter.calls.count("flush spans") == 1
    # At the end it is tried all the same: what is not delivered now is lost.
    assert bench.manager.shutdown(2.0).delivered


def test_a_flush_that_waits_to_try_again_lets_scrapes_pass(bench: Bench) -> None:
    class Pull(Scripted):
        interval = None

        @hookimpl
        def start(self, context: ExporterContext) -> None:
            self.context = context

    exporter = Pull(spans=[raising(ConnectionError("down"))] * 1000)
    bench.add(exporter, settings=msgspec.structs.replace(FAST, backoff=20.0, max_backoff=20.0, span_interval=3600.0))
    bench.count()
    bench.end_spans(1)
    bench.manager._distributor.distribute()
    request = bench.manager.pipelines()[0].status.ask(flush=True, deadline=time.monotonic() + 8.0)
    eventually(lambda: "flush spans" in exporter.calls)
    exporter.context.export_now(1.0).result(1.0)
    assert not request.done()


def test_what_the_backend_will_never_take_is_rejected_at_once_for_its_signal_alone(bench: Bench) -> None:
    exporter = Scripted(spans=[raising(GiveUp("UNAUTHENTICATED: wrong token"))])
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, span_batch=3, max_backoff=3600.0))
    bench.count()
    bench.end_spans(5)
    report = bench.manager.flush(5.0)["exporter"]
    assert not report.delivered
    assert "UNAUTHENTICATED" in report.reason
    assert (report.spans_dropped["rejected"], report.spans_pending, report.spans_exported) == (3, 2, 0)
    assert exporter.calls.count("flush spans") == 1
    assert exporter.arrived["metrics"] == ["counted"]
    assert pipeline.stats().cycles["spans"].given_up
    assert not pipeline.stats().cycles["metrics"].given_up
    assert pipeline.state == "failing"
    assert "spans: UNAUTHENTICATED" in pipeline.problem
    # The token may have been renewed meanwhile.
    assert bench.manager.flush(5.0)["exporter"].spans_exported == 2
    assert "UNAUTHENTICATED" not in pipeline.problem


def test_the_metrics_of_a_signal_that_is_given_up_count_as_rejected_points(bench: Bench) -> None:
    exporter = Scripted(metrics=[raising(GiveUp("UNIMPLEMENTED"))])
    bench.add(exporter)
    bench.count()
    report = bench.manager.flush(5.0)["exporter"]
    assert (report.delivered, report.points_rejected, report.points_exported) == (False, 1, 0)
    assert exporter.calls.count("flush metrics") == 1


def test_a_backend_that_takes_one_signal_only_is_not_failing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    exporter = Scripted(metrics=[raising(GiveUp("UNIMPLEMENTED: traces only", unsupported=True))] * 2)
    pipeline = bench.add(exporter)
    bench.count()
    bench.end_spans(1)
    for _ in range(2):
        report = bench.manager.flush(5.0)["exporter"]
        assert (report.delivered, report.state, report.points_exported, report.spans_exported) == (True, "running", 0, 1)
        assert report.reason == "metrics: UNIMPLEMENTED: traces only"
    assert "UNIMPLEMENTED" in pipeline.problem
    assert [record.getMessage() for record in caplog.records] == ["metrics were not exported: UNIMPLEMENTED: traces only"]
    # It may be replaced by one that takes metrics, too.
    assert bench.manager.flush(5.0)["exporter"].points_exported == 1
    assert pipeline.problem == ""


def test_a_backend_that_takes_no_signal_is_failing(bench: Bench) -> None:
    refusal = raising(GiveUp("UNIMPLEMENTED", unsupported=True))
    pipeline = bench.add(Scripted(metrics=[refusal] * 2, spans=[refusal] * 2))
    bench.count()
    bench.end_spans(1)
    bench.manager.flush(5.0)
    bench.end_spans(1)
    assert not bench.manager.flush(5.0)
    assert pipeline.state == "failing"


def test_spans_whose_outcome_is_unknown_are_sent_once_more_and_then_counted_as_unknown(bench: Bench) -> None:
    exporter = Scripted()
    exporter.script["spans"] = [exporter.lost_answer, exporter.lost_answer]
    bench.add(exporter)
    bench.end_spans(4)
    report = bench.manager.flush(5.0)["exporter"]
    assert not report.delivered
    assert (report.spans_unknown, report.spans_pending, report.spans_exported) == (4, 0, 0)
    assert sorted(exporter.arrived["spans"]) == sorted([f"span {number}" for number in range(4)] * 2)
    assert adds_up(report)
    assert "4 unknown" in str(report)


def test_spans_whose_second_attempt_is_answered_are_exported(bench: Bench) -> None:
    exporter = Scripted()
    exporter.script["spans"] = [exporter.lost_answer]
    bench.add(exporter)
    bench.end_spans(4)
    report = bench.manager.flush(5.0)["exporter"]
    assert report.delivered
    assert (report.spans_unknown, report.spans_exported) == (0, 4)


def test_an_async_hook_that_is_cut_at_its_timeout_delivers_its_spans_twice_at_most(bench: Bench) -> None:
    class Receiver(Exporter):
        interval = 3600.0
        names: list[str] = []

        @hookimpl
        async def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
            self.names += [span.name for span in spans]
            await asyncio.sleep(30)

    exporter = Receiver()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, export_timeout=0.05))
    bench.end_spans(7)
    eventually(lambda: pipeline.queue.counts().unknown == 7)
    assert sorted(exporter.names) == sorted([f"span {number}" for number in range(7)] * 2)


def test_a_hook_that_raises_only_after_its_time_may_have_delivered(bench: Bench) -> None:
    class Late(Collecting):
        @hookimpl
        def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
            self.spans.extend(spans)
            time.sleep(0.1)
            raise ConnectionError("the connection was reset")

    exporter = Late()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, export_timeout=0.05))
    bench.end_spans(3)
    eventually(lambda: pipeline.queue.counts().unknown == 3)
    assert len(exporter.spans) == 6


def test_a_short_flush_does_not_cut_a_call_that_needs_longer(bench: Bench) -> None:
    class Slow:
        interval = 3600.0
        calls = 0

        @hookimpl
        async def export_spans(self, spans: Sequence[SpanData]) -> None:
            self.calls += 1
            await asyncio.sleep(0.3)

    exporter = Slow()
    pipeline = bench.add(exporter)
    bench.end_spans(3)
    for _ in range(3):
        assert not bench.manager.flush(0.02)
    eventually(lambda: pipeline.queue.counts().exported == 3)
    assert exporter.calls == 1


class HalfStarted(Collecting):
    """Its first starts hold a port and raise then."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.holds_port = False

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        if self.holds_port:
            raise OSError("port 9464 is taken")
        self.holds_port = True
        if self.failures:
            self.failures -= 1
            raise ValueError("no registry")

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        self.calls.append("shutdown")
        self.holds_port = False


def test_a_start_that_failed_halfway_is_shut_down_before_it_is_tried_again(bench: Bench) -> None:
    exporter = HalfStarted(failures=2)
    assert bench.add(exporter).state == "running"
    assert exporter.calls == ["shutdown", "shutdown"]


def test_an_exporter_that_never_started_is_shut_down_all_the_same(bench: Bench) -> None:
    exporter = HalfStarted(failures=1000)
    bench.add(exporter, settings=msgspec.structs.replace(FAST, backoff=60.0, max_backoff=60.0), wait=False)
    eventually(lambda: exporter.failures < 1000)
    report = bench.manager.shutdown(2.0)
    assert not report
    assert "no registry" in report["exporter"].reason
    assert not exporter.holds_port


def test_an_exporter_for_the_older_contract_keeps_working(bench: Bench) -> None:
    class Older:
        interval = 3600.0
        flushed = 0

        @hookimpl
        def export_spans(self, spans: Sequence[SpanData]) -> None: ...

        @hookimpl
        def flush(self, timeout: float) -> None:
            self.flushed += 1

    exporter = Older()
    bench.add(exporter)
    bench.end_spans(1)
    assert bench.manager.flush(5.0)
    assert exporter.flushed == 1


def test_a_flush_says_that_spans_are_pending_when_a_batch_before_them_failed(bench: Bench) -> None:
    exporter = Scripted(spans=[lambda: None, raising(ConnectionError("down")), *[raising(ConnectionError("down"))] * 1000])
    bench.add(exporter, settings=msgspec.structs.replace(FAST, span_batch=10, span_interval=3600.0))
    bench.end_spans(35)
    report = bench.manager.flush(0.4)["exporter"]
    assert (report.delivered, report.spans_pending) == (False, report.spans_recorded - report.spans_exported)
    assert report.spans_pending > 0


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_backend_does_the_account_adds_up_and_nothing_arrives_three_times(bench: Bench, seed: int) -> None:
    import random

    chance = random.Random(seed)
    exporter = Scripted()
    rejected: list[int] = []

    def reject() -> Rejected:
        count = chance.randrange(3)
        rejected.append(min(count, len(exporter.held["spans"])))
        return Rejected(count, "too old")

    steps: list[Step] = [
        *(lambda: None, lambda: None, reject, exporter.lost_answer),
        *(raising(RetryLater(0.001)), raising(ConnectionError("down")), raising(GiveUp("never")), raising(SystemExit(1))),
    ]
    exporter.script["spans"] = [chance.choice(steps) for _ in range(60)]
    bench.add(exporter, settings=msgspec.structs.replace(FAST, span_batch=7, span_queue=50, max_backoff=0.02))
    for number in range(20):
        for index in range(chance.randrange(12)):
            bench.tracer.span(f"span {number} {index}").end()
        assert adds_up(bench.manager.flush(0.02)["exporter"])
    report = bench.manager.shutdown(5.0)["exporter"]
    assert adds_up(report)
    assert report.spans_pending == 0
    assert max(Counter(exporter.arrived["spans"]).values(), default=0) <= 2
