"""``Telemetry`` from its sources to its start: one error for all faults, and which exporters run in spite of faults."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventcore import Telemetry, open_store
from eventcore.errors import ConfigurationError, InvalidExporter
from eventcore.exporting import Exporter, hookimpl


@pytest.fixture(autouse=True)
def directory(
    plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], None]]:
    """A working directory with the plugins ``journal`` and ``page`` installed; calling it writes the configuration file."""
    monkeypatch.chdir(tmp_path)
    for project in ("journal", "page"):
        monkeypatch.syspath_prepend(plugin_site(project))

    def configure(text: str) -> None:
        (tmp_path / "eventcore.toml").write_text(text)

    yield configure
    for name in ("eventcore_journal", "eventcore_page"):
        sys.modules.pop(name, None)


FAULTY = """
[telemetry]
verbosity = "loud"
[exporters]
enabled = ["journal", "jurnal", "page"]
[exporters.journal]
port = "x"
[exporters.journal.pipeline]
span_queue = 0
[exporters.page]
port = "y"
[exporters.page.pipeline]
interval = 5
"""
FAULTS = [
    "telemetry.verbosity",
    "exporters.journal.pipeline.span_queue",
    "exporters.enabled",
    "exporters.journal.port",
    "exporters.page.port",
    "exporters.page.pipeline.interval",
]
BROKEN = '[exporters]\ndisabled = ["page"]\n[exporters.second\nplugin = "journal"'


def running(telemetry: Telemetry) -> list[str]:
    return sorted(exporter.name for exporter in telemetry.exporters() if exporter.state == "running")


class Mine(Exporter):
    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> None: ...


async def test_faults_of_core_and_of_plugins_come_in_one_error(directory: Callable[[str], None]) -> None:
    directory(FAULTY)
    with pytest.raises(ConfigurationError, match="6 faults in the configuration") as raised:
        async with open_store("memory:"):
            pass
    assert [fault.key for fault in raised.value.faults] == FAULTS


def test_starting_again_after_an_error_raises_it_again(directory: Callable[[str], None]) -> None:
    directory(FAULTY)
    telemetry = Telemetry()
    errors: list[ConfigurationError] = []
    for _ in range(3):
        with pytest.raises(ConfigurationError) as raised:
            telemetry.start_blocking()
        errors.append(raised.value)
    assert [[fault.key for fault in error.faults] for error in errors] == [FAULTS] * 3
    assert running(telemetry) == []


def test_faults_that_are_logged_are_one_line_once_and_the_right_part_runs(
    directory: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    directory('[telemetry]\nverbosity = "loud"\n[exporters]\nenabled = ["journal", "page"]\n[exporters.journal]\nport = "x"')
    telemetry = Telemetry(on_config_error="log")
    telemetry.start_blocking()
    telemetry.start_blocking()
    assert running(telemetry) == ["page"]
    assert telemetry.verbosity == "normal"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "2 faults" in record.getMessage()
    telemetry.shutdown_blocking(5)


def test_faults_of_an_exporter_that_code_registers_are_logged_once(
    directory: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    directory('[telemetry]\nverbosity = "loud"\n[exporters]\nenabled = []\n[exporters.mine.pipeline]\nspan_queue = 0')
    telemetry = Telemetry(on_config_error="log")
    for _ in range(2):
        telemetry.register_exporter(Mine())
        telemetry.start_blocking()
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [(error.count("span_queue"), error.count("verbosity")) for error in errors] == [(1, 0), (0, 1)]
    telemetry.shutdown_blocking(5)


def test_an_unreadable_file_starts_no_exporter_that_it_may_have_disabled(
    directory: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory(BROKEN)
    monkeypatch.setenv("EVENTCORE_EXPORTERS", "journal,page")
    monkeypatch.setenv("EVENTCORE_EXPORTERS__SECOND__PORT", "7")
    telemetry = Telemetry(on_config_error="log")
    telemetry.start_blocking()
    assert running(telemetry) == []
    assert telemetry.failed_exporters == ()
    assert "eventcore_page" not in sys.modules
    # The plugin of `second` may stand in the file: that it is not known here is no second fault.
    with pytest.raises(ConfigurationError, match="1 fault in the configuration") as raised:
        Telemetry().start_blocking()
    assert raised.value.faults[0].key == "file"


@pytest.mark.parametrize("text", ['disabled = "page"', "disabled = 3", '[[exporters]]\ndisabled = ["page"]'])
def test_a_part_that_cannot_be_read_starts_no_exporter_that_it_may_have_disabled(
    directory: Callable[[str], None], text: str
) -> None:
    directory(text if text.startswith("[[") else f"[exporters]\n{text}")
    telemetry = Telemetry(on_config_error="log")
    telemetry.start_blocking()
    assert running(telemetry) == []


def test_the_kill_switch_makes_an_unreadable_file_a_log_line(
    directory: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory(BROKEN)
    monkeypatch.setenv("EVENTCORE_EXPORTERS", "none")
    monkeypatch.setenv("EVENTCORE_EXPORTERS__SECOND__PORT", "7")
    telemetry = Telemetry()
    assert telemetry.register_exporter(Mine()) == "mine"
    telemetry.start_blocking()
    telemetry.start_blocking()
    assert running(telemetry) == []
    (record,) = [record for record in caplog.records if "it is not TOML" in record.getMessage()]
    assert record.levelno == logging.ERROR


def test_the_kill_switch_hides_no_other_fault(directory: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    directory(BROKEN)
    monkeypatch.setenv("EVENTCORE_EXPORTERS", "none")
    monkeypatch.setenv("EVENTCORE_TELEMETRY__VERBOSITY", "loud")
    with pytest.raises(ConfigurationError) as raised:
        Telemetry().start_blocking()
    assert [fault.key for fault in raised.value.faults] == ["file", "EVENTCORE_TELEMETRY__VERBOSITY"]


def test_registering_an_exporter_raises_the_faults_of_its_own_section(directory: Callable[[str], None]) -> None:
    directory("[telemetry]\nverbosity = 1\n[exporters.mine.pipeline]\ninterval = 0")
    telemetry = Telemetry(exporters=[])
    with pytest.raises(ConfigurationError) as raised:
        telemetry.register_exporter(Mine())
    assert [fault.key for fault in raised.value.faults] == ["exporters.mine.pipeline.interval"]
    assert running(telemetry) == []
    telemetry.register_exporter(Mine(), name="other")
    telemetry.shutdown_blocking(5)


async def test_one_instance_has_one_name_at_a_time(directory: Callable[[str], None]) -> None:
    telemetry = Telemetry(exporters=[])
    mine = Mine()
    assert telemetry.register_exporter(mine) == "mine"
    with pytest.raises(InvalidExporter, match="the same instance is registered as 'mine'; expected an instance"):
        telemetry.register_exporter(mine, name="second")
    await telemetry.unregister_exporter("mine")
    assert telemetry.register_exporter(mine, name="second") == "second"
    assert await telemetry.shutdown(5.0)
