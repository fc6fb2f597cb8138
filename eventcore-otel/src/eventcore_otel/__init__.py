"""Exports eventcore's metrics and spans over OTLP gRPC to an OpenTelemetry collector, or to any backend that accepts OTLP."""

from eventcore_otel.exporter import OpenTelemetryExporter

__all__ = ["OpenTelemetryExporter"]
