"""Forks of a process whose telemetry is running: exporters run on both sides, each with what was recorded there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.forking import CHILD_RECORDS

ROOT = Path(__file__).parents[2]
# 300 in the long run.
CHILDREN = int(os.environ.get("EVENTCORE_FORKS", "20"))


@pytest.fixture(scope="module", params=["def", "async"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the parent said at the end, and the lines of the journal by process."""
    journal = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    command = [sys.executable, "-W", "error", "-m", "tests.pipeline.forking", str(journal), request.param, str(CHILDREN)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + 2 * CHILDREN, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines: dict[int, list[dict[str, Any]]] = {}
    for line in journal.read_text().splitlines():
        written = json.loads(line)
        lines.setdefault(written.pop("pid"), []).append(written)
    said: dict[str, Any] = json.loads(done.stdout)
    return said | {"parent": lines.pop(said["pid"]), "children": list(lines.values())}


def flushed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if "total" in line]


def test_every_child_delivers_what_it_recorded_and_says_so(run: dict[str, Any]) -> None:
    assert run["codes"] == [0] * CHILDREN
    assert len(run["children"]) == CHILDREN
    for lines in run["children"]:
        assert flushed(lines)[-1]["total"] == CHILD_RECORDS
        assert len([span for line in flushed(lines) for span in line["spans"]]) == CHILD_RECORDS


def test_the_parent_loses_nothing_and_delivers_nothing_twice(run: dict[str, Any]) -> None:
    assert run["delivered"]
    spans = [span for line in flushed(run["parent"]) for span in line["spans"]]
    assert (len(spans), len(set(spans))) == (run["recorded"], run["recorded"])
    assert flushed(run["parent"])[-1]["total"] == run["recorded"]


def test_no_span_is_delivered_by_two_processes(run: dict[str, Any]) -> None:
    spans = [span for lines in (run["parent"], *run["children"]) for line in flushed(lines) for span in line["spans"]]
    assert len(spans) == len(set(spans))


def test_every_process_has_an_instance_id_of_its_own(run: dict[str, Any]) -> None:
    instances = [{line["instance"] for line in flushed(lines)} for lines in (run["parent"], *run["children"])]
    assert {len(ids) for ids in instances} == {1}
    assert len(set.union(*instances)) == 1 + CHILDREN


def test_an_exporter_starts_in_the_child_as_it_was_made(run: dict[str, Any]) -> None:
    assert not any(line["inherited"] for lines in run["children"] for line in flushed(lines))


def test_an_exporter_is_asked_to_prepare_before_each_fork(run: dict[str, Any]) -> None:
    assert sum("prepared" in line for line in run["parent"]) == CHILDREN


def test_a_child_that_a_hook_forks_runs_no_exporter_and_says_so(tmp_path: Path) -> None:
    journal = tmp_path / "started"
    command = [sys.executable, "-m", "tests.pipeline.forking_hook", str(journal)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    said = json.loads(done.stdout)
    # The child's own `start` would fork again, and that of its child, without an end.
    assert journal.read_text().split() == [str(said["pid"])]
    assert said["child"] == "NOT delivered: forked by a hook"
    assert said["delivered"]
