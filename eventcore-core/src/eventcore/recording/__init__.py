"""Recording: instruments, spans and their collection into plain values. Knows nothing of exporters or event stores."""

from eventcore.recording.cells import Buffer, CounterCell, GaugeCell, HistogramCell, Timing, UpDownCounterCell
from eventcore.recording.collector import Collector
from eventcore.recording.ids import IdGenerator
from eventcore.recording.instruments import (
    Callback,
    CallbackHandle,
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Observations,
    UpDownCounter,
)
from eventcore.recording.names import Label, canonical_name
from eventcore.recording.registry import SECONDS, InstrumentRegistry
from eventcore.recording.sampling import RateSampler
from eventcore.recording.spans import AmbientContext, SilentTracer, Span, SpanRing, Tracer
from eventcore.recording.trace_context import TraceContext, traceparent_of
from eventcore.recording.values import (
    Attributes,
    AttributeValue,
    Collection,
    CounterData,
    GaugeData,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    NumberPoint,
    Resource,
    SpanData,
    SpanEvent,
    SpanKind,
    SpanLink,
    SpanStatus,
)

__all__ = [
    "SECONDS",
    "AmbientContext",
    "AttributeValue",
    "Attributes",
    "Buffer",
    "Callback",
    "CallbackHandle",
    "Collection",
    "Collector",
    "Counter",
    "CounterCell",
    "CounterData",
    "Gauge",
    "GaugeCell",
    "GaugeData",
    "Histogram",
    "HistogramCell",
    "HistogramData",
    "HistogramPoint",
    "IdGenerator",
    "Instrument",
    "InstrumentRegistry",
    "Label",
    "Labels",
    "MetricData",
    "NumberPoint",
    "Observations",
    "RateSampler",
    "Resource",
    "SilentTracer",
    "Span",
    "SpanData",
    "SpanEvent",
    "SpanKind",
    "SpanLink",
    "SpanRing",
    "SpanStatus",
    "Timing",
    "TraceContext",
    "Tracer",
    "UpDownCounter",
    "UpDownCounterCell",
    "canonical_name",
    "traceparent_of",
]
