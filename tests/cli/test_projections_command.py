"""``eventcore projections``, run as a process of its own on stores that an application has left."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eventcore import open_store
from tests.projections.models import deposit

ROOT = Path(__file__).parents[2]
# The working directory of a command that is installed is not on its path; what the tests import is.
_PROGRAM = f"import sys; sys.path[0] = {str(ROOT)!r}; from eventcore.cli import main; sys.exit(main())"
_APPLICATION = """
from eventcore import OnError, Projection
import tests.store.bank

class Numbers(Projection):
    name = "numbers"
    on_error = OnError(retries=0, then="dead_letter")

    def handle(self, event):
        if event.position in {poison}:
            raise ValueError(f"poison at {{event.position}}\\nand more")

numbers = Numbers()
nothing = 7
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


def application(directory: Path, poison: set[int]) -> None:
    (directory / "shop.py").write_text(_APPLICATION.format(poison=poison or "()"))


def eventcore(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, "projections", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


def answer(directory: Path, *arguments: str) -> tuple[int, Any]:
    done = eventcore(directory, *arguments, "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def shop(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an application, whose projection has put two of five events aside."""
    application(tmp_path, {2, 4})
    names: dict[str, Any] = {}
    exec((tmp_path / "shop.py").read_text(), names)

    async def live() -> None:
        async with open_store(url, exporters=[]) as store:
            running = asyncio.create_task(store.run(names["numbers"]))
            await store.wait_for("numbers", await deposit(store, 5))
        await running

    asyncio.run(live())
    return tmp_path


def test_projections_are_listed_with_how_far_they_are(shop: Path, url: str) -> None:
    code, found = answer(shop, "list", url)
    assert (code, found) == (
        0,
        {
            "version": 1,
            "ok": True,
            "error": None,
            "head": 5,
            "projections": [
                {"name": "numbers", "position": 5, "lag": 0, "owner": "", "lease_left": 0.0, "dead_letters": 2},
            ],
        },
    )
    done = eventcore(shop, "list", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()[:2]] == [
        ["projection", "position", "lag", "dead", "letters", "run", "by"],
        ["numbers", "5", "0", "2", "nobody"],
    ]


def test_dead_letters_are_listed_with_their_errors(shop: Path, url: str) -> None:
    code, found = answer(shop, "dead-letters", "numbers", url)
    assert code == 1
    assert [(one["position"], one["error_type"], one["error"], one["attempts"]) for one in found["dead_letters"]] == [
        (2, "ValueError", "poison at 2\nand more", 1),
        (4, "ValueError", "poison at 4\nand more", 1),
    ]
    assert all(one["failed_at"].endswith("+00:00") for one in found["dead_letters"])
    assert [(one["stream"], one["event_type"]) for one in found["dead_letters"]] == [("account-a", "bank.Deposited")] * 2
    done = eventcore(shop, "dead-letters", "numbers", url)
    assert (done.returncode, done.stderr) == (1, "")
    assert "ValueError: poison at 4" in done.stdout


def test_dead_letters_that_can_be_applied_now_are_gone_after_a_retry(shop: Path, url: str) -> None:
    application(shop, {4})
    code, found = answer(shop, "retry", "numbers", url, "--import", "shop:Numbers")
    assert (code, found["applied"], [one["position"] for one in found["remaining"]]) == (1, [2], [4])
    application(shop, set())
    done = eventcore(shop, "retry", "numbers", url, "--import", "shop:numbers")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 applied, 0 remaining\n", "")
    nothing: dict[str, Any] = {"version": 1, "ok": True, "error": None, "projection": "numbers", "dead_letters": []}
    assert answer(shop, "dead-letters", "numbers", url) == (0, nothing)


def test_a_projection_that_is_reset_is_at_the_beginning(shop: Path, url: str) -> None:
    assert answer(shop, "reset", "numbers", url) == (
        0,
        {"version": 1, "ok": True, "error": None, "projection": "numbers", "reset": True},
    )
    _, found = answer(shop, "list", url)
    assert [(one["position"], one["lag"], one["dead_letters"]) for one in found["projections"]] == [(0, 5, 0)]


async def test_what_runs_is_shown_with_its_owner_and_is_not_reset(shop: Path, url: str) -> None:
    names: dict[str, Any] = {}
    exec(await asyncio.to_thread((shop / "shop.py").read_text), names)
    async with open_store(url, exporters=[]) as store:
        running = asyncio.create_task(store.run(names["numbers"], lease=30))
        await store.wait_for("numbers", 5)
        code, found = await asyncio.to_thread(answer, shop, "list", url)
        [record] = found["projections"]
        assert 0 < record["lease_left"] <= 30
        assert record["owner"].count(":") == 2
        code, found = await asyncio.to_thread(answer, shop, "reset", "numbers", url)
        assert (code, found["ok"], list(found)) == (1, False, ["version", "ok", "error"])
        assert "is running: stop it before you reset it" in found["error"]
    await running


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["list", "sqlite:///none.db"], "there is no file none.db", id="no file"),
        pytest.param(["list", "memory:"], "a store in memory lives in the process of its application only", id="memory"),
        pytest.param(["list", "nosql:x"], "a store URL cannot begin with", id="no store"),
        pytest.param(["dead-letters", "others", "URL"], "no projection 'others'; known are: numbers", id="no projection"),
        pytest.param(["retry", "numbers", "URL", "--import", "shop"], "expected MODULE:NAME, such as", id="no module"),
        pytest.param(
            ["retry", "numbers", "URL", "--import", "shops:A"], "ModuleNotFoundError: No module named", id="no import"
        ),
        pytest.param(["retry", "numbers", "URL", "--import", "shop:Letters"], "AttributeError: ", id="no name"),
        pytest.param(["retry", "numbers", "URL", "--import", "shop:nothing"], "7 is no projection", id="a number"),
    ],
)
def test_what_cannot_be_used_is_code_2_with_what_is_wrong(shop: Path, url: str, arguments: list[str], message: str) -> None:
    words = [url if word == "URL" else word for word in arguments]
    done = eventcore(shop, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    code, found = answer(shop, *words)
    assert (code, message in found["error"]) == (2, True)
    assert not (shop / "none.db").exists()


@pytest.mark.parametrize("arguments", [[], ["lists"], ["list"], ["retry", "numbers", "sqlite:///a.db"]])
def test_a_wrong_command_line_is_code_2_with_a_hint(tmp_path: Path, arguments: list[str]) -> None:
    done = eventcore(tmp_path, *arguments)
    assert done.returncode == 2
    assert "usage: " in done.stderr


def test_help_documents_the_exit_codes(tmp_path: Path) -> None:
    for arguments in (["--help"], ["retry", "--help"]):
        done = eventcore(tmp_path, *arguments)
        assert done.returncode == 0
        assert "exit codes:" in done.stdout
