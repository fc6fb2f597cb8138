"""The limits of size: what a reader can keep in mind. ``python -m tests.structure`` prints the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from tests.structure import modules, rooms

# The shape of the tree does not depend on the interpreter.
pytestmark = pytest.mark.once

MODULES: Final = modules()

LINES_OF_A_MODULE: Final = 500
LINES_OF_A_FUNCTION: Final = 50
ATTRIBUTES_OF_A_CLASS: Final = 15
ENTRIES_OF_A_FOLDER: Final = 12
# A change that adds a function may raise this number, and says so; nothing else may.
LINES_OF_CODE: Final = 22_700

ENTRIES_OF_CERTAIN_FOLDERS: Final[Mapping[str, int]] = {
    # Layers that are one module each, and one folder for each other layer.
    "eventcore": 18,
}
ATTRIBUTES_OF_CERTAIN_CLASSES: Final[Mapping[str, int]] = {
    # One attribute for each key of a table of the configuration.
    "eventcore.exporting.delivery.settings.PipelineSettings": 16,
    # Public data that every exporter reads: the fields of a span in OpenTelemetry's model, flat as an exporter encodes them.
    "eventcore.recording.values.SpanData": 18,
    # The same fields while the operation runs. An object for some of them would be allocated on the hot path.
    "eventcore.recording.spans.span.Span": 19,
}


def too_big(sizes: Mapping[str, int], limit: int, exceptions: Mapping[str, int] | None = None) -> dict[str, int]:
    limits = exceptions or {}
    return {name: size for name, size in sizes.items() if size > limits.get(name, limit)}


def test_no_module_has_more_than_500_lines() -> None:
    assert too_big({module.name: module.lines for module in MODULES}, LINES_OF_A_MODULE) == {}


def test_no_function_has_more_than_50_lines_beside_its_docstring() -> None:
    sizes = {f"{module.name}.{name}": size for module in MODULES for name, size in module.functions.items()}
    assert too_big(sizes, LINES_OF_A_FUNCTION) == {}


def attributes() -> dict[str, int]:
    return {f"{module.name}.{name}": size for module in MODULES for name, size in module.attributes.items()}


def test_no_class_has_more_than_15_attributes() -> None:
    assert too_big(attributes(), ATTRIBUTES_OF_A_CLASS, ATTRIBUTES_OF_CERTAIN_CLASSES) == {}


def test_no_folder_has_more_than_12_modules_and_folders() -> None:
    assert too_big(rooms(), ENTRIES_OF_A_FOLDER, ENTRIES_OF_CERTAIN_FOLDERS) == {}


@pytest.mark.parametrize(
    ("sizes", "limit", "exceptions"),
    [
        pytest.param(attributes(), ATTRIBUTES_OF_A_CLASS, ATTRIBUTES_OF_CERTAIN_CLASSES, id="classes"),
        pytest.param(rooms(), ENTRIES_OF_A_FOLDER, ENTRIES_OF_CERTAIN_FOLDERS, id="folders"),
    ],
)
def test_every_exception_is_still_needed(sizes: Mapping[str, int], limit: int, exceptions: Mapping[str, int]) -> None:
    assert {name for name in exceptions if sizes.get(name, 0) <= limit} == set()


def test_core_does_not_grow_in_lines_of_code() -> None:
    assert sum(module.code for module in MODULES) <= LINES_OF_CODE
