"""The setup of the OpenTelemetry exporter: how to build it, and what a receiver of OTLP got, as the contract reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Final, cast

from eventcore.exporting import Scope
from eventcore.testing import (
    ExporterSetup,
    Received,
    ReceivedEvent,
    ReceivedExemplar,
    ReceivedLink,
    ReceivedPoint,
    ReceivedSpan,
)
from eventcore_otel import OpenTelemetryExporter
from tests.real_parts import DdapmTestAgent, Rotel
from tests.real_parts.received import ReceivedPoint as OtlpPoint
from tests.real_parts.received import ReceivedSpan as OtlpSpan

TOKEN: Final = "0telS3cr3t"


class OtlpSetup(ExporterSetup):
    """Reads back what a collector got."""

    # The mutants need not wait long for what never comes.
    patience = float(os.environ.get("EVENTCORE_KIT_PATIENCE", "10"))
    secrets: ClassVar[Sequence[str]] = (TOKEN,)

    def __init__(self, collector: Rotel | DdapmTestAgent) -> None:
        self.collector = collector

    def make(self) -> object:
        return OpenTelemetryExporter(
            endpoint=self.collector.grpc_endpoint, headers={"authorization": f"Bearer {TOKEN}"}, timeout=5.0
        )

    def received(self) -> Received:
        return received_from(self.collector.points(), self.collector.spans())


def received_from(points: Sequence[OtlpPoint], spans: Sequence[OtlpSpan]) -> Received:
    """What a receiver got, as the contract compares it."""
    resource = points[-1].resource if points else spans[-1].resource if spans else None
    return Received(list(map(_point, points)), list(map(_span, spans)), resource)


def _point(point: OtlpPoint) -> ReceivedPoint:
    kind = ("counter" if point.monotonic else "gauge") if point.kind == "sum" else point.kind
    fields: dict[str, Any] = {
        "name": point.name,
        "labels": cast(dict[str, str], point.attributes),
        "kind": kind,
        "unit": point.unit,
        "description": point.description,
        # A gauge of OTLP need not have one, which is 0.
        "start_time_ns": point.start_time_ns or None if point.kind == "gauge" else point.start_time_ns,
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
