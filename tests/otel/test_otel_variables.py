"""The table of ``OTEL_*`` variables in the documentation, held against the SDK's own lists and against the code."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, NamedTuple

import pytest

from eventcore.exporting.configuration.standard import from_standard_variables
from eventcore_otel.settings import Parameters, Settings
from tests.otel import conformance

# An endpoint without a scheme, for which certificates and OTEL_EXPORTER_OTLP_INSECURE have a meaning.
GIVEN: Final = {"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}
# Of the specification, and not yet in the SDK's lists.
MORE: Final = {"OTEL_EXPERIMENTAL_CONFIG_FILE"}


class Row(NamedTuple):
    """One variable of the table."""

    name: str
    by: str
    example: str
    text: str


def rows() -> list[Row]:
    table = conformance.PAGE.read_text().split("## Standard variables")[1].split("## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")]
    return [
        Row(name, by, example.strip("`"), text)
        for names, by, example, text in cells
        for name in re.findall(r"`(OTEL_\w+)`", names)
    ]


ROWS: Final = rows()


def known_to_the_sdk() -> set[str]:
    """Every variable in the lists that the SDK's distributions publish."""
    modules = [found.load() for found in entry_points(group="opentelemetry_environment_variables")]
    modules += [import_module("opentelemetry.environment_variables"), import_module("opentelemetry.sdk.environment_variables")]
    return {name for module in modules for name in vars(module) if name.startswith("OTEL_")}


def test_every_variable_that_the_sdk_knows_is_in_the_table_once() -> None:
    names = [row.name for row in ROWS]
    assert sorted(names) == sorted(set(names))
    assert set(names) == known_to_the_sdk() | MORE


def test_every_row_says_who_follows_the_variable() -> None:
    assert {row.by for row in ROWS} == {"core", "exporter", "SDK exporter", "library", "no"}
    assert all(row.text for row in ROWS)


@pytest.mark.parametrize("row", [row for row in ROWS if row.by == "exporter"], ids=lambda row: row.name)
def test_what_the_exporter_follows_changes_its_settings(row: Row) -> None:
    assert Settings.resolve(Parameters(), {**GIVEN, row.name: row.example}) != Settings.resolve(Parameters(), GIVEN)


@pytest.mark.parametrize("row", [row for row in ROWS if row.by == "core"], ids=lambda row: row.name)
def test_what_core_follows_changes_its_settings(row: Row) -> None:
    given = {"OTEL_TRACES_SAMPLER": "traceidratio"} if row.name.endswith("_ARG") else {}
    assert from_standard_variables({**given, row.name: row.example}) != from_standard_variables(given)
    assert Settings.resolve(Parameters(), {row.name: row.example}) == Settings.resolve(Parameters(), {})


@pytest.mark.parametrize("row", [row for row in ROWS if row.by in ("no", "library", "SDK exporter")], ids=lambda row: row.name)
def test_what_eventcore_does_not_follow_changes_nothing(row: Row) -> None:
    assert Settings.resolve(Parameters(), {row.name: row.example}) == Settings.resolve(Parameters(), {})
    assert from_standard_variables({row.name: row.example}) == ({}, [])


@pytest.mark.conforms("Variables", "A value that cannot be understood is a warning, and counts as not set.")
@pytest.mark.parametrize("garbage", ["\x7f", "-1", "=,=;", "none\u2003", "9" * 400, "http://[", "%ff=%ff,a", "1e999"])
def test_no_value_of_any_variable_raises_and_each_is_at_most_one_warning(garbage: str) -> None:
    for name in {row.name for row in ROWS}:
        warnings = Settings.resolve(Parameters(), {**GIVEN, name: garbage}).warnings
        assert len(warnings) <= 1
        assert all(warning.startswith(name) for warning in warnings)
        _, problems = from_standard_variables({name: garbage})
        assert all(problem.startswith(name) for problem in problems)


def test_the_conformance_table_is_up_to_date() -> None:
    text = conformance.PAGE.read_text()
    assert text == conformance.page(text), "run python -m tests.otel.conformance"
