from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from eventcore.errors import InvalidExporter, InvalidInput
from eventcore.exporting import Exporter
from eventcore.exporting.configuration.discovery import (
    GROUP,
    FoundPlugin,
    exporter_name,
    find_plugins,
    how_to_install,
)
from eventcore.exporting.delivery.handle import PluginOrigin


@pytest.fixture(autouse=True)
def forget_plugins() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("eventcore_", "acme_")):
            del sys.modules[name]


def found(name: str) -> FoundPlugin:
    (plugin,) = [plugin for plugin in find_plugins()[0] if plugin.name == name]
    return plugin


def test_an_installed_plugin_is_found_and_not_imported(
    plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plugin_site("journal"))
    plugin = found("journal")
    assert (plugin.distribution, plugin.version, plugin.value) == (
        "eventcore-journal",
        "1.2.3",
        "eventcore_journal:JournalExporter",
    )
    assert plugin.origin == PluginOrigin("journal", "eventcore-journal", "1.2.3")
    assert not plugin.core
    assert "eventcore_journal" not in sys.modules
    assert plugin.load() is sys.modules["eventcore_journal"].JournalExporter


def test_finding_plugins_imports_none_of_them(plugin_site: Callable[[str], Path]) -> None:
    code = (
        "import sys; from eventcore.exporting.configuration.discovery import find_plugins; "
        "print(len(find_plugins()[0])); print([name for name in sys.modules if name.startswith('eventcore_')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join([str(plugin_site("broken")), str(plugin_site("journal")), *sys.path])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    count, imported = done.stdout.splitlines()
    assert int(count) >= 16
    assert imported == "[]"


def test_two_distributions_with_one_plugin_name_are_both_found(
    plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plugin_site("journal"))
    monkeypatch.syspath_prepend(plugin_site("twin"))
    assert [plugin.distribution for plugin in find_plugins()[0] if plugin.name == "journal"] == [
        "acme-journal",
        "eventcore-journal",
    ]


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("import_error", ImportError, "a_library_that_nobody_has"),
        ("leaves", ImportError, "tried to end the process"),
        ("missing_attribute", AttributeError, "Nothing"),
        ("not_callable", InvalidExporter, "leads to a int; expected a class, or a function"),
        ("Bad-Name", InvalidExporter, "'Bad-Name' does not fit"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_says_why(
    plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception], expected: str
) -> None:
    monkeypatch.syspath_prepend(plugin_site("broken"))
    with pytest.raises(error, match=expected):
        found(name).load()


def test_an_entry_point_that_leads_nowhere_says_so() -> None:
    nowhere = plugin("nowhere", "not a module")
    assert exporter_name(HTTPServerThing(), [nowhere]) == ("http_server_thing", None)
    with pytest.raises(InvalidExporter, match="expected 'package"):
        nowhere.load()


def test_a_distribution_with_damaged_metadata_does_not_hide_the_others(
    plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "damaged-1.dist-info").mkdir()
    (tmp_path / "damaged-1.dist-info" / "METADATA").write_text("")
    (tmp_path / "damaged-1.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\ndamaged = damaged:Exporter\n")
    monkeypatch.syspath_prepend(plugin_site("journal"))
    monkeypatch.syspath_prepend(tmp_path)
    assert (found("damaged").distribution, found("damaged").version) == ("damaged", "1")
    assert found("journal").version == "1.2.3"


class HTTPServerThing(Exporter):
    __module__ = "here"


class _Quiet2Exporter(Exporter): ...


class All(Exporter): ...


def plugin(name: str, value: str) -> FoundPlugin:
    return FoundPlugin(EntryPoint(name, value, GROUP), "acme", "1")


def test_an_exporter_of_a_plugin_has_the_plugins_name() -> None:
    direct = plugin("thing", "here:HTTPServerThing")
    assert exporter_name(HTTPServerThing(), [direct]) == ("thing", PluginOrigin("thing", "acme", "1"))


def test_an_exporter_of_a_plugin_is_known_by_a_re_export_too(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = type(sys)("acme_package")
    package.Renamed = HTTPServerThing
    monkeypatch.setitem(sys.modules, "acme_package", package)
    assert exporter_name(HTTPServerThing(), [plugin("thing", "acme_package:Renamed")])[0] == "thing"


def test_other_exporters_have_their_class_name_in_snake_case() -> None:
    other = plugin("thing", "not_imported_at_all:HTTPServerThing")
    assert exporter_name(HTTPServerThing(), [other]) == ("http_server_thing", None)
    assert exporter_name(_Quiet2Exporter(), []) == ("quiet2_exporter", None)
    subclass = type("Sub", (HTTPServerThing,), {})
    assert exporter_name(subclass(), [plugin("thing", "here:HTTPServerThing")]) == ("sub", None)


def test_a_class_whose_name_gives_none_needs_one() -> None:
    with pytest.raises(InvalidInput, match="register it with name="):
        exporter_name(All(), [])
    assert exporter_name(All(), [], "mine") == ("mine", None)


def test_a_name_that_code_gives_takes_the_place_of_the_plugins_and_has_to_fit() -> None:
    direct = plugin("thing", "here:HTTPServerThing")
    assert exporter_name(HTTPServerThing(), [direct], "other") == ("other", PluginOrigin("thing", "acme", "1"))
    with pytest.raises(InvalidInput, match="'Other' does not fit"):
        exporter_name(HTTPServerThing(), [direct], "Other")


@pytest.mark.parametrize("name", ["otel", "otel_backup", "a", "s3"])
def test_names_of_words_fit(name: str) -> None:
    exporter_name(object(), (), name)


@pytest.mark.parametrize(
    "name", ["", "Otel", "otel-backup", "otel__backup", "1st", "_x", "ötel", "a.b", "a\n", "all", "none", "enabled", "disabled"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        exporter_name(object(), (), name)


def test_a_hint_names_the_extra_of_core() -> None:
    assert how_to_install("prometheus") == "pip install 'eventcore-core[prometheus]'"
    assert how_to_install("statsd") is None
