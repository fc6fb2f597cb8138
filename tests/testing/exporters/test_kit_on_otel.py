"""The OpenTelemetry exporter passes the contract: what two real receivers got is read back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, cast

import grpc
import pytest

from eventcore.exporting import Scope
from eventcore.testing import (
    ExporterContract,
    ExporterSetup,
    Received,
    ReceivedEvent,
    ReceivedExemplar,
    ReceivedLink,
    ReceivedPoint,
    ReceivedSpan,
)
from eventcore.testing.exporters.contract import CycleContract, OutageContract
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver
from tests.real_parts import DdapmTestAgent, Rotel
from tests.real_parts.received import ReceivedPoint as OtlpPoint
from tests.real_parts.received import ReceivedSpan as OtlpSpan

TOKEN: Final = "0telS3cr3t"


class OtlpSetup(ExporterSetup):
    """Reads back what a collector got."""

    # The mutants need not wait long for what never comes.
    patience = float(os.environ.get("EVENTCORE_KIT_PATIENCE", "10"))
    secrets: ClassVar = (TOKEN,)

    def __init__(self, collector: Rotel | DdapmTestAgent) -> None:
        self.collector = collector

    def make(self) -> object:
        return OpenTelemetryExporter(
            endpoint=self.collector.grpc_endpoint, headers={"authorization": f"Bearer {TOKEN}"}, timeout=5.0
        )

    def received(self) -> Received:
        points, spans = self.collector.points(), self.collector.spans()
        resource = points[-1].resource if points else spans[-1].resource if spans else None
        return Received(list(map(_point, points)), list(map(_span, spans)), resource)


class AgentSetup(OtlpSetup):
    """Reads back what the agent got, as JSON."""

    cannot: ClassVar = dict.fromkeys(("outages", "stalls", "waits"), "all tests share the agent; rotel is stopped in its place")


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


def _point(point: OtlpPoint) -> ReceivedPoint:
    kind = ("counter" if point.monotonic else "gauge") if point.kind == "sum" else point.kind
    fields: dict[str, Any] = {
        "name": point.name,
        "labels": cast(dict[str, str], point.attributes),
        "kind": kind,
        "unit": point.unit,
        "description": point.description,
        "start_time_ns": point.start_time_ns,
        "time_ns": point.time_ns,
        "scope": _scope(point),
        "exemplars": [
            ReceivedExemplar(value=each.value, time_ns=each.time_ns, trace_id=each.trace_id, span_id=each.span_id)
            for each in point.exemplars
        ],
    }
    if kind == "histogram":
        buckets = dict(zip((*point.bounds, float("inf")), point.buckets, strict=True))
        fields |= {"count": point.count, "sum": point.sum, "min": point.min, "max": point.max, "buckets": buckets}
    else:
        fields["value"] = None if point.value is None else point.value if isinstance(point.value, int) else float(point.value)
    return ReceivedPoint(**fields)


def _span(span: OtlpSpan) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        kind=cast(Any, span.kind),
        start_time_ns=span.start_time_ns,
        end_time_ns=span.end_time_ns,
        attributes=span.attributes,
        events=[ReceivedEvent(name=each.name, time_ns=each.time_ns, attributes=each.attributes) for each in span.events],
        links=[ReceivedLink(trace_id=each.trace_id, span_id=each.span_id, attributes=each.attributes) for each in span.links],
        status=cast(Any, span.status),
        status_description=span.status_message,
        scope=_scope(span),
        tracestate=span.tracestate,
    )


def _scope(received: OtlpPoint | OtlpSpan) -> Scope:
    name, _, version = received.scope.partition(" ")
    return Scope(name, version, received.schema_url)


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
