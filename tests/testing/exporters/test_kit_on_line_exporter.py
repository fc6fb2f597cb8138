"""Exporters that do everything right pass the contract: totals and differences, `async def`, and without `flush`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from eventcore.testing import ExporterContract
from eventcore.testing.exporters.contract import (
    CycleContract,
    LifecycleContract,
    OutageContract,
    RefusalContract,
    SpanContract,
    ValueContract,
)
from eventcore.testing.exporters.contract.fixtures import ContractFixtures
from tests.testing.exporters.line_exporter import (
    AsyncLineExporter,
    DeltaLineExporter,
    DirectLineExporter,
    LineExporter,
    LineSetup,
    SeveralLinesExporter,
)

# They test the kit beside a server, not the interpreter.
pytestmark = pytest.mark.once


class OnLineServer(ContractFixtures):
    """A line server for each test."""

    kind: ClassVar[Any] = LineExporter

    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[LineSetup]:
        setup = LineSetup(tmp_path, self.kind)
        yield setup
        setup.stop()


class TestTotals(OnLineServer, ExporterContract):
    kind = LineExporter


class TestDifferences(OnLineServer, ValueContract, CycleContract):
    kind = DeltaLineExporter


class TestAsync(OnLineServer, LifecycleContract, CycleContract, OutageContract):
    kind = AsyncLineExporter


class TestSeveralLines(OnLineServer, RefusalContract):
    kind = SeveralLinesExporter


class TestWithoutFlush(OnLineServer, SpanContract, CycleContract, LifecycleContract):
    kind = DirectLineExporter
