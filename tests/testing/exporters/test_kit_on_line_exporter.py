"""An exporter that does everything right passes the contract, with totals and with differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventcore.testing import ExporterContract
from tests.testing.exporters.line_exporter import DeltaLineExporter, LineExporter, LineSetup


class TestTotals(ExporterContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[LineSetup]:
        setup = LineSetup(tmp_path, LineExporter)
        yield setup
        setup.stop()


class TestDifferences(ExporterContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[LineSetup]:
        setup = LineSetup(tmp_path, DeltaLineExporter)
        yield setup
        setup.stop()
