"""The contract of exporters: backends that reject a part, refuse some requests of a cycle, or take one and do not say so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import pytest

from eventcore.exporting import GiveUp, Rejected, RetryLater, SpanData
from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial, Trial, check_no_secret
from eventcore.testing.exporters.delivery import wait_for
from eventcore.testing.exporters.samples import SCOPES, sample_collection, sample_span, sample_spans
from eventcore.testing.exporters.setup import ExporterSetup

LONGEST_REASON: Final = 1000
"""How many characters the reason of a ``Rejected``, ``RetryLater`` or ``GiveUp`` may have: it is shown and logged."""

_SAID: Final = "no room for this today"
_REJECTED: Final = 2
# Spans that make several requests of an exporter whose requests are bounded: in all more than 4 MB, a usual limit of backends.
_LARGE: Final = 80_000
_MANY: Final = 60


class RefusalContract(ContractFixtures):
    """Tests of backends that do not take everything."""

    @pytest.mark.parametrize("length", [0, 5 * LONGEST_REASON], ids=["shortly", "at length"])
    def test_what_the_backend_rejects_is_counted_to_the_item(
        self, exporter_setup: ExporterSetup, trial: StartTrial, length: int
    ) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "rejections")
        spans, metrics = sample_spans(10, "some rejected"), tuple(sample_collection())
        # Some backends repeat the token that they were given.
        reason = f"{_SAID}: {' '.join(exporter_setup.secrets[:1])} {'x ' * (length // 2)}".strip()
        with exporter_setup.reject(_REJECTED, reason):
            tested.end_spans(spans)
            tested.record(*metrics)
            report = tested.flush()
        self._check_reasons(tested, _SAID)
        if "spans" in tested.hooks.kinds:
            missing = len(spans) - len(tested.arrivals())
            assert report.spans_dropped.get("rejected", 0) == missing >= _REJECTED, (
                f"the backend has rejected {missing} spans: return Rejected({missing}, reason). {report}"
            )
        if names := {exporter_setup.metric_name(data) for data in metrics if data.name in tested.totals}:
            there = sum(point.name in names for point in exporter_setup.received().points)
            missing = sum(len(data.points) for data in metrics if data.name in tested.totals) - there
            assert report.points_rejected == missing >= _REJECTED, (
                f"the backend has rejected {missing} points: return Rejected({missing}, reason). {report}"
            )
        assert not report.delivered, f"what was rejected was not delivered: {report}"
        # Nothing is sent again, and everything that comes later is taken.
        tested.end_spans(later := sample_spans(3, "later"))
        tested.deliver()
        tested.expect_spans(later)
        if tested.hooks.temporality == "cumulative":
            tested.expect(*metrics)
        tested.check_account(tested.shutdown())
        tested.check_no_span_more_than(1)

    def test_what_a_backend_says_although_it_took_everything_is_logged_once(
        self, exporter_setup: ExporterSetup, trial: StartTrial, caplog: pytest.LogCaptureFixture
    ) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "rejections")
        with exporter_setup.reject(0, _SAID):
            for number in range(3):
                tested.end_spans(sample_spans(2, f"taken {number}"))
                tested.record(*sample_collection())
                report = tested.flush()
                assert report.delivered, f"what the backend says is no failure when it took everything: {report}"
                assert not report.points_rejected, f"the backend took everything: {report}"
        said = [record for record in caplog.records if _SAID in record.getMessage() and record.levelno >= logging.WARNING]
        # Each of the two signals may have its own record.
        assert len(said) <= 2, f"the backend repeats itself in each answer; the exporter must not: {len(said)} records"
        tested.expect_spans(tested.delivery.offered)
        tested.check_account(tested.shutdown())

    def test_a_cycle_whose_later_requests_are_refused_arrives_whole_and_once(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "refusals")
        spans = _large_spans()
        with exporter_setup.refuse(1, _SAID, for_good=False):
            tested.end_spans(spans)
            self._flush_until_refused(tested)
        report = tested.flush()
        assert report.delivered, f"a backend that was not ready must get everything when it is: {report}"
        tested.expect_spans(spans)
        report = tested.shutdown()
        expected = len(spans) if "spans" in tested.hooks.kinds else 0
        assert report.spans_exported == expected, f"each span was taken once: {report}"
        tested.check_account(report)
        self._check_reasons(tested)

    def test_what_is_refused_for_good_is_counted_and_what_was_taken_before_is_not(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "refusals")
        with exporter_setup.refuse(1, _SAID, for_good=False):
            tested.end_spans(_large_spans())
            self._flush_until_refused(tested)
        refused = sample_spans(3, "refused")
        with exporter_setup.refuse(0, f"{_SAID} {'x ' * LONGEST_REASON}", for_good=True):
            tested.end_spans(refused)
            settled = wait_for(lambda: tested.flush(1.0).spans_pending == 0, exporter_setup.patience)
            tested.record(*sample_collection())
            report = tested.flush(1.0)
        assert settled, f"what the backend will never take must not be kept: raise GiveUp, or return Rejected. {report}"
        assert not report.delivered, f"what was refused was not delivered: {report}"
        self._check_reasons(tested)
        if "spans" in tested.hooks.kinds:
            arrived = len(tested.arrivals())
            assert report.spans_dropped.get("rejected", 0) >= len(refused), f"the backend has refused them: {report}"
            assert report.spans_exported <= arrived <= report.spans_exported + report.spans_unknown, (
                f"{arrived} spans are in the backend, which took some before it refused the others: {report}"
            )
        tested.end_spans(later := sample_spans(3, "later"))
        tested.flush()
        tested.expect_spans(later)
        tested.check_account(tested.shutdown())
        tested.check_no_span_more_than(1)

    def test_a_request_whose_answer_is_missing_may_have_arrived(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "cuts", "spans")
        self.deliver_some(tested, "before")
        cut = sample_spans(5, "cut")
        with exporter_setup.cut():
            tested.end_spans(cut)
            wait_for(
                lambda: not tested.flush(0.5).spans_pending or max(tested.arrivals().values()) > 2, exporter_setup.patience
            )
        report = tested.flush()
        often = max(tested.arrivals().values())
        assert often <= 2, (
            f"a span arrived {often} times: a request whose answer did not come may have arrived; "
            "raise RetryLater(outcome_unknown=True), and it is sent once more only"
        )
        assert report.spans_unknown == len(cut), f"nobody knows of these spans whether they have arrived: {report}"
        tested.end_spans(later := sample_spans(3, "later"))
        tested.flush()
        tested.expect_spans(later, most=2)
        tested.check_account(tested.shutdown())

    @staticmethod
    def _flush_until_refused(tested: Trial) -> None:
        """Flush until a request was refused, or one was enough for everything."""

        def is_refused() -> bool:
            return tested.flush(0.2).delivered or any(call.error is not None for call in tested.hooks.calls)

        assert wait_for(is_refused, tested.setup.patience), "what the backend refuses must be an error of a hook"

    @staticmethod
    def _check_reasons(tested: Trial, said: str = "") -> None:
        """Check what the exporter says of refusals: not too long, without secrets, with the backend's words."""
        for call in list(tested.hooks.calls):
            for each in (call.answer, call.error):
                if not isinstance(each, Rejected | RetryLater | GiveUp):
                    continue
                reason = each.reason
                check_no_secret(tested.setup, "a reason", reason)
                assert len(reason) <= LONGEST_REASON, f"cut what the backend says: a reason has {len(reason)} characters"
                assert said in reason, f"the reason must say what the backend says, {said!r}; it is {reason!r}"


def _large_spans() -> Sequence[SpanData]:
    """Spans of several scopes, that are too large for one request."""
    text = "large " * (_LARGE // 6)
    return [
        sample_span(f"large {number}", attributes=(("text", text),), scope=SCOPES[number % len(SCOPES)])
        for number in range(_MANY)
    ]
