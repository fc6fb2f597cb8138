"""The contract of exporters: nothing that it is given is changed, and no secret is shown."""

from __future__ import annotations

import inspect

from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial, check_no_secret
from eventcore.testing.exporters.samples import sample_collection, sample_spans
from eventcore.testing.exporters.setup import ExporterSetup


class HygieneContract(ContractFixtures):
    """Tests of what an exporter must leave alone."""

    def test_nothing_that_a_hook_is_given_is_changed(self, trial: StartTrial) -> None:
        tested = trial()
        metrics, spans = tuple(sample_collection()), sample_spans(5)
        before = repr(metrics), repr(spans)
        tested.record(*metrics)
        tested.end_spans(spans)
        tested.deliver()
        tested.expect(*metrics)
        assert (repr(metrics), repr(spans)) == before, "values are shared with other exporters and must not be changed"
        assert not tested.hooks.changed, f"a hook must not change what it is given: {tested.hooks.changed[0]}"

    def test_no_secret_is_in_the_text_of_the_exporter(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        tested = trial()
        tested.delivery.wait_started()
        exporter = tested.delivery.exporter
        check_no_secret(exporter_setup, "repr()", repr(exporter))
        check_no_secret(exporter_setup, "str()", f"{exporter}")
        check_no_secret(
            exporter_setup, "the repr of its attributes (keep secrets as Secret)", repr(getattr(exporter, "__dict__", ""))
        )

    def test_a_setting_that_is_a_secret_has_its_text_in_the_setup(self, exporter_setup: ExporterSetup) -> None:
        factory = type(exporter_setup.make())
        parameters = inspect.signature(factory).parameters.values()
        secret = [parameter.name for parameter in parameters if "Secret" in str(parameter.annotation)]
        assert exporter_setup.secrets or not secret, (
            f"{factory.__name__} takes the secret {', '.join(secret)}: let `make` give it one, and name its text in `secrets`, "
            "so that the tests see whether it is shown anywhere"
        )
