"""A plugin that was made for an older contract of hooks keeps working, and the log says once what to do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventcore import Telemetry
from eventcore.exporting import CONTRACT_VERSION, Exporter, hookimpl
from eventcore.exporting.hookspecs import RENAMED_HOOKS, ExporterHooks
from eventcore.telemetry import Pipeline


@pytest.fixture
def older(plugin_site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(plugin_site("older"))
    yield
    sys.modules.pop("eventcore_older", None)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("older")
def test_a_plugin_of_the_first_contract_delivers_everything_after_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(exporters=["older"], traces_per_second="all")
    telemetry.start_blocking()
    (pipeline,) = telemetry.exporters()
    assert isinstance(pipeline, Pipeline)
    assert pipeline.started.wait(10.0)
    telemetry.counter("orders.shipped").add(3)
    with telemetry.span("ship"):
        pass
    assert telemetry.flush_blocking(10.0)
    exporter: Any = pipeline.handle.exporter
    assert exporter.counters["orders.shipped"] == 3
    # The span belongs to the trace that `trace_context` gave.
    assert exporter.parents == {"ship": f"{0xABC:032x}"} or exporter.parents == {"ship": 0xABC}
    assert exporter.flushes == 2
    (warning,) = warnings(caplog)
    assert "plugin 'older' of eventcore-older 0.9 implements the hook 'trace_context', now 'ambient_context'" in warning
    assert telemetry.shutdown_blocking(10.0)
    assert len(warnings(caplog)) == 1


class ForBoth(Exporter):
    """Works with a core of the first contract, and with the present one."""

    @hookimpl
    def trace_context(self) -> None: ...

    @hookimpl(optionalhook=True)
    def ambient_context(self) -> None: ...

    @hookimpl(optionalhook=True)
    def a_hook_of_the_future(self) -> None: ...

    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> None: ...


def test_an_exporter_for_both_contracts_is_taken_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(exporters=[])
    telemetry.register_exporter(ForBoth())
    assert warnings(caplog) == []
    assert telemetry.shutdown_blocking(10.0)


def test_the_specification_has_a_version_and_each_renamed_hook_still_has_its_place() -> None:
    assert CONTRACT_VERSION == 2
    for old, new in RENAMED_HOOKS.items():
        assert hasattr(ExporterHooks, old)
        assert hasattr(ExporterHooks, new)
