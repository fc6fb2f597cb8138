"""Metadata of installed distributions that is damaged: it stops nothing, and ``eventcore plugins`` names the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventcore.exporting.configuration.core_floor import missing_core

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
CODE = """
import asyncio
from eventcore import open_store

async def main():
    async with open_store("memory:") as store:
        print(*sorted(exporter.name for exporter in store.telemetry.exporters() if exporter.state == "running"))

asyncio.run(main())
"""


class Site:
    """A directory on the path of a process of its own, in which distributions are damaged."""

    def __init__(self, directory: Path, journal: Path) -> None:
        self.directory = directory
        self._journal = journal

    def distribution(self, name: str, files: dict[str, bytes | str], *, suffix: str = "dist-info") -> Path:
        """Write the metadata of a distribution. A text of ``files`` replaces that of the file."""
        path = self.directory / f"{name}-1.0.{suffix}"
        path.mkdir()
        defaults = {"METADATA" if suffix == "dist-info" else "PKG-INFO": METADATA.format(name=name)}
        for file, content in (defaults | files).items():
            if content:
                (path / file).write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "OTEL_"))}
        path = os.pathsep.join([str(self.directory), str(self._journal), *filter(None, sys.path)])
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env={**inherited, "PYTHONPATH": path, "EVENTCORE_EXPORTERS": "journal"},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    def plugins(self) -> Any:
        done = self.run("-m", "eventcore", "plugins", "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def damages(self) -> dict[str, str]:
        """The damages by file, relative to the directory."""
        damages = {damage["file"]: damage["problem"] for damage in self.plugins()["damages"]}
        return {os.path.relpath(file, self.directory): problem for file, problem in damages.items()}


@pytest.fixture
def site(plugin_site: Callable[[str], Path], tmp_path: Path) -> Site:
    return Site(tmp_path, plugin_site("journal"))


DAMAGED_ENTRY_POINTS: dict[str, bytes | str] = {
    "a line without an equals sign": "[acme.tools]\nthis is no entry point\n",
    "a name without a value": "[acme.tools]\nname =\n",
    "bytes that are no UTF-8": b"[acme.tools]\nname = \xff\xfe:x\n",
    "no section": "name\n",
}


@pytest.mark.parametrize("suffix", ["dist-info", "egg-info"])
@pytest.mark.parametrize("text", DAMAGED_ENTRY_POINTS.values(), ids=DAMAGED_ENTRY_POINTS.keys())
def test_damaged_entry_points_of_another_distribution_stop_no_store(site: Site, text: str | bytes, suffix: str) -> None:
    site.distribution("unrelated", {"entry_points.txt": text}, suffix=suffix)
    done = site.run("-c", CODE)
    assert (done.returncode, done.stdout) == (0, "journal\n"), done.stderr
    (file,) = site.damages()
    assert file == f"unrelated-1.0.{suffix}/entry_points.txt"


def test_the_listing_for_people_names_the_file_and_the_line(site: Site) -> None:
    site.distribution("unrelated", {"entry_points.txt": DAMAGED_ENTRY_POINTS["a line without an equals sign"]})
    done = site.run("-m", "eventcore", "plugins")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "entry_points.txt" in line]
    assert str(site.directory / "unrelated-1.0.dist-info" / "entry_points.txt") in line
    assert "line 2 is 'this is no entry point'; expected 'name = package.module:attribute'" in line
    assert "reinstall 'unrelated'" in line


@pytest.mark.parametrize(
    ("suffix", "files", "file", "problem"),
    [
        ("dist-info", {"METADATA": b"Name: \xff\n"}, "METADATA", "it is not UTF-8 text"),
        ("dist-info", {"METADATA": ""}, "METADATA", "it is missing or empty"),
        ("dist-info", {"METADATA": "Version: 1\n"}, "METADATA", "it has no Name"),
        ("dist-info", {"RECORD": b"\xff\xfe"}, "RECORD", "it is not UTF-8 text"),
        ("egg-info", {"PKG-INFO": b"Name: \xff\n"}, "PKG-INFO", "it is not UTF-8 text"),
        ("egg-info", {"PKG-INFO": ""}, "PKG-INFO", "it is missing or empty"),
    ],
)
def test_other_damaged_files_are_named_too(
    site: Site, suffix: str, files: dict[str, bytes | str], file: str, problem: str
) -> None:
    site.distribution("unrelated", files, suffix=suffix)
    assert site.run("-c", CODE).stdout == "journal\n"
    damages = site.damages()
    assert list(damages) == [f"unrelated-1.0.{suffix}/{file}"]
    assert problem in damages[f"unrelated-1.0.{suffix}/{file}"]


def test_a_file_that_is_a_directory_and_the_rest_of_an_interrupted_installation_are_named(site: Site) -> None:
    (site.distribution("unrelated", {}) / "entry_points.txt").mkdir()
    site.distribution("~ventcore_journal", {"entry_points.txt": "[eventcore.exporters]\njournal = nowhere:Exporter\n"})
    assert site.run("-c", CODE).stdout == "journal\n"
    damages = site.damages()
    assert damages.keys() == {"unrelated-1.0.dist-info/entry_points.txt", "~ventcore_journal-1.0.dist-info"}
    assert "pip has not finished; delete it" in damages["~ventcore_journal-1.0.dist-info"]


def test_of_two_installations_beside_each_other_one_counts_and_the_other_is_named(site: Site) -> None:
    entry_points = "[eventcore.exporters]\ndouble = eventcore_journal:JournalExporter\n"
    first = site.distribution("acme_double", {"entry_points.txt": entry_points})
    second = first.with_name("acme_double-2.0.dist-info")
    second.mkdir()
    for file in first.iterdir():
        (second / file.name).write_bytes(file.read_bytes())
    answer = site.plugins()
    assert [row["plugin"] for row in answer["exporters"]].count("double") == 1
    (damage,) = answer["damages"]
    assert "counts" in damage["problem"]
    assert {damage["file"]} < {str(first), str(second)}


def test_an_installation_that_is_hidden_by_one_earlier_on_the_path_is_no_damage(site: Site) -> None:
    entry_points = "[eventcore.exporters]\njournal = eventcore_journal:JournalExporter\n"
    site.distribution("eventcore_journal", {"entry_points.txt": entry_points})
    answer = site.plugins()
    (row,) = [row for row in answer["exporters"] if row["plugin"] == "journal"]
    assert (row["version"], row["state"], answer["damages"]) == ("1.0", "loaded", [])


def test_a_plugin_is_found_although_its_own_metadata_is_damaged(site: Site) -> None:
    text = "[acme.tools]\nno entry point\n[eventcore.exporters]\nthird = eventcore_journal:JournalExporter\n"
    site.distribution("acme_third", {"entry_points.txt": text, "METADATA": b"\xff"})
    answer = site.plugins()
    (row,) = [row for row in answer["exporters"] if row["plugin"] == "third"]
    assert (row["distribution"], row["version"], row["state"]) == ("acme_third", "1.0", "not enabled")
    assert len(answer["damages"]) == 2


def test_damage_is_logged_when_the_exporters_are_loaded(site: Site) -> None:
    site.distribution("unrelated", {"entry_points.txt": "[acme.tools]\nno entry point\n"})
    done = site.run("-c", CODE)
    (line,) = done.stderr.splitlines()
    assert str(site.directory / "unrelated-1.0.dist-info" / "entry_points.txt") in line


def test_a_damaged_archive_and_a_finder_that_raises_hide_nothing(site: Site) -> None:
    broken = site.directory / "broken.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("acme-1.0.dist-info/METADATA", METADATA.format(name="acme"))
    broken.write_bytes(broken.read_bytes()[:40])
    code = (
        f"import sys; sys.path.insert(0, {str(broken)!r})\n"
        "class Finder:\n"
        "    def find_spec(self, *_): return None\n"
        "    def find_distributions(self, context): raise RuntimeError('no')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = site.run("-c", code + CODE)
    assert (done.returncode, done.stdout) == (0, "journal\n"), done.stderr
    assert "Finder: its distributions cannot be listed: RuntimeError: no" in done.stderr


def test_a_plugin_that_requires_a_newer_core_has_failed_and_says_what_to_upgrade(
    site: Site, plugin_site: Callable[[str], Path]
) -> None:
    code = f"import sys; sys.path.insert(0, {str(plugin_site('newer'))!r}); sys.argv[1:] = ['plugins', '--json']\n"
    code += "from eventcore.cli import main\nimport os; os.environ['EVENTCORE_EXPORTERS'] = 'newer,journal'; main()\n"
    code += "assert 'eventcore_newer' not in sys.modules"
    done = site.run("-c", code)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["exporters"]}
    assert (rows["newer"]["state"], rows["journal"]["state"]) == ("failed", "loaded")
    assert "plugin 'newer' of eventcore-newer 7.0: it requires eventcore-core" in rows["newer"]["reason"]
    assert "upgrade: pip install --upgrade 'eventcore-core" in rows["newer"]["reason"]


@pytest.mark.parametrize(
    ("requirement", "missing"),
    [
        ("eventcore-core>=1.2", "eventcore-core>=1.2"),
        ("EventCore.Core (>=1.2,<2)", "eventcore-core>=1.2,<2"),
        ("eventcore-core[postgres] ~= 1.2.1", "eventcore-core~=1.2.1"),
        ("eventcore_core>1.1", "eventcore-core>1.1"),
        ("eventcore-core==1.2.*", "eventcore-core==1.2.*"),
        ('eventcore-core>=1.2; python_version >= "3.9"', "eventcore-core>=1.2"),
        ('eventcore-core>=1.2; python_version < "3.9"', ""),
        ('eventcore-core>=1.2; extra == "later"', ""),
        ("eventcore-core>=1.1", ""),
        ("eventcore-core>=1.1.0,<1.1.5", ""),
        ("eventcore-core<1", ""),
        ("eventcore-core", ""),
        ("eventcore-core-extras>=9", ""),
        ("not a requirement at all", ""),
    ],
)
def test_only_a_lower_bound_above_the_installed_core_counts(requirement: str, missing: str) -> None:
    assert missing_core([requirement], "1.1") == missing
