"""The contract of exporters, as tests. A test class for each exporter inherits them."""

from eventcore.testing.exporters.contract.cycles import CycleContract
from eventcore.testing.exporters.contract.hygiene import HygieneContract
from eventcore.testing.exporters.contract.lifecycle import LifecycleContract, ScrapeContract
from eventcore.testing.exporters.contract.outages import OutageContract
from eventcore.testing.exporters.contract.refusals import RefusalContract
from eventcore.testing.exporters.contract.rotations import RotationContract
from eventcore.testing.exporters.contract.spans import SpanContract
from eventcore.testing.exporters.contract.values import ValueContract
from eventcore.testing.exporters.contract.workers import WorkerContract

__all__ = [
    "CycleContract",
    "ExporterContract",
    "HygieneContract",
    "LifecycleContract",
    "OutageContract",
    "RefusalContract",
    "RotationContract",
    "ScrapeContract",
    "SpanContract",
    "ValueContract",
    "WorkerContract",
]


class ExporterContract(
    ValueContract,
    SpanContract,
    CycleContract,
    LifecycleContract,
    WorkerContract,
    OutageContract,
    RefusalContract,
    RotationContract,
    HygieneContract,
):
    """Tests of what eventcore expects of an exporter. Inherit it and override the fixture ``exporter_setup``.

    Each test puts a new exporter into a pipeline of core, with sample data, and compares what the backend has got. It needs
    pytest, on a system that has ``os.fork`` for the test of forks. A test of what the backend cannot take is skipped, with the
    reason that ``ExporterSetup.cannot`` gives.

    >>> import pytest
    >>> from eventcore.testing import ExporterSetup
    >>> class MySetup(ExporterSetup):
    ...     def make(self):
    ...         return MyExporter(port=self.receiver.port)
    ...     def received(self):
    ...         return self.receiver.received()
    >>> class TestMine(ExporterContract):
    ...     @pytest.fixture
    ...     def exporter_setup(self):
    ...         return MySetup()
    """
