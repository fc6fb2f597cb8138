"""The contract of exporters: secrets and certificates that change while the exporter runs, or cannot be read."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial
from eventcore.testing.exporters.delivery import NAME
from eventcore.testing.exporters.samples import sample_collection, sample_counter, sample_spans
from eventcore.testing.exporters.setup import ExporterSetup


class RotationContract(ContractFixtures):
    """Tests of secrets and certificates that change."""

    def test_secrets_that_change_are_followed_without_loss(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "rotations")
        self.deliver_some(tested, "before")
        for number in range(2):
            exporter_setup.rotate()
            spans = sample_spans(5, f"rotated {number}")
            tested.end_spans(spans)
            tested.record(sample_counter(f"rotated.{number}.total"), *sample_collection())
            report = tested.flush()
            assert report.delivered or report.spans_unknown, (
                f"the receiver accepts new secrets only: look for them again when it refuses those of before. {report}"
            )
            refused = report.points_rejected + report.spans_dropped.get("rejected", 0)
            assert not refused, f"nothing may be given up before the new secrets were tried: {report}"
            tested.expect_spans(spans, most=2)
            tested.expect(*tested.totals.values())
        tested.check_account(tested.shutdown())

    def test_while_new_secrets_cannot_be_read_those_of_before_are_used(
        self, exporter_setup: ExporterSetup, trial: StartTrial, caplog: pytest.LogCaptureFixture
    ) -> None:
        tested = self.pushed(trial)
        self.needs(exporter_setup, "lost_secrets")
        self.deliver_some(tested, "before")
        logged = len(caplog.records)
        with exporter_setup.lose_secrets():
            for number in range(3):
                tested.end_spans(sample_spans(2, f"lost {number}"))
                tested.record(*sample_collection())
                report = tested.flush()
                assert report.delivered, f"the secrets that the exporter has are valid; it must go on with them: {report}"
        mine = [record for record in caplog.records[logged:] if record.name == f"eventcore.exporters.{NAME}"]
        warnings = Counter(record.getMessage() for record in mine if record.levelno >= logging.WARNING)
        assert warnings, "somebody must hear that secrets cannot be read, before the old ones expire: log a warning"
        [(message, times)] = warnings.most_common(1)
        assert times == 1, f"the same warning is logged once, and not {times} times: {message}"
        exporter_setup.rotate()
        tested.end_spans(sample_spans(2, "found"))
        tested.flush()
        tested.expect_spans(tested.delivery.offered, most=2)
        tested.check_account(tested.shutdown())
