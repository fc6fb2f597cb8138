"""The contract of exporters: backends that are down, that restart, that never answer and that are slow."""

from __future__ import annotations

import threading
import time
from typing import Final

import pytest

from eventcore.exporting import RetryLater
from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial, Trial
from eventcore.testing.exporters.delivery import wait_for
from eventcore.testing.exporters.samples import sample_collection, sample_counter, sample_spans
from eventcore.testing.exporters.setup import ExporterSetup

_LATE: Final = 0.7
"""Seconds that a busy machine may add to a deadline."""

_PAUSE: Final = 1.0
"""Seconds that a busy backend asks for. Some protocols have whole seconds only."""


class OutageContract(ContractFixtures):
    """Tests of backends that do not work."""

    def test_nothing_is_lost_while_the_backend_is_down(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "outages", "acknowledgements")
        tested = self.pushed(trial)
        self.deliver_some(tested, "before")
        with exporter_setup.outage():
            tested.record(sample_counter("down.total", {("x",): 3}), *sample_collection())
            tested.end_spans(sample_spans(20, "down"))
            begun = time.monotonic()
            report = tested.flush(0.4)
            assert time.monotonic() - begun < 0.4 + _LATE, "a flush must return within its timeout while the backend is down"
            assert not report.delivered, f"a flush must not say that it has delivered while the backend is down: {report}"
        tested.flush()
        tested.expect(*tested.totals.values())
        tested.expect_spans(tested.delivery.offered, most=1 if not tested.flush().spans_unknown else 2)
        self._end(tested)

    def test_a_backend_that_was_started_again_gets_everything(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "outages")
        tested = self.pushed(trial)
        for number in range(2):
            self.deliver_some(tested, f"life {number}")
            with exporter_setup.outage():
                pass
        # The connection that the exporter has is dead, which it may learn only by using it.
        if "acknowledgements" in exporter_setup.cannot:
            tested.flush()
        tested.end_spans(sample_spans(5, "last life"))
        tested.record(*sample_collection())
        report = tested.flush()
        assert report.delivered or report.spans_unknown, f"after a restart of the backend the exporter must go on: {report}"
        tested.expect(*tested.totals.values())
        tested.expect_spans(tested.delivery.offered, most=2)
        self._end(tested)

    def test_a_backend_that_never_answers_holds_nobody_up(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "stalls")
        tested = self.pushed(trial, export_timeout=0.6)
        self.deliver_some(tested, "before")
        delivers = "flush" if "flush" in tested.hooks.implemented else "export"
        with exporter_setup.stall():
            ended = len(tested.hooks.calls)
            tested.record(*sample_collection())
            tested.end_spans(sample_spans(20, "stalled"))
            begun = time.monotonic()
            report = tested.flush(0.3)
            assert time.monotonic() - begun < 0.3 + _LATE, f"a flush must return within its timeout: {report}"
            # Only then the shutdown: it also ends a hook that waits longer than it may.
            assert wait_for(lambda: any(call.hook.startswith(delivers) for call in tested.hooks.calls[ended:]), 0.6 + _LATE), (
                f"hook {delivers} must return within its timeout of 0.6 s: pass the timeout on to every call"
            )
            begun = time.monotonic()
            report = tested.shutdown(1.2)
            took = time.monotonic() - begun
            assert took < 1.2 + _LATE, f"a shutdown must end within its timeout: it took {took:.1f} s"
            assert report.state == "stopped", f"shutdown must end the hook that waits for the backend: {report}"
        for call in tested.hooks.calls:
            limit = call.arguments.get("timeout")
            assert limit is None or call.seconds < limit + _LATE, (
                f"hook {call.hook} took {call.seconds:.1f} s; its timeout was {limit:.1f} s: pass the timeout on to every call"
            )
        tested.check_account(report)
        tested.check_no_span_more_than(2)

    def test_an_exporter_goes_on_after_calls_that_nobody_answered(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        self.needs(exporter_setup, "stalls")
        tested = self.pushed(trial, export_timeout=0.8)
        self.deliver_some(tested, "before")
        with exporter_setup.stall():
            tested.end_spans(sample_spans(3, "unanswered"))
            tested.record(*sample_collection())
            # Longer than a hook may take: whatever it has waited with must not be used again. A call may also succeed, where
            # the operating system keeps what the receiver has not taken.
            tested.flush(1.2)
        later = sample_spans(5, "later")
        tested.end_spans(later)
        tested.record(sample_counter("later.total", {("x",): 3}))
        tested.flush()
        tested.expect(*tested.totals.values())
        tested.expect_spans(later, most=2)
        self._end(tested)

    def test_a_slow_backend_gets_everything_once(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "stalls")
        tested = self.pushed(trial)
        self.deliver_some(tested, "before")
        with exporter_setup.stall():
            tested.end_spans(sample_spans(20, "slow"))
            tested.record(*sample_collection())
            flushed = threading.Thread(target=tested.flush)
            flushed.start()
            flushed.join(0.4)
        flushed.join()
        tested.deliver()
        tested.expect(*tested.totals.values())
        tested.expect_spans(tested.delivery.offered)
        self._end(tested)

    def test_a_backend_that_asks_for_a_pause_gets_it(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "waits")
        self.deliver_some(tested, "before")
        spans, metrics = sample_spans(5, "busy"), tuple(sample_collection())
        with exporter_setup.busy(_PAUSE):
            tested.end_spans(spans)
            tested.record(*metrics)
            report = tested.flush(_PAUSE / 2)
        assert not report.delivered, f"a flush must not say that it has delivered while the backend refuses: {report}"
        errors = [call.error for call in tested.hooks.calls if call.error is not None]
        assert errors, "what the backend refuses must be an error of a hook"
        for error in errors:
            assert isinstance(error, RetryLater), (
                f"a backend that asks for a pause is no fault: raise RetryLater, not {error!r}"
            )
            after = error.after or 0.0
            assert _PAUSE <= after < _PAUSE + 1.0, (
                f"pass on what the backend asks for: RetryLater(after={_PAUSE:g}), not {after:g}"
            )
        report = tested.flush(max(exporter_setup.patience, 3 * _PAUSE))
        assert report.delivered, f"after the pause everything must be delivered: {report}"
        tested.expect(*tested.totals.values())
        tested.expect_spans(tested.delivery.offered)
        self._end(tested)

    def test_the_account_adds_up_to_the_item_after_everything(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "outages", "spans")
        can_stall = "stalls" not in exporter_setup.cannot
        tested = self.pushed(trial, export_timeout=0.5, span_queue=120)
        for number in range(2):
            self.deliver_some(tested, f"round {number}")
            with exporter_setup.outage():
                # More than the queue holds: some are dropped, and counted.
                tested.end_spans(sample_spans(80, f"round {number} down"))
                tested.flush(0.3)
            if can_stall:
                with exporter_setup.stall():
                    tested.end_spans(sample_spans(30, f"round {number} stalled"))
                    tested.flush(0.3)
        tested.flush()
        report = tested.shutdown()
        assert report.spans_pending == 0, f"after a shutdown nothing may be pending: {report}"
        tested.check_account(report)
        tested.check_no_span_more_than(2)

    def test_a_failure_shows_no_secret(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        """What the reports and logs of the trial contain is looked at when the test ends."""
        self.needs(exporter_setup, "outages")
        if not exporter_setup.secrets:
            pytest.skip("the exporter has no secrets")
        tested = self.pushed(trial)
        self.deliver_some(tested, "before")
        with exporter_setup.outage():
            tested.end_spans(sample_spans(2, "down"))
            tested.record(*sample_collection())
            tested.flush(0.3)
            assert tested.delivery.pipeline.problem or "acknowledgements" in exporter_setup.cannot

    @staticmethod
    def _end(tested: Trial) -> None:
        report = tested.shutdown()
        tested.check_account(report)
        tested.check_no_span_more_than(2)
