"""What an exporter plugin needs: hooks, their data types and answers. A plugin imports this and nothing else of eventcore."""

from eventcore.exporting.context import ExporterContext, Rejected, RetryLater, Secret, StoppingEvent
from eventcore.exporting.hookspecs import Exporter, ExporterHooks, hookimpl
from eventcore.recording.names import canonical_name
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import (
    Attributes,
    AttributeValue,
    CounterData,
    Exemplar,
    GaugeData,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    NumberPoint,
    Resource,
    Scope,
    SpanData,
    SpanEvent,
    SpanKind,
    SpanLink,
    SpanStatus,
)

__all__ = [
    "AttributeValue",
    "Attributes",
    "CounterData",
    "Exemplar",
    "Exporter",
    "ExporterContext",
    "ExporterHooks",
    "GaugeData",
    "HistogramData",
    "HistogramPoint",
    "Labels",
    "MetricData",
    "NumberPoint",
    "Rejected",
    "Resource",
    "RetryLater",
    "Scope",
    "Secret",
    "SpanData",
    "SpanEvent",
    "SpanKind",
    "SpanLink",
    "SpanStatus",
    "StoppingEvent",
    "TraceContext",
    "canonical_name",
    "hookimpl",
]
