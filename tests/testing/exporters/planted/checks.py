"""The whole contract on each faulty exporter, as tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from eventcore.testing import ExporterContract
from tests.testing.exporters.line_exporter import TOKEN, LineExporter, LineSetup
from tests.testing.exporters.planted import PLANTED
from tests.testing.exporters.planted.table import OPEN


class _Planted(ExporterContract):
    kind: ClassVar[type[LineExporter]]

    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[LineSetup]:
        made = getattr(self.kind, "setup", LineSetup)

        class Impatient(made):  # type: ignore[misc, valid-type]  # chosen at run time
            patience: ClassVar[float] = 0.4

        setup = Impatient(tmp_path, self.kind)
        yield setup
        setup.stop()
        for each in OPEN:
            each.close()
        OPEN.clear()
        assert TOKEN in LineSetup.secrets


globals().update({f"Test{name}": type(f"Test{name}", (_Planted,), {"kind": kind}) for name, (kind, _) in PLANTED.items()})
