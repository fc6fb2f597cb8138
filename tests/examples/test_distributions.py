"""The examples are found by their entry points, import nothing of core but ``eventcore.exporting``, and are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.test_imports import imports_of

pytestmark = pytest.mark.once

EXAMPLES = ["influx", "statsd"]


@pytest.fixture(params=EXAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(f"eventcore_{request.param}", reason="`run.py authors` installs it")
    return str(request.param)


def test_it_imports_nothing_of_core_but_exporting(name: str) -> None:
    [folder] = pytest.importorskip(f"eventcore_{name}").__path__
    sources = list(Path(folder).rglob("*.py"))
    assert len(sources) >= 3
    imported = {module for source in sources for module in imports_of(source) if module.split(".")[0] == "eventcore"}
    assert imported == {"eventcore.exporting"}
    assert (Path(folder) / "py.typed").is_file()


def test_it_is_found_by_its_entry_point_and_shows_its_settings(name: str, tmp_path: Path) -> None:
    found = distribution(f"eventcore-{name}")
    assert [one.name for one in found.entry_points.select(group="eventcore.exporters")] == [name]
    environment = {**os.environ, "EVENTCORE_EXPORTERS": name}
    command = [sys.executable, "-m", "eventcore", "plugins", name, "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["exporter"]["distribution"], answer["exporter"]["state"]) == (f"eventcore-{name}", "loaded")
    assert answer["exporter"]["kinds"] == ["counters", "gauges", "histograms"]
    assert len(answer["settings"]) >= 6
