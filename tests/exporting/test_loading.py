"""From an installed distribution to an exporter: what is imported, what is not, and what a broken plugin harms."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventcore.exporting import Secret
from eventcore.exporting.configuration.loading import LoadedExporters, load_exporters
from eventcore.exporting.configuration.settings import load_configuration


@pytest.fixture(autouse=True)
def forget_plugins() -> Iterator[None]:
    yield
    for name in ("eventcore_journal", "acme_journal", "eventcore_page", "eventcore_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def load(plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., LoadedExporters]:
    def load(config: dict[str, Any], *projects: str, **environ: str) -> LoadedExporters:
        for project in projects:
            monkeypatch.syspath_prepend(plugin_site(project))
        configuration = load_configuration(config, environ=environ, cwd=tmp_path)
        assert configuration.faults == ()
        return load_exporters(configuration)

    return load


def test_settings_reach_the_exporter_of_an_installed_plugin(load: Callable[..., LoadedExporters]) -> None:
    config = {
        "exporters": {
            "enabled": ["journal"],
            "journal": {"token": "s3cret", "headers": {"a": "b"}, "pipeline": {"span_queue": 9}},
        }
    }
    loaded = load(config, "journal", EVENTCORE_EXPORTERS__JOURNAL__PORT="9999")
    (ready,) = loaded.ready
    exporter: Any = ready.handle.exporter
    assert (exporter.port, exporter.token, exporter.headers) == (9999, Secret("s3cret"), {"a": Secret("b")})
    assert ready.pipeline.span_queue == 9
    assert ready.handle.kinds == ("counters", "spans")
    assert str(ready.handle.origin) == "plugin 'journal' of eventcore-journal 1.2.3"
    assert dict(ready.shown_settings) == {"token": "***", "headers": {"a": "***"}, "port": "9999"}


def test_two_exporters_of_one_plugin_have_settings_of_their_own(load: Callable[..., LoadedExporters]) -> None:
    config = {"exporters": {"enabled": ["journal", "second"], "second": {"plugin": "journal", "port": 2}}}
    exporters: list[Any] = [ready.handle.exporter for ready in load(config, "journal").ready]
    assert [exporter.port for exporter in exporters] == [8125, 2]


def test_a_broken_plugin_has_failed_and_the_others_are_ready(load: Callable[..., LoadedExporters]) -> None:
    config = {"exporters": {"enabled": ["import_error", "leaves", "cannot_be_made", "misspelt", "journal"]}}
    loaded = load(config, "broken", "journal")
    assert [ready.name for ready in loaded.ready] == ["journal"]
    assert [failed.name for failed in loaded.failed] == ["import_error", "leaves", "cannot_be_made", "misspelt"]
    assert loaded.faults == ()
    assert "plugin 'misspelt' of eventcore-broken 0.0.1" in loaded.failed[-1].reason


def test_a_plugin_whose_name_does_not_fit_has_failed_too(load: Callable[..., LoadedExporters]) -> None:
    loaded = load({"exporters": {"disabled": ["otel", "prometheus"]}}, "broken")
    reasons = {failed.name: failed.reason for failed in loaded.failed}
    assert "the exporter name 'Bad-Name' does not fit" in reasons["Bad-Name"]


def test_faults_of_several_exporters_are_all_found(load: Callable[..., LoadedExporters]) -> None:
    config = {
        "exporters": {
            "enabled": ["journal", "second", "page"],
            "journal": {"prot": 1, "level": "none"},
            "second": {"plugin": "journal", "port": "x"},
            "page": {"pipeline": {"interval": 5}},
        }
    }
    loaded = load(config, "journal", "page")
    assert loaded.ready == ()
    assert [fault.key for fault in loaded.faults] == [
        "exporters.journal.prot",
        "exporters.journal.level",
        "exporters.second.port",
        "exporters.page.pipeline.interval",
    ]


CODE = """
import json, sys
from eventcore.telemetry import Telemetry
telemetry = Telemetry()
telemetry.start_blocking()
running = sorted(pipeline.name for pipeline in telemetry.exporters())
telemetry.shutdown_blocking(5)
modules = sorted(name for name in sys.modules if name.startswith(("eventcore_", "acme_")))
print(json.dumps([running, modules]))
"""


@pytest.mark.parametrize(
    ("file", "environment", "running", "imported"),
    [
        ("", {"EVENTCORE_EXPORTERS": "journal,page"}, ["journal", "page"], ["eventcore_journal", "eventcore_page"]),
        ('enabled = ["page"]', {}, ["page"], ["eventcore_page"]),
        ('enabled = ["page", "journal"]\ndisabled = ["journal"]', {}, ["page"], ["eventcore_page"]),
        ('enabled = ["page"]', {"EVENTCORE_EXPORTERS": "journal"}, ["journal"], ["eventcore_journal"]),
        ('enabled = ["page"]\n[exporters.journal]\nport = 1', {}, ["page"], ["eventcore_page"]),
        ("enabled = []", {}, [], []),
        ('enabled = ["page"]', {"EVENTCORE_EXPORTERS": "none"}, [], []),
    ],
)
def test_only_what_is_enabled_is_imported(
    plugin_site: Callable[[str], Path],
    tmp_path: Path,
    file: str,
    environment: dict[str, str],
    running: list[str],
    imported: list[str],
) -> None:
    (tmp_path / "eventcore.toml").write_text(f"[exporters]\n{file}")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "OTEL_"))}
    sites = [str(plugin_site(project)) for project in ("journal", "page")]
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": os.pathsep.join([*sites, *filter(None, sys.path)]), **environment},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [running, imported]


def test_every_installed_plugin_is_loaded_when_nothing_is_configured(
    load: Callable[..., LoadedExporters],
) -> None:
    loaded = load({"exporters": {"disabled": ["otel", "prometheus"]}}, "journal", "page")
    assert [ready.name for ready in loaded.ready] == ["journal", "page"]


def test_a_plugin_cannot_flood_the_log_while_it_is_imported_and_made(
    load: Callable[..., LoadedExporters], caplog: pytest.LogCaptureFixture
) -> None:
    load({"exporters": {"enabled": ["talkative"], "talkative": {"plugin": "journal"}}}, "journal")
    for _ in range(1000):
        logging.getLogger("eventcore.exporters.talkative").error("made")
    assert len(caplog.messages) == 20
