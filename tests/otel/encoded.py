"""Requests that the encoder and the outbox make of core's values."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from eventcore.exporting import Attributes, CounterData, GaugeData, HistogramData, MetricData, SpanData
from eventcore_otel.encoding import Encoded, Encoder, encode_resource
from eventcore_otel.outbox import Outbox


def trace_request(
    *chunks: Sequence[SpanData], resource: Attributes = (), encoder: Encoder | None = None
) -> ExportTraceServiceRequest:
    """The one request of a cycle of spans."""
    encoder = encoder or Encoder()
    return ExportTraceServiceRequest.FromString(_sent(resource, [encoder.spans(chunk) for chunk in chunks]))


def metrics_request(
    *chunks: Sequence[MetricData], resource: Attributes = (), encoder: Encoder | None = None
) -> ExportMetricsServiceRequest:
    """The one request of a cycle of metrics; each chunk holds data of one kind."""
    encoder = encoder or Encoder()
    encoder.begin_metrics()
    return ExportMetricsServiceRequest.FromString(_sent(resource, [_encode(encoder, chunk) for chunk in chunks]))


def metric_in(data: MetricData) -> metrics_pb2.Metric:
    """One instrument, encoded and parsed."""
    [resource] = metrics_request([data]).resource_metrics
    [metric] = resource.scope_metrics[0].metrics
    return metric


def span_in(span: SpanData) -> trace_pb2.Span:
    """One span, encoded and parsed."""
    [resource] = trace_request([span]).resource_spans
    [found] = resource.scope_spans[0].spans
    return found


def _encode(encoder: Encoder, chunk: Sequence[MetricData]) -> Encoded:
    counters = [data for data in chunk if isinstance(data, CounterData)]
    gauges = [data for data in chunk if isinstance(data, GaugeData)]
    histograms = [data for data in chunk if isinstance(data, HistogramData)]
    return [*encoder.counters(counters), *encoder.gauges(gauges), *encoder.histograms(histograms)]


def _sent(resource: Attributes, chunks: Sequence[Encoded]) -> bytes:
    outbox = Outbox(encode_resource(resource))
    for chunk in chunks:
        for group, items in chunk:
            outbox.add(group, items)
    requests: list[bytes] = []
    outbox.send_all(lambda request, count: requests.append(request))
    [request] = requests
    return request
