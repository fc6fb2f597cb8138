"""eventcore's OTLP exporter: metrics and spans over gRPC to an OpenTelemetry collector or any backend that speaks OTLP."""

from eventcore_otel.exporter import OpenTelemetryExporter

__all__ = ["OpenTelemetryExporter"]
