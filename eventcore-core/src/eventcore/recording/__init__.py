"""Recording: instruments, spans and their collection into plain values. Knows nothing of exporters or event stores."""

from eventcore.recording.attributes import SpanLimits
from eventcore.recording.cells import Buffer, CounterCell, HistogramCell, UpDownCounterCell
from eventcore.recording.collector import Collector
from eventcore.recording.instruments import (
    Callback,
    CallbackHandle,
    Counter,
    Gauge,
    Histogram,
    Instrument,
    UpDownCounter,
)
from eventcore.recording.kinds import SeriesCaps
from eventcore.recording.names import Label
from eventcore.recording.recorder import Recorder
from eventcore.recording.registry import SECONDS, InstrumentRegistry
from eventcore.recording.spans import Span
from eventcore.recording.trace_context import AmbientContext, IdGenerator, TraceContext, traceparent_of
from eventcore.recording.tracing import RateSampler, RatioSampler, Sampler, SilentTracer, Tracer
from eventcore.recording.values import Collection, Exemplar, Resource, Scope, SpanData, SpanKind

__all__ = [
    "SECONDS",
    "AmbientContext",
    "Buffer",
    "Callback",
    "CallbackHandle",
    "Collection",
    "Collector",
    "Counter",
    "CounterCell",
    "Exemplar",
    "Gauge",
    "Histogram",
    "HistogramCell",
    "IdGenerator",
    "Instrument",
    "InstrumentRegistry",
    "Label",
    "RateSampler",
    "RatioSampler",
    "Recorder",
    "Resource",
    "Sampler",
    "Scope",
    "SeriesCaps",
    "SilentTracer",
    "Span",
    "SpanData",
    "SpanKind",
    "SpanLimits",
    "TraceContext",
    "Tracer",
    "UpDownCounter",
    "UpDownCounterCell",
    "traceparent_of",
]
