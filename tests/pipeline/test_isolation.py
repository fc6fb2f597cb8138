"""No exporter harms the application or another exporter, and deadlines hold."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from eventcore.exporting import ExporterContext, SpanData, TraceContext, hookimpl
from tests.pipeline.conftest import FAST, Bench, Collecting, eventually


def bad_hook(behaviour: Callable[[], Any]) -> object:
    """An exporter whose every hook but ``start`` behaves so."""

    class Bad:
        interval = 0.05

        @hookimpl
        def export_counters(self) -> Any:
            return behaviour()

        @hookimpl
        def export_spans(self) -> Any:
            return behaviour()

        @hookimpl
        def flush(self) -> Any:
            return behaviour()

        @hookimpl
        def shutdown(self) -> Any:
            return behaviour()

    return Bad()


def raises(error: BaseException) -> Callable[[], Any]:
    def behaviour() -> Any:
        raise error

    return behaviour


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), MemoryError()],
    ids=repr,
)
def test_an_exporter_that_raises_whatever_in_every_hook_harms_no_one(bench: Bench, error: BaseException) -> None:
    good = Collecting()
    bench.add(good, "good")
    bad = bench.add(bad_hook(raises(error)), "bad")
    bench.count()
    bench.end_spans(3)
    report = bench.manager.flush(0.5)
    assert report["good"].delivered
    assert not report["bad"].delivered
    assert len(good.spans) == 3
    eventually(lambda: bad.stats().cycles["metrics"].counts["retried"] >= 2)
    assert bad.state == "failing"
    final = bench.manager.shutdown(0.5)
    assert final["good"].delivered
    assert final["bad"].state == "stopped"


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_async_exporter_that_raises_whatever_keeps_its_pipeline(bench: Bench, error: BaseException) -> None:
    class Bad:
        interval = 3600.0

        def __init__(self) -> None:
            self.calls = 0

        @hookimpl
        async def start(self) -> None:
            self.task = asyncio.create_task(self.exit())

        async def exit(self) -> None:
            raise error

        @hookimpl
        async def export_spans(self, spans: list[SpanData]) -> None:
            self.calls += 1
            if self.calls == 1:
                raise error

    exporter = Bad()
    pipeline = bench.add(exporter)
    bench.end_spans(1)
    eventually(lambda: pipeline.stats().spans.exported == 1)  # type: ignore[union-attr]  # it takes spans
    exporter.task.exception()


@pytest.mark.parametrize("kind", ["def", "async def that blocks", "async def that ignores cancellation"])
def test_flush_and_shutdown_keep_their_deadlines_with_an_exporter_that_never_returns(
    bench: Bench, gate: threading.Event, kind: str
) -> None:
    def hang() -> None:
        gate.wait(60)

    async def hang_blocking() -> None:
        gate.wait(60)

    async def hang_stubborn() -> None:
        while not gate.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    behaviour = hang_blocking if kind == "async def that blocks" else hang_stubborn

    class Hanging:
        interval = 3600.0

        @hookimpl
        def export_spans(self) -> None:
            hang()

    class AsyncHanging:
        interval = 3600.0

        @hookimpl
        async def export_spans(self) -> None:
            await behaviour()

    good = Collecting()
    bench.add(good, "good")
    hanging = bench.add(
        Hanging() if kind == "def" else AsyncHanging(), "hanging", msgspec.structs.replace(FAST, export_timeout=0.1)
    )
    bench.end_spans(2)
    begun = time.monotonic()
    report = bench.manager.flush(0.4)
    assert time.monotonic() - begun < 0.7
    assert report["good"].delivered
    assert not report["hanging"].delivered
    assert (report["hanging"].spans_unknown, report["hanging"].spans_pending) == (0, 2)
    eventually(lambda: hanging.state == "stalled")
    assert "has not returned for" in hanging.problem
    begun = time.monotonic()
    final = bench.manager.shutdown(0.6)
    assert time.monotonic() - begun < 0.9
    assert final["good"].delivered
    assert (final["hanging"].spans_unknown, final["hanging"].spans_pending) == (2, 0)
    assert sum(final["hanging"].spans_dropped.values()) == 0


def test_an_answer_after_the_end_changes_no_account(bench: Bench, gate: threading.Event) -> None:
    late = Collecting(lambda: gate.wait(60) and None)
    pipeline = bench.add(late)
    bench.end_spans(2)
    report = bench.manager.shutdown(0.3)
    assert report["exporter"].spans_unknown == 2
    gate.set()
    eventually(pipeline.finished.is_set)
    counts = pipeline.stats().spans
    assert counts is not None
    assert (counts.recorded, counts.exported, counts.unknown, counts.pending) == (2, 0, 2, 0)
    assert sum(counts.dropped.values()) == 0


def test_no_second_call_is_made_while_the_first_has_not_returned(bench: Bench, gate: threading.Event) -> None:
    exporter = Collecting(lambda: gate.wait(60) and None)
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, export_timeout=0.05, interval=0.05))
    bench.count()
    bench.end_spans(1)
    eventually(lambda: pipeline.state == "stalled")
    calls = len(exporter.calls)
    bench.end_spans(5)
    assert not bench.manager.flush(0.3)
    assert len(exporter.calls) == calls


def test_shutdown_and_stopping_reach_an_exporter_in_the_middle_of_an_export(bench: Bench) -> None:
    class Waiting:
        interval = 3600.0

        def __init__(self) -> None:
            self.cancelled = threading.Event()
            self.saw_stopping = False

        @hookimpl
        def start(self, context: ExporterContext) -> None:
            self.context = context

        @hookimpl
        def export_spans(self) -> None:
            self.saw_stopping = self.context.stopping.wait(30)
            self.cancelled.wait(30)
            raise ConnectionError("cancelled")

        @hookimpl
        def shutdown(self) -> None:
            self.cancelled.set()

    exporter = Waiting()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, export_timeout=30.0))
    bench.end_spans(1)
    eventually(lambda: pipeline.in_flight)
    begun = time.monotonic()
    report = bench.manager.shutdown(2.0)
    assert time.monotonic() - begun < 2.2
    assert exporter.saw_stopping
    assert exporter.cancelled.is_set()
    assert report["exporter"].spans_dropped["shutdown"] == 1


def test_a_hook_that_spins_is_shown_with_the_processor_time_it_uses(bench: Bench, gate: threading.Event) -> None:
    def spin() -> None:
        while not gate.is_set():
            pass

    spinning = bench.add(bad_hook(spin), "spinning", msgspec.structs.replace(FAST, export_timeout=0.05))
    bench.count()
    eventually(lambda: spinning.state == "stalled")
    assert "of processor time" in eventually(lambda: spinning.problem if "used 0.0" not in spinning.problem else "")


def test_an_exporter_that_cannot_start_is_failing_and_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Late(Collecting):
        attempts = 0

        @hookimpl
        def start(self, context: ExporterContext) -> None:
            self.attempts += 1
            if self.attempts < 4:
                raise OSError("port 9464 is taken")

    caplog.set_level(logging.INFO)
    exporter = Late()
    # A name of its own: the logger of a name passes a bounded number of records, also from other tests.
    pipeline = bench.add(exporter, "late", wait=False)
    bench.end_spans(2)
    report = bench.manager.flush(0.02)
    assert "port 9464 is taken" in report["late"].reason or "no answer" in report["late"].reason
    assert pipeline.started.wait(10)
    assert pipeline.state == "running"
    assert bench.manager.flush(5.0)["late"].spans_exported == 2
    assert caplog.text.count("cannot start") == 1
    assert "started after 3 failed attempts" in caplog.text


def test_an_exporter_that_floods_its_log_is_cut_and_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Flooding(Collecting):
        @hookimpl
        def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
            assert self.context is not None
            for number in range(1000):
                self.context.logger.error("line %d", number)

    bench.add(Flooding(), "flooding")
    bench.end_spans(1)
    assert bench.manager.flush(5.0)
    assert len([record for record in caplog.records if record.name == "eventcore.exporters.flooding"]) == 20


def test_drops_are_logged_with_a_count_at_a_bounded_rate(
    bench: Bench, caplog: pytest.LogCaptureFixture, gate: threading.Event
) -> None:
    bench.add(Collecting(lambda: gate.wait(30) and None), "full", msgspec.structs.replace(FAST, span_queue=1))
    for _ in range(5):
        bench.end_spans(20)
        bench.manager.flush(0.05)
    eventually(lambda: "dropped" in caplog.text)
    messages = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert len(messages) == 1
    assert "queue_full" in messages[0]


def test_an_ambient_context_that_raises_is_asked_no_more(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def ambient() -> TraceContext | None:
        asked.append(1)
        raise RuntimeError("no tracer")

    class Ambient(Collecting):
        @hookimpl
        def trace_context(self) -> Callable[[], TraceContext | None]:
            return ambient

    bench.add(Ambient())
    bench.end_spans(3)
    assert len(asked) == 1
    assert bench.manager.flush(5.0)


def test_what_one_exporter_gets_cannot_be_changed_by_another(bench: Bench) -> None:
    errors = []

    class Vandal(Collecting):
        @hookimpl
        def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
            for name, value in (("name", "x"), ("attributes", ())):
                try:
                    setattr(spans[0], name, value)
                except AttributeError as error:
                    errors.append(error)
            if isinstance(spans, list):
                spans.clear()

    good = Collecting()
    bench.add(Vandal(), "a vandal")
    bench.add(good, "good")
    with bench.tracer.span("x", attributes={"a": 1}):
        pass
    assert bench.manager.flush(5.0)
    assert len(errors) == 2
    assert good.spans[0].attributes == (("a", 1),)


def test_replacing_an_exporter_stops_the_old_one_before_the_new_one_starts(bench: Bench) -> None:
    order: list[str] = []

    class Ordered(Collecting):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        @hookimpl
        def start(self, context: ExporterContext) -> None:
            order.append(f"start {self.name}")

        @hookimpl
        def shutdown(self, timeout: float) -> None:
            order.append(f"shutdown {self.name}")

    old, new = Ordered("old"), Ordered("new")
    bench.add(old)
    bench.end_spans(2)
    bench.add(new)
    bench.end_spans(1)
    assert bench.manager.flush(5.0)
    assert order == ["start old", "shutdown old", "start new"]
    assert (len(old.spans), len(new.spans)) == (2, 1)
    assert len(bench.manager.pipelines()) == 1


def test_removing_an_exporter_delivers_what_it_has_and_leaves_the_others(bench: Bench) -> None:
    leaving, staying = Collecting(), Collecting()
    bench.add(leaving, "leaving")
    bench.add(staying, "staying")
    bench.end_spans(2)
    report = bench.manager.remove("leaving", 5.0)
    bench.end_spans(1)
    assert bench.manager.flush(5.0)
    assert report.delivered
    assert (len(leaving.spans), len(staying.spans)) == (2, 3)
    assert leaving.calls[-1] == "shutdown"
    with pytest.raises(KeyError):
        bench.manager.remove("leaving", 1.0)


def test_after_shutdown_nothing_can_be_registered_and_flush_says_so(bench: Bench) -> None:
    bench.add(Collecting())
    assert bench.manager.shutdown(5.0)
    assert "stopped" in bench.manager.flush(1.0)["exporter"].reason
    with pytest.raises(RuntimeError, match="shut down"):
        bench.add(Collecting(), "late", wait=False)
    assert bench.manager.shutdown(1.0)["exporter"].state == "stopped"


def test_an_event_loop_keeps_turning_while_ten_thousand_series_are_exported(bench: Bench) -> None:
    histogram = bench.registry.histogram("h", unit="s", description="", labels=("k",), boundaries=(0.1, 1, 10))
    bench.registry.series_limit = 20_000
    histogram._limit.own = 20_000
    for number in range(10_000):
        histogram.labels(str(number)).record(1)

    class Converting:
        interval = 3600.0
        points = 0

        @hookimpl
        def export_histograms(self, histograms: list[Any]) -> None:
            for data in histograms:
                for _ in data.points:
                    self.points += 1
                    sum(range(1000))  # stands for a conversion of some 20 µs

    exporter = Converting()
    bench.add(exporter)

    async def watch() -> list[float]:
        loop = asyncio.get_running_loop()
        flush = asyncio.ensure_future(asyncio.to_thread(bench.manager.flush, 30.0))
        lags: list[float] = []
        while not flush.done():
            before = loop.time()
            await asyncio.sleep(0.001)
            lags.append(loop.time() - before - 0.001)
        assert flush.result()
        return lags

    lags = asyncio.run(watch())
    assert exporter.points == 10_000
    # While a thread converts without a rest, each turn of the loop waits 5 ms for the interpreter. The worst lag would say more
    # of the machine and of garbage; the benchmark measures it.
    assert sum(lag > 0.0025 for lag in lags) / len(lags) < 0.3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_hang_and_exports_nothing_of_its_parents() -> None:
    import subprocess

    program = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from eventcore.telemetry import Telemetry
from eventcore.exporting import hookimpl
class Kept:
    interval = 3600.0
    @hookimpl
    def export_counters(self, counters): print(os.getpid() == parent, counters[0].points[0].value, flush=True)
parent = os.getpid()
telemetry = Telemetry(exporters="none")
telemetry.register_exporter(Kept())
counter = telemetry.counter("c")
counter.add(5)
if not (child := os.fork()):
    counter.add(1)
    with telemetry.span("x"): pass
    report = telemetry.flush_blocking(2.0)
    assert report and report["kept"].spans_recorded == 0
    assert telemetry.collect().counters[0].points[0].value == 1
    telemetry.shutdown_blocking(2.0)
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
telemetry.shutdown_blocking(5.0)
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    # The child's exporter has only the child's count, however often it exports; the parent's has only the parent's.
    assert set(done.stdout.splitlines()) == {"False 1", "True 5"}


def test_a_replaced_exporter_leaves_what_it_could_not_deliver_to_its_successor(bench: Bench) -> None:
    class Slow(Collecting):
        @hookimpl
        def start(self, context: ExporterContext) -> None:
            time.sleep(0.1)

    exporters = [Slow() for _ in range(5)]
    for exporter in exporters:
        bench.add(exporter, "replaced", wait=False)
        bench.end_spans(20)
    report = bench.manager.flush(10.0)["replaced"]
    assert report.delivered
    assert report.spans_recorded == report.spans_exported == 100
    assert sum(len(exporter.spans) for exporter in exporters) == 100


def test_a_successor_takes_over_from_one_that_hangs_and_its_late_answer_changes_nothing(
    bench: Bench, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventcore.exporting.delivery.worker._PREDECESSOR_LIMIT", 0.2)
    hanging = Collecting(lambda: gate.wait(30) and None)
    old = bench.add(hanging, "replaced")
    bench.end_spans(3)
    eventually(lambda: old.in_flight)
    new = Collecting()
    pipeline = bench.add(new, "replaced")
    gate.set()
    eventually(old.finished.is_set)
    assert bench.manager.flush(5.0)["replaced"].delivered
    counts = pipeline.stats().spans
    assert counts is not None
    assert (counts.recorded, counts.exported, counts.pending, sum(counts.dropped.values())) == (3, 3, 0, 0)
    assert len(new.spans) == 3


@pytest.mark.parametrize("timeout", [float("nan"), -1.0])
def test_a_timeout_that_means_nothing_is_refused_before_anything_is_stopped(bench: Bench, timeout: float) -> None:
    bench.add(Collecting())
    for call in (bench.manager.flush, bench.manager.shutdown):
        with pytest.raises(ValueError, match="expected seconds, 0 or more"):
            call(timeout)
    assert bench.manager.flush(5.0)


def test_an_endless_timeout_waits_as_long_as_it_takes(bench: Bench) -> None:
    bench.add(Collecting())
    bench.end_spans(1)
    assert bench.manager.flush(float("inf"))
    assert bench.manager.shutdown(float("inf"))
