"""The names that applications and plugins may import: adding one is a decision, removing one breaks somebody."""

from __future__ import annotations

from importlib import import_module

import pytest

SURFACE = {
    "eventcore": """
        BusinessRuleViolation Command CommandResult Event EventCoreError EventMetadata EventStore OnError Projection
        RawEvent RecordedEvent RetryPolicy StreamId StreamState Telemetry TraceContext __version__ open_store
    """,
    "eventcore.errors": """
        AccessDenied BusinessRuleViolation CommandError CommandTimeout ConcurrencyConflict ConfigurationError CorruptEvent
        DefinitionError EventCoreError Fault HistoryDiverged IdempotencyKeyReused IncompatibleStore
        InvalidCommand InvalidEvent InvalidEventType
        InvalidExporter InvalidInput InvalidInstrument InvalidMeasurement InvalidMetadata InvalidPattern InvalidProjection
        InvalidStoreUrl InvalidStreamId LeadershipLost MissingDependency ProjectionError ProjectionFailed ProjectionTimeout
        StoreClosed StoreDraining StoreError StoreForked StoreUnavailable UnknownEventType WrongEventLoop
    """,
    "eventcore.exporting": """
        AmbientContext AttributeValue Attributes CONTRACT_VERSION CounterData Exemplar Exporter ExporterContext
        ExporterHooks GaugeData GiveUp HiddenKind HistogramData HistogramPoint Labels MetricData NumberPoint Rejected
        Resource RetryLater Scope Secret Signal SpanData SpanEvent SpanKind SpanLink SpanStatus StoppingEvent Temporality
        TraceContext canonical_name hookimpl
    """,
    "eventcore.serving": "Access Headers Limits Listener Request Response hash_password plain",
    "eventcore.health": """
        CheckResult Figure Health HealthCheck HealthListener HealthSettings HealthStatus asgi_app
    """,
    "eventcore.stores": """
        AppendHints AppendRequest Backend BackendPage CONFLICT Checkpoint CommandKey DeadLetter EventFilter EventLog
        EventsRedacted KNOWN_KEY KeyRecord Lease LogPage MemoryBackend NewEvent ProjectionLedger ProjectionRecord Purpose
        Redaction Refused RunState
        SCHEMA_VERSION START Snapshot SqliteBackend StateKey StoredEvent StreamPattern Verdict Verdicts
        backend_from_url
    """,
    "eventcore.telemetry": "AbsentExporter Collection ExporterReport FailedExporter Pipeline Report Telemetry",
    "eventcore.testing": """
        ExporterContract ExporterSetup Given LIMITS MakeBackend MovableClock ProjectionContract ReadModel Received ReceivedEvent
        ReceivedExemplar ReceivedLink ReceivedPoint ReceivedSpan RecordingExporter RecordingTelemetry StoreContract
        TelemetryAssertions When
        exporter_context given sample_collection sample_counter sample_gauge sample_histogram sample_span sample_spans
    """,
    "eventcore_otel": "OpenTelemetryExporter",
    "eventcore_prometheus": "PrometheusExporter Scrapes",
}


@pytest.mark.parametrize("module", SURFACE)
def test_the_names_of_a_public_module_are_these(module: str) -> None:
    if module.startswith("eventcore_"):
        pytest.importorskip(module)
    imported = import_module(module)
    assert sorted(imported.__all__) == sorted(SURFACE[module].split())
    assert all(hasattr(imported, name) for name in imported.__all__)


def test_the_errors_are_one_tree() -> None:
    errors = import_module("eventcore.errors")
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BaseException)]
    assert classes
    assert {one.__name__ for one in classes if not issubclass(one, errors.EventCoreError)} == set()
