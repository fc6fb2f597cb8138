"""The documentation and ``HELP`` come from the catalogue."""

from __future__ import annotations

from eventcore import Telemetry
from eventcore.catalogue import CATALOGUE
from eventcore.catalogue.metrics import GROUPS
from tests.catalogue import generate


def test_the_tables_of_the_documentation_are_up_to_date() -> None:
    text = generate.PAGE.read_text()
    assert text == generate.page(text), "run python -m tests.catalogue.generate"


def test_an_instrument_has_the_description_of_its_metric() -> None:
    telemetry = Telemetry(exporters="none")
    for group in GROUPS:
        instruments = group(telemetry)
        for attribute, metric in group.metrics().items():
            assert getattr(instruments, attribute).description == metric.description


def test_every_description_is_a_sentence_that_fits_a_table_and_help() -> None:
    for metric in CATALOGUE.values():
        text = metric.description
        assert text.endswith(".")
        assert text[0].isupper() or text[0].isdigit()
        assert not set("|\n\\`") & set(text)


def test_a_group_has_every_metric_once_and_its_attribute_says_which() -> None:
    metrics = [metric for group in GROUPS for metric in group.metrics().values()]
    assert len(metrics) == len({metric.name for metric in metrics}) == len(CATALOGUE)
    for group in GROUPS:
        for attribute, metric in group.metrics().items():
            assert metric.name.replace(".", "_").endswith(attribute)
