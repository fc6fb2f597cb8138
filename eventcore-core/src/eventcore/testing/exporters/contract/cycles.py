"""The contract of exporters: what a cycle that fails leaves behind, and what of it arrives."""

from __future__ import annotations

from typing import Final

import pytest

from eventcore.exporting import RetryLater
from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial, Trial
from eventcore.testing.exporters.delivery import wait_for
from eventcore.testing.exporters.samples import sample_collection, sample_counter, sample_gauge, sample_spans
from eventcore.testing.exporters.setup import ExporterSetup

METRIC_HOOKS: Final = ("begin", "export_counters", "export_gauges", "export_histograms", "flush")
SPAN_HOOKS: Final = ("begin", "export_spans", "flush")
_EXPORT_HOOKS: Final = ("export_counters", "export_gauges", "export_histograms")


def _fails() -> Exception:
    return RetryLater(after=0.0, reason="the test says so")


def _is_cut() -> Exception:
    return RetryLater(after=0.0, reason="the test cuts the answer off", outcome_unknown=True)


class CycleContract(ContractFixtures):
    """Tests of cycles that fail."""

    @pytest.mark.parametrize("hook", METRIC_HOOKS)
    def test_metrics_arrive_whole_after_a_cycle_that_failed_before(self, trial: StartTrial, hook: str) -> None:
        self._metrics_after(trial(), hook, after=False)

    @pytest.mark.parametrize("hook", _EXPORT_HOOKS)
    def test_metrics_arrive_whole_after_a_cycle_that_failed_behind(self, trial: StartTrial, hook: str) -> None:
        self._metrics_after(trial(), hook, after=True)

    @pytest.mark.parametrize("hook", SPAN_HOOKS)
    def test_spans_arrive_once_after_a_cycle_that_failed_before(
        self, exporter_setup: ExporterSetup, trial: StartTrial, hook: str
    ) -> None:
        self.needs(exporter_setup, "spans")
        self._spans_after(trial(), hook, after=False)

    def test_spans_arrive_once_after_half_a_cycle(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        tested = trial()
        # The chunks before the failing one are in the exporter's hands. Without `flush`, each chunk is delivered by itself.
        self._spans_after(tested, "export_spans", after="flush" in tested.hooks.implemented)

    def test_a_failed_cycle_of_metrics_is_not_delivered_by_one_of_spans(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        self.needs(exporter_setup, "spans")
        # The second attempt comes later than the test ends.
        tested = trial(backoff=600.0, max_backoff=600.0, span_interval=0.02)
        if "flush" not in tested.hooks.implemented or "metrics" not in tested.hooks.signals:
            pytest.skip("each hook delivers by itself, or there is one signal only")
        stale = sample_counter("stale.total", {("x",): 5}), sample_gauge("stale.now", {("x",): 5})
        tested.record(*stale)
        tested.hooks.fail_next("flush", lambda: RetryLater(after=500.0, reason="the test says so"))
        self._ask_for_metrics(tested)
        assert wait_for(lambda: tested.hooks.failed("flush")), "the cycle of metrics did not come"
        spans = sample_spans(2)
        tested.end_spans(spans)
        tested.expect_spans(spans)
        names = {tested.setup.metric_name(data) for data in stale}
        shown = [] if tested.is_pulled else [point for point in tested.setup.received().points if point.name in names]
        assert not shown, f"the flush of a signal must not deliver what a failed cycle of the other has left: {shown[0]}"

    def test_a_failed_cycle_of_spans_is_not_delivered_by_one_of_metrics(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        self.needs(exporter_setup, "spans")
        tested = trial(backoff=600.0, max_backoff=600.0, span_interval=0.02)
        if "flush" not in tested.hooks.implemented or "metrics" not in tested.hooks.signals:
            pytest.skip("each hook delivers by itself, or there is one signal only")
        spans = sample_spans(3, "stale span")
        tested.end_spans(spans)
        tested.hooks.fail_next("flush", lambda: RetryLater(after=500.0, reason="the test says so"))
        assert wait_for(lambda: tested.hooks.failed("flush")), "the cycle of spans did not come"
        metrics = tuple(sample_collection())
        tested.record(*metrics)
        self._ask_for_metrics(tested)
        tested.expect(*metrics)
        shown = [span.name for span in tested.setup.received().spans if span.name.startswith("stale")]
        assert not shown, f"the flush of a signal must not deliver what a failed cycle of the other has left: {shown[0]}"

    def test_after_an_unknown_outcome_no_span_arrives_more_than_twice(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        self.needs(exporter_setup, "spans")
        tested = trial()
        hook = "flush" if "flush" in tested.hooks.implemented else "export_spans"
        tested.hooks.fail_next(hook, _is_cut, after=True)
        spans = sample_spans(20)
        tested.end_spans(spans)
        tested.flush()
        tested.expect_spans(spans, most=2)
        report = tested.shutdown()
        assert report.spans_exported + report.spans_unknown == len(spans), str(report)
        tested.check_account(report)

    def test_after_an_unknown_outcome_the_newest_metrics_are_right(self, trial: StartTrial) -> None:
        tested = trial()
        if "flush" not in tested.hooks.implemented or tested.hooks.temporality != "cumulative":
            pytest.skip("differences may be counted twice after an unknown outcome, as the contract says")
        metrics = tuple(sample_collection())
        tested.record(*metrics)
        tested.hooks.fail_next("flush", _is_cut, after=True)
        self._deliver_until(tested, "flush")
        tested.expect(*metrics)

    @staticmethod
    def _ask_for_metrics(tested: Trial) -> None:
        """Let one cycle of metrics begin, whose outcome does not matter."""
        tested.delivery.deliver_metrics()

    def _metrics_after(self, tested: Trial, hook: str, *, after: bool) -> None:
        if hook not in tested.hooks.implemented:
            pytest.skip(f"the exporter has no hook {hook}")
        if after and ("begin" not in tested.hooks.implemented or "flush" not in tested.hooks.implemented):
            pytest.skip("each hook delivers by itself")
        first = tuple(sample_collection())
        tested.record(*first, sample_counter("gone.total", {("before",): 1}), sample_gauge("gone.now", {("before",): 1}))
        tested.hooks.fail_next(hook, _fails, after=after)
        self._deliver_until(tested, hook)
        tested.expect(*tested.totals.values())
        tested.check_no_point_twice()

    def _spans_after(self, tested: Trial, hook: str, *, after: bool) -> None:
        if hook not in tested.hooks.implemented:
            pytest.skip(f"the exporter has no hook {hook}")
        # Several chunks: the first ones of a cycle are small.
        spans = sample_spans(100)
        tested.end_spans(spans)
        tested.hooks.fail_next(hook, _fails, after=after, skip=1 if hook == "export_spans" else 0)
        self._deliver_until(tested, hook)
        tested.expect_spans(spans)
        report = tested.shutdown()
        assert report.spans_exported == len(spans), f"what was delivered by a later attempt counts as exported: {report}"
        tested.check_account(report)

    @staticmethod
    def _deliver_until(tested: Trial, hook: str) -> None:
        """Flush until the failure of the hook has happened, and once more. A flush tries again by itself."""

        def asked() -> bool:
            tested.delivery.deliver_metrics()
            tested.flush(5.0)
            return tested.hooks.failed(hook)

        assert wait_for(asked, 5.0), f"hook {hook} was not called"
        tested.deliver()
