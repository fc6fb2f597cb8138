"""Helpers for tests of an application's commands and telemetry, and tests for backends and exporters.

``given(...).when(command).then(...)`` tests what a command decides, without a store.

``StoreContract`` and ``ProjectionContract`` are the tests that every store must pass, and ``ExporterContract`` those that every
exporter must pass. To run them on one of your own, derive a class from them and override one fixture. They need pytest, and
those of stores pytest-asyncio, which are imported on first use.

``RecordingTelemetry`` and ``RecordingExporter`` keep what was recorded, and check it by ``assert_counter`` and its like. The
fixtures ``telemetry`` and ``clock`` are in the pytest plugin ``eventcore.testing.exporters.fixtures``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from eventcore.testing.exporters import (
    LIMITS,
    ExporterSetup,
    MovableClock,
    Received,
    ReceivedEvent,
    ReceivedExemplar,
    ReceivedLink,
    ReceivedPoint,
    ReceivedSpan,
    RecordingExporter,
    RecordingTelemetry,
    TelemetryAssertions,
    exporter_context,
    sample_collection,
    sample_counter,
    sample_gauge,
    sample_histogram,
    sample_span,
    sample_spans,
)
from eventcore.testing.scenario import Given, When, given

if TYPE_CHECKING:
    from eventcore.testing.contract import MakeBackend, ProjectionContract, ReadModel, StoreContract
    from eventcore.testing.exporters.contract import ExporterContract

__all__ = [
    "LIMITS",
    "ExporterContract",
    "ExporterSetup",
    "Given",
    "MakeBackend",
    "MovableClock",
    "ProjectionContract",
    "ReadModel",
    "Received",
    "ReceivedEvent",
    "ReceivedExemplar",
    "ReceivedLink",
    "ReceivedPoint",
    "ReceivedSpan",
    "RecordingExporter",
    "RecordingTelemetry",
    "StoreContract",
    "TelemetryAssertions",
    "When",
    "exporter_context",
    "given",
    "sample_collection",
    "sample_counter",
    "sample_gauge",
    "sample_histogram",
    "sample_span",
    "sample_spans",
]

_STORES: Final = "eventcore.testing.contract"
_EXPORTERS: Final = "eventcore.testing.exporters.contract"
# The module and the packages that its import needs, by the name that is looked up here.
_LAZY: Final = MappingProxyType(
    {
        **dict.fromkeys(
            ("MakeBackend", "ProjectionContract", "ReadModel", "StoreContract"), (_STORES, ("pytest", "pytest_asyncio"))
        ),
        "ExporterContract": (_EXPORTERS, ("pytest",)),
    }
)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, needed = _LAZY[name]
    try:
        pytest, *_ = [import_module(package) for package in needed]
    except ImportError as error:
        packages = [package.replace("_", "-") for package in needed]
        raise ImportError(
            f"{__name__}.{name} needs {' and '.join(packages)}: pip install {' '.join(packages)}", name=error.name
        ) from error
    if module not in sys.modules:
        # Must come before the import. With it, pytest shows the values that a failed assertion compared.
        pytest.register_assert_rewrite(module)
    return getattr(import_module(module), name)
