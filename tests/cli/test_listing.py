from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from eventcore.cli.listing import Listing, list_exporters
from eventcore.exporting.configuration.discovery import GROUP, FoundPlugin
from eventcore.exporting.configuration.settings import load_configuration

CONSOLE = FoundPlugin(EntryPoint("console", "eventcore.exporting.console:ConsoleExporter", GROUP), "eventcore-core", "0.1")


def listing(config: dict[str, Any], tmp_path: Path) -> Listing:
    return list_exporters(load_configuration(config, environ={}, cwd=tmp_path, plugins=[CONSOLE]))


def test_our_own_plugins_that_are_not_installed_are_shown_with_what_to_install(tmp_path: Path) -> None:
    found = listing({"exporters": {"enabled": ["console"]}}, tmp_path)
    assert [(row.name, row.state, row.install) for row in found.exporters] == [
        ("console", "loaded", None),
        ("otel", "not installed", "pip install 'eventcore-core[otel]'"),
        ("prometheus", "not installed", "pip install 'eventcore-core[prometheus]'"),
    ]
    assert found.exporters[0].kinds == ("counters", "gauges", "histograms", "spans")
    assert found.exit_code == 0


def test_one_that_is_not_installed_is_shown_once(tmp_path: Path) -> None:
    config = {"exporters": {"enabled": [], "disabled": ["otel"], "otel": {"endpoint": "x"}, "prometheus": {"port": 1}}}
    found = listing(config, tmp_path)
    assert [(row.name, row.state) for row in found.exporters] == [
        ("console", "not enabled"),
        ("otel", "disabled"),
        ("prometheus", "not installed"),
    ]
    assert found.exit_code == 0


def test_enabling_one_that_is_not_installed_is_a_fault(tmp_path: Path) -> None:
    found = listing({"exporters": {"enabled": ["otel"]}}, tmp_path)
    assert [fault.key for fault in found.faults] == ["exporters.enabled"]
    assert "pip install 'eventcore-core[otel]'" in found.faults[0].problem
    assert found.exit_code == 2


@pytest.mark.once
def test_in_a_narrow_terminal_each_exporter_is_a_paragraph_that_fits(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    environ = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "eventcore", "plugins"]
    with subprocess.Popen(command, stdout=end, cwd=tmp_path, env=environ) as process:
        os.close(end)
        shown = b""
        # The end of the output of a terminal is an error on Linux.
        with contextlib.suppress(OSError):
            while part := os.read(terminal, 65536):
                shown += part
        assert process.wait(30) == 0
    os.close(terminal)
    lines = shown.decode().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(re.fullmatch(r"exporter +console", line) for line in lines)
    assert any(re.fullmatch(r"state +not enabled", line) for line in lines)
