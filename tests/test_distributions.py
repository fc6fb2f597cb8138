"""What the installed distributions say of themselves: true of the tree and of the wheels."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

import eventcore

NAMES = {"eventcore-core": "eventcore", "eventcore-otel": "eventcore_otel", "eventcore-prometheus": "eventcore_prometheus"}
EXPORTERS = {
    "eventcore-core": {"console": "eventcore.exporting.console:ConsoleExporter"},
    "eventcore-otel": {"otel": "eventcore_otel:OpenTelemetryExporter"},
    "eventcore-prometheus": {"prometheus": "eventcore_prometheus:PrometheusExporter"},
}


@pytest.fixture(params=NAMES)
def installed(request: pytest.FixtureRequest) -> Distribution:
    try:
        return distribution(request.param)
    except PackageNotFoundError:
        pytest.skip(f"{request.param} is not installed")


def test_it_brings_its_exporter(installed: Distribution) -> None:
    found = installed.entry_points.select(group="eventcore.exporters")
    assert {one.name: one.value for one in found} == EXPORTERS[installed.name]
    assert all(callable(one.load()) for one in found)


def test_it_is_typed(installed: Distribution) -> None:
    spec = find_spec(NAMES[installed.name])
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).with_name("py.typed").is_file()


def test_it_says_its_licence_and_which_pythons_it_runs_on(installed: Distribution) -> None:
    metadata = installed.metadata
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_a_plugin_floors_its_core_and_caps_the_next_major(installed: Distribution) -> None:
    required = [one for one in installed.requires or () if one.startswith("eventcore-core")]
    assert required == ([] if installed.name == "eventcore-core" else ["eventcore-core<1,>=0.1"])


def test_core_needs_two_packages_and_offers_the_rest() -> None:
    required = distribution("eventcore-core").requires or []
    assert sorted(one for one in required if "extra ==" not in one) == ["msgspec>=0.20", "pluggy>=1.7"]
    assert distribution("eventcore-core").metadata.get_all("Provides-Extra") == [
        "all-exporters",
        "logs",
        "otel",
        "postgres",
        "prometheus",
    ]


def test_the_version_stands_in_one_place() -> None:
    assert distribution("eventcore-core").version == eventcore.__version__
    command = Path(sys.executable).with_name("eventcore")
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert eventcore.__version__ in shown.stdout
