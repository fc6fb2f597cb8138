"""An exporter that does everything right passes the contract, with totals and with differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventcore.testing import ExporterContract
from eventcore.testing.exporters.contract import CycleContract, OutageContract, ValueContract
from tests.testing.exporters.line_exporter import DeltaLineExporter, LineExporter, LineSetup


@pytest.mark.once
class TestTotals(ExporterContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[LineSetup]:
        setup = LineSetup(tmp_path, LineExporter)
        yield setup
        setup.stop()


@pytest.mark.once
class TestDifferences(ValueContract, CycleContract, OutageContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[LineSetup]:
        setup = LineSetup(tmp_path, DeltaLineExporter)
        yield setup
        setup.stop()
