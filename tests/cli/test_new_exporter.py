"""``eventcore new-exporter``: what it writes, and what it refuses. That the result works is tested in ``tests/examples``."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

import pytest

from eventcore.cli import main

FILES = {
    "README.md",
    "pyproject.toml",
    "src/eventcore_two_words/__init__.py",
    "src/eventcore_two_words/encoding.py",
    "src/eventcore_two_words/exporter.py",
    "src/eventcore_two_words/py.typed",
    "tests/receiver.py",
    "tests/test_exporter.py",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new_exporter(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["new-exporter", *arguments])
    printed = capsys.readouterr()
    assert not (printed.out and printed.err)
    return code, printed.out or printed.err


def test_a_whole_distribution_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = new_exporter(capsys, "two_words", "--json")
    answer = json.loads(shown)
    assert (code, answer["ok"], set(answer["files"])) == (0, True, FILES)
    project = folder / "eventcore-two-words"
    assert {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()} == FILES
    for path in project.rglob("*.py"):
        ast.parse(path.read_text())
    assert not [
        path
        for path in project.rglob("*")
        if path.is_file()
        and "@" in path.read_text().replace("@hookimpl", "").replace("@pytest", "").replace("@contextmanager", "")
    ]
    metadata = tomllib.loads((project / "pyproject.toml").read_text())
    assert metadata["project"]["entry-points"]["eventcore.exporters"] == {"two_words": "eventcore_two_words:TwoWordsExporter"}
    assert metadata["project"]["dependencies"] == ["eventcore-core>=0.1"]


def test_the_text_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = new_exporter(capsys, "graphite", "--directory", "here")
    assert code == 0
    assert "cd here" in shown
    assert "pip install -e '.[test]'" in shown


def test_core_that_was_installed_from_a_clone_is_installed_from_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = tmp_path / "eventcore_core-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: eventcore-core\nVersion: 0.1.0\n")
    (installed / "direct_url.json").write_text('{"url": "file:///home/me/my%20clone/eventcore-core", "dir_info": {}}')
    monkeypatch.syspath_prepend(tmp_path)
    _, shown = new_exporter(capsys, "graphite", "--directory", "here")
    assert "pip install '/home/me/my clone/eventcore-core'\n  pip install -e '.[test]'" in shown


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Graphite", "does not fit; expected a-z"),
        ("all", "is reserved"),
        ("console", "eventcore-core has a plugin 'console' already"),
        ("otel", "eventcore-otel has a plugin 'otel' already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, problem: str
) -> None:
    code, shown = new_exporter(capsys, name)
    assert code == 2
    assert problem in shown
    assert list(folder.iterdir()) == []


def test_nothing_that_exists_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "eventcore-graphite").mkdir()
    (folder / "eventcore-graphite" / "mine.txt").write_text("mine")
    code, shown = new_exporter(capsys, "graphite")
    assert code == 2
    assert "exists and is not empty; nothing was written" in shown
    assert [path.name for path in (folder / "eventcore-graphite").iterdir()] == ["mine.txt"]
