"""The tutorial of ``docs/exporters.md`` ends with a green contract, and its reference says what the code says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.reference import METRICS, OTHERS, PAGE, SPANS, hooks, meanings_of_fields, reference


def test_the_reference_is_that_of_the_code() -> None:
    assert reference() in PAGE.read_text(), "run `python -m tests.docs.reference` and look at what has changed"


def test_every_field_that_an_exporter_gets_has_a_meaning() -> None:
    missing = {
        f"{struct.__name__}.{name}"
        for struct in (*METRICS, *SPANS, *OTHERS)
        for name, meaning in meanings_of_fields(struct).items()
        if not meaning
    }
    assert missing == set(), "describe them under `Attributes:` in the docstring of their class"


def test_every_time_says_its_unit() -> None:
    fields = {(s.__name__, n): m for s in (*METRICS, *SPANS) for n, m in meanings_of_fields(s).items() if n.endswith("_ns")}
    assert len(fields) >= 8
    assert [name for name, meaning in fields.items() if "nanoseconds since the Unix epoch" not in meaning] == []


def test_the_diagram_shows_every_hook() -> None:
    texts = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    [diagram] = [text for text in texts if "►" in text]
    shown = set(re.findall(r"[a-z]+(?:_[a-z]+)*", diagram))
    assert {name for name in hooks() if name != "trace_context"} - shown == set()


@pytest.mark.once
@pytest.mark.timeout(150)
def test_the_tutorial_ends_with_a_green_contract(tmp_path: Path) -> None:
    files = re.findall(r"^```py\n# (\S+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["lines_exporter.py", "test_lines_exporter.py"]
    for name, text in files:
        (tmp_path / name).write_text(text)

    def outcome() -> str:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "counter_arrives or declared",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=55, check=False)
        return done.stdout.splitlines()[-1]

    assert re.match(r"\d+ passed", green := outcome()), green
    # What the page says happens with numbers that are rounded.
    source = tmp_path / "lines_exporter.py"
    assert "point.value}" in source.read_text()
    source.write_text(source.read_text().replace("point.value}", "round(point.value)}"))
    assert "failed" in outcome()
