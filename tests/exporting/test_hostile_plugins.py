"""Plugins whose exceptions harm whoever looks at them: what the command line and the application say of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventcore import Telemetry
from eventcore.errors import ConfigurationError, InvalidExporter
from eventcore.exporting import Exporter, hookimpl

REASONS = {
    "import_hostile": "Hostile whose text raises SystemExit",
    "made_hostile": "Hostile whose text raises SystemExit",
    "made_huge": "RuntimeError: xxx",
    "made_interrupted": "KeyboardInterrupt",
    "made_cancelled": "CancelledError",
    "made_exit": "tried to end the process: SystemExit",
    "attribute_exits": "it cannot be examined: SystemExit: 3",
    "attribute_hostile": "it cannot be examined: Hostile",
    "signature_hostile": "SystemExit",
}


@pytest.fixture
def hostile(plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for project in ("poison", "journal"):
        monkeypatch.syspath_prepend(plugin_site(project))
    yield
    for name in [name for name in sys.modules if name.startswith(("eventcore_poison", "eventcore_journal"))]:
        del sys.modules[name]


def run(*arguments: str, exporters: str, **environ: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run ``eventcore`` with the present path; also the seconds that it took."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "OTEL_"))}
    path = os.pathsep.join(filter(None, sys.path))
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "eventcore", *arguments],
        env={**inherited, "PYTHONPATH": path, "EVENTCORE_EXPORTERS": exporters, **environ},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done, time.monotonic() - begun


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("command", ["plugins", "check"])
def test_the_command_line_says_of_each_why_it_failed(command: str) -> None:
    done, _ = run(command, "--json", exporters=",".join([*REASONS, "journal"]))
    assert done.returncode == 1
    answer = msgspec.json.decode(done.stdout)
    rows = {row["name"]: row for row in answer["exporters"]}
    told = {name: rows[name].get("reason") or rows[name].get("message") for name in REASONS}
    assert {name: told[name] for name, reason in REASONS.items() if reason not in told[name]} == {}
    assert {rows[name]["state"] for name in REASONS} == {"failed"}
    assert max(len(reason) for reason in told.values()) < 6000
    assert rows["journal"]["state"] in ("loaded", "running", "stopped")


@pytest.mark.usefixtures("hostile")
def test_an_application_runs_beside_them_and_its_other_exporter_too() -> None:
    telemetry = Telemetry(exporters=[*REASONS, "journal"])
    telemetry.start_blocking()
    states = {exporter.name: exporter.state for exporter in telemetry.exporters()}
    assert states == dict.fromkeys(REASONS, "failed") | {"journal": "running"}
    report = telemetry.shutdown_blocking(5.0)
    assert not report
    assert report["journal"].delivered


@pytest.mark.usefixtures("hostile")
def test_settings_that_a_plugin_refuses_by_a_hostile_error_are_a_fault() -> None:
    telemetry = Telemetry(config={"exporters": {"enabled": ["refused_hostile"], "refused_hostile": {"port": 1}}})
    with pytest.raises(ConfigurationError) as raised:
        telemetry.start_blocking()
    assert [fault.key for fault in raised.value.faults] == ["exporters.refused_hostile"]


@pytest.mark.usefixtures("hostile")
def test_no_report_is_true_after_a_configuration_that_failed() -> None:
    telemetry = Telemetry(exporters=["journal", "jurnal"])
    with pytest.raises(ConfigurationError):
        telemetry.start_blocking()
    for report in (telemetry.flush_blocking(1.0), telemetry.shutdown_blocking(1.0)):
        assert not report
        assert "there is no exporter plugin 'jurnal'" in report.problem
        assert "there is no exporter plugin 'jurnal'" in str(report)
        assert report["journal"].state == "failed"


@pytest.mark.usefixtures("hostile")
def test_no_report_is_true_when_an_exporter_that_is_enabled_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(exporters=["journal", "jurnal"], on_config_error="log")
    telemetry.start_blocking()
    report = telemetry.flush_blocking(5.0)
    assert (bool(report), report["journal"].delivered) == (False, True)
    assert "jurnal" in report.problem
    telemetry.shutdown_blocking(5.0)


@pytest.mark.usefixtures("hostile")
def test_a_report_is_true_when_only_another_part_of_the_configuration_has_a_fault() -> None:
    config = {"telemetry": {"series_limit": 0}, "exporters": {"enabled": ["journal"], "mine": {"pipeline": {"interval": 0}}}}
    telemetry = Telemetry(config=config, on_config_error="log")
    telemetry.start_blocking()
    assert telemetry.flush_blocking(5.0)
    assert telemetry.shutdown_blocking(5.0)


class Exits(Exporter):
    @property
    def interval(self) -> float:  # type: ignore[override]  # a property is the point
        raise SystemExit(3)

    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> None: ...


def test_an_attribute_that_ends_the_process_is_refused_at_registration() -> None:
    with pytest.raises(InvalidExporter, match="it cannot be examined: SystemExit: 3"):
        Telemetry(exporters=[]).register_exporter(Exits())


@pytest.mark.usefixtures("hostile")
def test_a_plugins_own_error_shows_no_secret_among_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTCORE_EXPORTERS__SHOWS_SECRET__TOKEN", "s3cr3t'\\ of the environment")
    monkeypatch.setenv("PASSWORD", "pa55word")
    Path("eventcore.toml").write_text(
        '[exporters]\nenabled = ["shows_secret"]\n[exporters.shows_secret]\nport = 99999\n'
        'headers = { a = "anoth3r" }\nendpoint = "http://me:${PASSWORD}@host"'
    )
    with pytest.raises(ConfigurationError) as raised:
        Telemetry().start_blocking()
    text = str(raised.value)
    assert "cannot use" not in text  # `int` has refused the token first
    assert "invalid literal for int() with base 10: " in text
    assert "s3cr3t" not in text


@pytest.mark.usefixtures("hostile")
def test_a_plugins_own_error_shows_what_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "pa55word")
    Path("eventcore.toml").write_text(
        '[exporters]\nenabled = ["shows_secret"]\n[exporters.shows_secret]\nport = 99999\n'
        'token = "123456"\nheaders = { a = "anoth3r" }\nendpoint = "http://me:${PASSWORD}@host"'
    )
    with pytest.raises(ConfigurationError) as raised:
        Telemetry().start_blocking()
    assert "cannot use ['***', '***', 'http://me:${PASSWORD}@host', 99999]: ***" in str(raised.value)


@pytest.mark.usefixtures("hostile")
def test_a_plugin_that_breaks_shows_no_secret_either(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("EVENTCORE_EXPORTERS__BREAKS_WITH_SECRET__TOKEN", "s3cr3t")
    telemetry = Telemetry(exporters=["breaks_with_secret"])
    telemetry.start_blocking()
    assert "401 for ***" in telemetry.exporters()[0].problem
    assert "s3cr3t" not in caplog.text


@pytest.mark.timing
@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("command", ["plugins", "check"])
def test_the_command_ends_although_a_plugin_keeps_a_thread(command: str) -> None:
    done, seconds = run(command, exporters="keeps_a_thread")
    assert done.returncode == 0, done.stdout + done.stderr
    assert seconds < 15.0


@pytest.mark.timing
@pytest.mark.usefixtures("hostile")
def test_check_ends_although_an_exporter_never_says_where_its_page_is() -> None:
    done, seconds = run("check", "--timeout", "1", exporters="slow_page,journal")
    assert done.returncode == 1
    assert "its page was not read in time" in done.stdout
    assert seconds < 15.0
