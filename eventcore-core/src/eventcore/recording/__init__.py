"""Recording: instruments, spans and their collection into plain values. Knows nothing of exporters or event stores."""

from eventcore.recording.cells import Buffer, CounterCell, HistogramCell, UpDownCounterCell
from eventcore.recording.collector import Collector
from eventcore.recording.ids import IdGenerator
from eventcore.recording.instruments import Callback, CallbackHandle, Counter, Gauge, Histogram, Instrument, UpDownCounter
from eventcore.recording.names import Label
from eventcore.recording.registry import SECONDS, InstrumentRegistry
from eventcore.recording.sampling import RateSampler
from eventcore.recording.spans import SilentTracer, Span, Tracer
from eventcore.recording.trace_context import TraceContext, traceparent_of
from eventcore.recording.values import Collection, Resource, SpanData, SpanKind

__all__ = [
    "SECONDS",
    "Buffer",
    "Callback",
    "CallbackHandle",
    "Collection",
    "Collector",
    "Counter",
    "CounterCell",
    "Gauge",
    "Histogram",
    "HistogramCell",
    "IdGenerator",
    "Instrument",
    "InstrumentRegistry",
    "Label",
    "RateSampler",
    "Resource",
    "SilentTracer",
    "Span",
    "SpanData",
    "SpanKind",
    "TraceContext",
    "Tracer",
    "UpDownCounter",
    "UpDownCounterCell",
    "traceparent_of",
]
