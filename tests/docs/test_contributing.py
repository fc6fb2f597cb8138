"""What CONTRIBUTING.md, SECURITY.md and the hooks of pre-commit say is true of the repository."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def sessions() -> set[str]:
    """The names of nox's sessions."""
    found = set()
    for node in ast.parse((ROOT / "noxfile.py").read_text()).body:
        if isinstance(node, ast.FunctionDef) and any("nox.session" in ast.unparse(one) for one in node.decorator_list):
            named = re.search(r"name='([\w-]+)'", ast.unparse(node.decorator_list[0]))
            found.add(named[1] if named else node.name)
    return found


def test_the_table_of_sessions_is_complete() -> None:
    table = CONTRIBUTING.split("## Sessions")[1].split("\n\n")[1]
    listed = {name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert listed == sessions() - {"checks"}


def test_sessions_that_scripts_and_documents_run_exist() -> None:
    sources = [CONTRIBUTING, *(path.read_text() for path in (ROOT / ".ci").iterdir()), (ROOT / "README.md").read_text()]
    named = {
        name for text in sources for name in re.findall(r"^(?:\$ python3 run\.py|\s*session) ([\w-]+)", text, re.MULTILINE)
    }
    assert named
    assert named <= sessions()


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_the_links_of_a_page_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text()):
        assert "://" in target or (ROOT / target).exists(), f"{name} links to {target}"


def test_every_folder_of_tests_is_in_the_table() -> None:
    table = CONTRIBUTING.split("## Tests")[1].split("\n\n")[2]
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py")) and path.name != "__pycache__"}
    assert folders <= listed


def test_pre_commit_runs_the_pinned_ruff() -> None:
    [pinned] = re.findall(r"^ruff==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"ruff==[\d.]+", (ROOT / ".pre-commit-config.yaml").read_text())) == {pinned}
