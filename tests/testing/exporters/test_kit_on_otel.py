"""The OpenTelemetry exporter passes the contract: what real receivers got is read back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import grpc
import pytest

from eventcore.testing import ExporterContract
from eventcore.testing.exporters.contract import (
    CycleContract,
    HygieneContract,
    OutageContract,
    RefusalContract,
    RotationContract,
)
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver
from tests.real_parts import DdapmTestAgent, Rotel
from tests.testing.exporters.otlp_receiver import ReceiverSetup, SecureSetup
from tests.testing.exporters.otlp_setup import TOKEN, OtlpSetup


class AgentSetup(OtlpSetup):
    """Reads back what the agent got, as JSON."""

    cannot: ClassVar = {
        **dict.fromkeys(("outages", "stalls", "waits"), "all tests share the agent; rotel is stopped in its place"),
        **dict.fromkeys(
            ("rejections", "refusals", "cuts"), "the agent takes everything; TestOnAServer has a server that does not"
        ),
        **dict.fromkeys(("rotations", "lost_secrets"), "the agent asks for no secrets; TestOverTls has a server that does"),
    }


class MetricsOnlySetup(AgentSetup):
    """An exporter whose settings leave spans to nobody."""

    cannot: ClassVar = {**AgentSetup.cannot, "spans": "the settings say so"}

    def make(self) -> object:
        headers = {"authorization": f"Bearer {TOKEN}"}
        return OpenTelemetryExporter(endpoint=self.collector.grpc_endpoint, headers=headers, span_exporter="none")


class RotelSetup(OtlpSetup):
    """Reads rotel's log."""

    cannot: ClassVar = {"exemplars": "its log does not show them"}

    def __init__(self, collector: Rotel) -> None:
        super().__init__(collector)
        self.rotel = collector

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.rotel.stop()
        try:
            yield
        finally:
            self.rotel.start()

    @contextmanager
    def stall(self) -> Iterator[None]:
        os.kill(self.rotel.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.rotel.pid, signal.SIGCONT)

    @contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        # rotel never asks for a pause: a server that does takes its place.
        refuse = Receiver.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", retry_after=seconds)
        receiver = Receiver()
        receiver.answers.extend([refuse] * 1000)
        with self.outage():
            receiver.start(int(self.rotel.grpc_endpoint.rpartition(":")[2]))
            try:
                yield
            finally:
                receiver.stop()


@pytest.mark.once
class TestOnTheAgent(ExporterContract):
    """Everything but outages: the agent shows each field of each value."""

    @pytest.fixture
    def exporter_setup(self, ddapm: DdapmTestAgent) -> AgentSetup:
        return AgentSetup(ddapm)


@pytest.mark.once
class TestOnRotel(CycleContract, OutageContract):
    """What the agent is not stopped for: the collector is stopped, started again, and stalled."""

    @pytest.fixture
    def exporter_setup(self, rotel: Rotel) -> RotelSetup:
        return RotelSetup(rotel)


@pytest.mark.once
class TestMetricsOnly(HygieneContract):
    """One of two signals."""

    @pytest.fixture
    def exporter_setup(self, ddapm: DdapmTestAgent) -> AgentSetup:
        return MetricsOnlySetup(ddapm)


@pytest.mark.once
class TestOnAServer(RefusalContract):
    """A server that refuses, rejects and cuts."""

    @pytest.fixture
    def exporter_setup(self) -> Iterator[ReceiverSetup]:
        setup = ReceiverSetup()
        yield setup
        setup.close()


@pytest.mark.once
class TestOverTls(RotationContract, HygieneContract):
    """Certificates and tokens that change."""

    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[SecureSetup]:
        setup = SecureSetup(tmp_path)
        yield setup
        setup.close()
