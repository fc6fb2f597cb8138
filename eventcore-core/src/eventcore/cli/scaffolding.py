"""``eventcore new-exporter``: writes a distribution with an exporter that works, for its author to change."""

from __future__ import annotations

import argparse
import json
import shlex
from importlib.metadata import Distribution, PackageNotFoundError
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from eventcore.cli.output import Output
from eventcore.cli.parsing import add_command
from eventcore.exporting.configuration.core_floor import CORE_DISTRIBUTION
from eventcore.exporting.configuration.discovery import OFFICIAL, exporter_name_problem, find_plugins
from eventcore.version import __version__

# Each file of the distribution, and the template that it is made of.
_FILES: Final = (
    ("pyproject.toml", "pyproject.toml.txt"),
    ("README.md", "README.md.txt"),
    ("src/@PACKAGE@/__init__.py", "src/__init__.py.txt"),
    ("src/@PACKAGE@/encoding.py", "src/encoding.py.txt"),
    ("src/@PACKAGE@/exporter.py", "src/exporter.py.txt"),
    ("src/@PACKAGE@/py.typed", None),
    ("tests/receiver.py", "tests/receiver.py.txt"),
    ("tests/test_exporter.py", "tests/test_exporter.py.txt"),
)


@final
class NewExporter(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``eventcore new-exporter --json``."""

    directory: str
    files: tuple[str, ...]
    message: str


def add_new_exporter(commands: Any) -> None:
    """Add the command to the parsers of ``eventcore``."""
    summary = "write a distribution with an exporter of your own, with tests"
    parser = add_command(commands, "new-exporter", _new_exporter, summary)
    parser.add_argument("name", metavar="NAME", help="the plugin's name in configuration, such as graphite")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where to (default: ./eventcore-NAME)")


def _new_exporter(output: Output, options: argparse.Namespace) -> int:
    """Write a distribution eventcore-NAME with an exporter plugin: entry point, settings, types, a README, and tests that
    inherit the contract of exporters. It works as it is, with a small backend in its tests: change it step by step, as
    docs/exporters.md shows. Nothing that exists is overwritten.

    JSON (--json):
      {"version": 1, "ok", "error", "directory": path, "files": [path], "message": text}
    """
    distribution = f"eventcore-{options.name.replace('_', '-')}"
    directory: Path = options.directory if options.directory is not None else Path(distribution)
    try:
        if problem := _problem(options.name, directory):
            return output.fail(2, problem)
        names = _write(directory, options.name, distribution)
    except OSError as error:
        return output.fail(2, f"{directory} cannot be written: {error.strerror or error}; name another folder with --directory")
    message = (
        f"{distribution} is in {directory}. Next:\n\n  cd {directory}\n  python -m venv .venv && . .venv/bin/activate\n"
        f"{_core_first()}  pip install -e '.[test]'\n  pytest && mypy && ruff check\n\n"
        f"Then change src/{_package(options.name)}/encoding.py; README.md says what is where."
    )
    answer = NewExporter(directory=str(directory), files=names, message=message)
    return output.answer(0, answer, lambda: output.line(message))


def _core_first() -> str:
    """The line that installs core from where it was installed from, when that is a folder: an index may not have it."""
    try:
        origin: str = json.loads(Distribution.from_name(CORE_DISTRIBUTION).read_text("direct_url.json") or "{}").get("url", "")
    except (PackageNotFoundError, ValueError, AttributeError):
        return ""
    folder = url2pathname(urlsplit(origin).path) if origin.startswith("file:") else ""
    return f"  pip install {shlex.quote(folder)}\n" if folder else ""


def _problem(name: str, directory: Path) -> str:
    """Why no exporter can be written; empty if one can."""
    if (problem := exporter_name_problem(name)) is not None:
        return problem
    taken = {plugin.name: plugin.distribution for plugin in find_plugins()[0]} | dict(OFFICIAL)
    if name in taken:
        return f"{taken[name]} has a plugin {name!r} already; choose another name"
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        return f"{directory} exists and is not empty; nothing was written. Name another folder with --directory"
    return ""


def _write(directory: Path, name: str, distribution: str) -> tuple[str, ...]:
    """Write all files, and return their paths below the directory."""
    major, minor, *_ = __version__.split(".")
    values = {
        "@CLASS@": "".join(word.capitalize() for word in name.split("_")) + "Exporter",
        "@CORE@": f"{major}.{minor}",
        "@DISTRIBUTION@": distribution,
        "@NAME@": name,
        "@PACKAGE@": _package(name),
        "@VARIABLE@": name.upper(),
    }
    templates = files("eventcore.cli") / "templates"
    written: list[str] = []
    for target, template in _FILES:
        text = templates.joinpath(template).read_text(encoding="utf-8") if template is not None else ""
        for key, value in values.items():
            text = text.replace(key, value)
        path = directory / target.replace("@PACKAGE@", _package(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(str(path.relative_to(directory)))
    return tuple(written)


def _package(name: str) -> str:
    return f"eventcore_{name}"
