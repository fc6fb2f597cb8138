"""The contract of exporters: start, shutdown and flush at any time and from any thread, a successor, and forks."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from eventcore.exporting.delivery.handle import KINDS
from eventcore.exporting.delivery.hook_runner import HookRunner
from eventcore.exporting.forking import ForkGuard
from eventcore.exporting.registration import check_exporter
from eventcore.telemetry import Telemetry
from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial
from eventcore.testing.exporters.contract.processes import Child
from eventcore.testing.exporters.delivery import PATIENCE, delivering, wait_for
from eventcore.testing.exporters.samples import exporter_context, sample_collection, sample_counter, sample_gauge, sample_spans
from eventcore.testing.exporters.setup import LIMITS, ExporterSetup

_LATE: Final = 0.5
"""Seconds that a busy machine may add to a deadline."""

_SOON: Final = 3.0
"""Seconds that a scrape may take that cannot succeed, also on a busy machine."""


class ScrapeContract(ContractFixtures):
    """Tests of exporters that are scraped."""

    def test_several_scrapes_at_the_same_time_all_see_the_values(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        tested = trial()
        if not tested.is_pulled:
            pytest.skip("the exporter is not scraped")
        metrics = tuple(sample_collection())
        tested.record(*metrics)
        tested.expect(*metrics)
        with ThreadPoolExecutor(4) as pool:
            for received in [pool.submit(exporter_setup.received) for _ in range(8)]:
                problems = tested.differences(received.result(PATIENCE), metrics)
                assert not problems, problems[0]

    def test_each_scrape_shows_what_was_recorded_before_it(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = trial()
        if not tested.is_pulled:
            pytest.skip("the exporter is not scraped")
        metrics = tuple(sample_collection())
        tested.record(*metrics)
        tested.expect(*metrics)
        for value in range(5, 8):
            newer = sample_gauge(values={("mail",): value}), sample_counter(values={("FR",): value})
            tested.record(*newer)
            problems = tested.differences(exporter_setup.received(), [data for data in newer if data.name in tested.totals])
            assert not problems, f"a scrape must show new values, not those of an earlier cycle: {problems[0]}"

    def test_a_scrape_after_the_shutdown_ends_soon(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = trial()
        if not tested.is_pulled:
            pytest.skip("the exporter is not scraped")
        metrics = tuple(sample_collection())
        tested.record(*metrics)
        tested.expect(*metrics)
        tested.shutdown()
        begun = time.monotonic()
        with suppress(Exception):  # refused, or what was shown last
            exporter_setup.received()
        took = time.monotonic() - begun
        assert took < _SOON, f"nobody may wait for an exporter that was shut down: the scrape took {took:.1f} s"


class LifecycleContract(ScrapeContract):
    """Tests of start, shutdown, flush, threads and forks."""

    def test_core_accepts_the_exporter_and_the_declared_limits_are_true(self, exporter_setup: ExporterSetup) -> None:
        handle = check_exporter(exporter_setup.make())
        unknown = exporter_setup.cannot.keys() - LIMITS.keys()
        assert not unknown, f"`cannot` names {sorted(unknown)}; known are {', '.join(LIMITS)}"
        without_reason = [limit for limit, reason in exporter_setup.cannot.items() if not reason.strip()]
        assert not without_reason, f"`cannot` must say why for {without_reason}"
        taken = {kind for kind in handle.kinds if ("spans" if kind == "spans" else "metrics") in handle.signals}
        declared = {kind for kind in KINDS if kind in exporter_setup.cannot}
        assert declared == set(KINDS) - taken, (
            f"the exporter takes {', '.join(sorted(taken))}; `cannot` must declare exactly the others, with the reason: "
            f"it declares {', '.join(sorted(declared)) or 'none'}"
        )

    def test_making_the_exporter_opens_nothing(self, exporter_setup: ExporterSetup) -> None:
        exporter_setup.make()
        before = _opened()
        made = exporter_setup.make()
        assert _opened() == before, (
            f"{type(made).__name__}() must only keep settings; connect, listen and start threads in `start`"
        )

    def test_everything_that_was_opened_is_closed_at_shutdown(self, exporter_setup: ExporterSetup) -> None:
        self._live(exporter_setup)  # libraries keep some threads and files of their own after their first use
        before = _opened()
        for _ in range(3):
            self._live(exporter_setup)
        assert wait_for(lambda: _is_closed(before), min(5.0, exporter_setup.patience)), (
            f"threads and open files must be gone after shutdown: {before} before three lives of an exporter, {_opened()} after"
        )

    def test_shutdown_may_come_before_start_and_twice(self, exporter_setup: ExporterSetup) -> None:
        exporter = exporter_setup.make()
        handle = check_exporter(exporter)
        runner = HookRunner(handle, "tested", ForkGuard(logging.getLogger("eventcore.exporters.tested")))
        runner.call("shutdown", 1.0)
        runner.call("start", PATIENCE, context=exporter_context())
        runner.call("shutdown", 1.0)
        runner.call("shutdown", 1.0)
        runner.stop_loop(1.0)

    def test_it_starts_again_after_a_start_that_failed_halfway(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = trial()
        if "start" not in tested.hooks.implemented:
            pytest.skip("the exporter has no hook start")
        assert tested.delivery.wait_started(exporter_setup.patience), (
            f"the exporter must start: {tested.delivery.pipeline.problem}"
        )
        tested.shutdown()
        again = trial(fail_start=True)
        assert again.delivery.wait_started(), f"the exporter must start at the second time: {again.delivery.pipeline.problem}"
        assert again.hooks.failed("start")
        metrics, spans = tuple(sample_collection()), sample_spans(3)
        again.record(*metrics)
        again.end_spans(spans)
        again.deliver()
        again.expect(*metrics)
        again.expect_spans(spans)

    def test_a_shutdown_delivers_what_was_recorded(self, trial: StartTrial) -> None:
        tested = trial()
        metrics, spans = tuple(sample_collection()), sample_spans(10)
        tested.delivery.wait_started()
        tested.record(*metrics)
        tested.end_spans(spans)
        report = tested.shutdown()
        assert report.delivered, f"a shutdown must deliver everything while the backend works: {report}"
        if not tested.is_pulled:
            tested.expect(*metrics)
        tested.expect_spans(spans)
        tested.check_account(report)
        assert tested.shutdown().spans_exported == report.spans_exported, "a second shutdown must only report"

    @pytest.mark.parametrize("wait", [False, True], ids=["while it starts", "when it has started"])
    def test_a_shutdown_at_any_time_is_in_time(self, trial: StartTrial, wait: bool) -> None:
        tested = trial()
        if wait:
            assert tested.delivery.wait_started()
        tested.end_spans(sample_spans(3))
        begun = time.monotonic()
        report = tested.shutdown(1.5)
        assert time.monotonic() - begun < 1.5 + _LATE, f"a shutdown must end within its timeout: {report}"
        assert report.state == "stopped", f"the hook shutdown must return within its timeout: {report}"
        tested.check_account(report)

    def test_a_flush_with_nothing_to_deliver_delivers(self, trial: StartTrial) -> None:
        tested = trial()
        tested.deliver()
        tested.deliver()

    def test_flushes_and_spans_of_several_threads_lose_nothing(self, trial: StartTrial) -> None:
        tested = trial()
        tested.record(*sample_collection())

        def work(number: int) -> None:
            for step in range(5):
                tested.end_spans(sample_spans(2, f"thread {number} step {step} span"))
                tested.flush()

        with ThreadPoolExecutor(4) as pool:
            for outcome in [pool.submit(work, number) for number in range(4)]:
                outcome.result(3 * PATIENCE)
        tested.deliver()
        tested.expect(*tested.totals.values())
        tested.expect_spans(tested.delivery.offered)
        tested.check_account(tested.shutdown())

    def test_a_successor_goes_on_without_loss(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = trial()
        tested.delivery.wait_started()
        metrics = tuple(sample_collection())
        tested.record(*metrics)
        tested.end_spans(sample_spans(5, "before"))
        tested.delivery.replace(exporter_setup.make())
        assert tested.delivery.wait_started(), f"the successor must start: {tested.delivery.pipeline.problem}"
        tested.end_spans(sample_spans(5, "after"))
        tested.deliver()
        tested.expect(*metrics)
        tested.expect_spans(tested.delivery.offered)

    def test_a_forked_child_and_its_parent_each_deliver_their_own(self, exporter_setup: ExporterSetup) -> None:
        self.needs(exporter_setup, "forks")
        exporter = exporter_setup.make()
        handle = check_exporter(exporter)
        telemetry = Telemetry(config=os.devnull, exporters=[], traces_per_second="all")
        telemetry.register_exporter(exporter, name="tested")
        counter = telemetry.counter("forked.total", labels=("process",))

        def work(process: str, amount: int) -> None:
            counter.labels(process).add(amount)
            with telemetry.span(f"span of {process} {amount}"):
                pass

        try:
            work("parent", 1)
            telemetry.flush_blocking(exporter_setup.patience)
            work("parent", 2)  # delivered by the parent, not by the child

            def child() -> bool:
                work("child", 4)
                return bool(telemetry.shutdown_blocking(exporter_setup.patience))

            code = Child(child).wait(exporter_setup.patience)
            assert code == 0, "the exporter of a forked child must deliver what the child has recorded"
            work("parent", 8)
            report = telemetry.flush_blocking(exporter_setup.patience)
            assert report, f"the exporter of the parent must go on after a fork: {report}"
            self._compare_after_fork(exporter_setup, handle)
        finally:
            telemetry.shutdown_blocking(exporter_setup.patience)

    def _compare_after_fork(self, setup: ExporterSetup, handle: Any) -> None:
        if "spans" in handle.kinds:
            names = [f"span of parent {amount}" for amount in (1, 2, 8)] + ["span of child 4"]
            wanted = sorted(setup.text(name) for name in names)
            found = wait_for(
                lambda: (spans := sorted(span.name for span in setup.received().spans)) == wanted and spans, setup.patience
            )
            assert found, (
                f"parent and child must deliver each span once: {sorted(span.name for span in setup.received().spans)}; "
                f"expected {wanted}"
            )
        if "counters" in handle.kinds:
            name = setup.metric_name(sample_counter("forked.total", {}, unit=""))

            def value_of_parent() -> float:
                points = [p for p in setup.received().points if p.name == name and setup.text("parent") in p.labels.values()]
                is_sum = handle.temporality != "cumulative" and not setup.adds_up
                values = [point.value or 0.0 for point in points]
                return sum(values) if is_sum else values[-1]

            arrived = wait_for(lambda: value_of_parent() == 11, setup.patience)
            assert arrived, f"the parent has recorded 11, the backend has {value_of_parent()}"

    @staticmethod
    def _live(setup: ExporterSetup) -> None:
        """One life of an exporter, with a delivery."""
        with delivering(setup.make()) as delivery:
            delivery.wait_started()
            delivery.record(sample_counter())
            delivery.end_spans(sample_spans(1, "life"))
            delivery.flush()


def _is_closed(before: tuple[int, int]) -> bool:
    threads, files = _opened()
    return threads <= before[0] and files <= before[1]


def _opened() -> tuple[int, int]:
    """How many threads and open files the process has; files only where the system tells."""
    folder = Path("/proc/self/fd")
    return threading.active_count(), len(list(folder.iterdir())) if folder.exists() else 0
