"""For tests of exporters and of what an application records: sample data, a recording exporter, a clock, and a contract."""

from eventcore.testing.exporters.assertions import TelemetryAssertions
from eventcore.testing.exporters.clock import MovableClock
from eventcore.testing.exporters.received import (
    Received,
    ReceivedEvent,
    ReceivedExemplar,
    ReceivedLink,
    ReceivedPoint,
    ReceivedSpan,
)
from eventcore.testing.exporters.recording import RecordingExporter, RecordingTelemetry
from eventcore.testing.exporters.samples import (
    exporter_context,
    sample_collection,
    sample_counter,
    sample_gauge,
    sample_histogram,
    sample_span,
    sample_spans,
)
from eventcore.testing.exporters.setup import LIMITS, ExporterSetup

__all__ = [
    "LIMITS",
    "ExporterSetup",
    "MovableClock",
    "Received",
    "ReceivedEvent",
    "ReceivedExemplar",
    "ReceivedLink",
    "ReceivedPoint",
    "ReceivedSpan",
    "RecordingExporter",
    "RecordingTelemetry",
    "TelemetryAssertions",
    "exporter_context",
    "sample_collection",
    "sample_counter",
    "sample_gauge",
    "sample_histogram",
    "sample_span",
    "sample_spans",
]
