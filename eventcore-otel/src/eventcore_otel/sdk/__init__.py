"""Exporters of OpenTelemetry's SDK, as an alternative to eventcore's own OTLP exporter."""
