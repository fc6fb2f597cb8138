"""With ``--json``, whatever a command cannot do has one shape, whichever command it is."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventcore import open_store
from eventcore.cli import main
from tests.projections.models import Seen, deposit

# For each command, what it cannot do, and the exit code. URL is a store with the projection `seen`.
FAILURES: dict[str, list[tuple[list[str], int]]] = {
    "plugins": [(["nobody"], 2), (["two", "names"], 2), (["--config", "none.toml"], 2)],
    "check": [(["nobody"], 2), (["--timeout", "soon"], 2), (["--config", "none.toml"], 2)],
    "health": [(["gopher://somewhere"], 2), (["http://127.0.0.1:1/readyz"], 1), ([], 2)],
    "migrate": [(["gopher://somewhere"], 2), (["sqlite:////nowhere/at/all.db"], 1), ([], 2)],
    "projections list": [(["sqlite:////nowhere/at/all.db"], 2), ([], 2)],
    "projections dead-letters": [(["sene", "URL"], 2), ([], 2)],
    "projections retry": [(["sene", "URL", "--import", "a:b"], 2), (["seen", "URL", "--import", "none:A"], 2), ([], 2)],
    "projections reset": [(["sene", "URL"], 2), ([], 2)],
    "new-exporter": [(["Capitals"], 2), (["fine", "--directory", "file/below"], 2), ([], 2)],
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('failures')}/shop.db"

    async def live() -> None:
        async with open_store(url, exporters="none") as store:
            running = asyncio.create_task(store.run(Seen()))
            await store.wait_for("seen", await deposit(store, 1))
        await running

    asyncio.run(live())
    return url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTCORE_EXPORTERS", "none")
    (tmp_path / "file").write_text("no folder")
    return tmp_path


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command and action with its parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for name, below in group.choices.items():
            inner = list(commands(below))
            yield from ((f"{name} {each}", leaf) for each, leaf in inner) if inner else [(name, below)]


def parser_of_main(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    made: list[argparse.ArgumentParser] = []

    def parse_args(self: argparse.ArgumentParser, arguments: object) -> None:
        made.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(KeyboardInterrupt):
        main([])
    return made[0]


def test_every_command_is_here_and_its_help_says_what_a_failure_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(commands(parser_of_main(monkeypatch)))
    assert set(found) == set(FAILURES)
    for parser in found.values():
        assert '{"version": 1, "ok": false, "error": text}' in parser.format_help()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("command", "arguments", "code"),
    [
        pytest.param(command, arguments, code, id=" ".join([command, *arguments]))
        for command, failures in FAILURES.items()
        for arguments, code in failures
    ],
)
def test_what_a_command_cannot_do_has_one_shape(
    url: str, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], code: int
) -> None:
    words = [*command.split(), *(url if word == "URL" else word for word in arguments)]
    assert main(words) == code
    text = capsys.readouterr()
    assert main([*words, "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert list(answer.items())[:3] == [("version", 1), ("ok", False), ("error", answer["error"])]
    if "--config" in arguments:
        # There may be many faults: each is listed, in text on standard output.
        assert (answer["error"], len(answer["faults"])) == ("The configuration has 1 fault", 1)
        assert answer["faults"][0]["where"].endswith("/none.toml")
        assert answer["error"] in text.out
    else:
        assert set(answer) == {"version", "ok", "error"}
        assert (text.out, text.err.splitlines()[-1]) == ("", f"eventcore: {answer['error']}")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "words",
    [["plugins"], ["check"], ["migrate", "URL"], ["health", "URL"], ["new-exporter", "fine"], ["projections", "list", "URL"]],
    ids=lambda words: words[0],
)
def test_an_answer_begins_with_the_same_keys(url: str, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main([*(url if word == "URL" else word for word in words), "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert list(answer.items())[:3] == [("version", 1), ("ok", True), ("error", None)]
    assert len(answer) > 3
