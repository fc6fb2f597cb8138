"""What is recorded around the backend of a store: its calls, its events, its streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, final, get_args

from eventcore.catalogue.active_streams import ActiveStreams
from eventcore.catalogue.metrics import CallOutcome, Operation, StoreMetrics
from eventcore.catalogue.outages import Outages
from eventcore.recording import CounterCell, Histogram, HistogramCell
from eventcore.stores.values import NewEvent, Purpose
from eventcore.telemetry import Telemetry
from eventcore.version import __version__

# Those of OpenTelemetry's conventions for this metric: https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
_DB_CLIENT_BOUNDARIES: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


@final
class StoreInstruments(StoreMetrics):
    """The metrics of one store that are recorded around its backend and its codec."""

    def __init__(self, telemetry: Telemetry, store: str, system: str, schema_version: int, outages: Outages) -> None:
        super().__init__(telemetry)
        self._store = store
        self._system = system
        self._outages = outages
        self._calls: dict[tuple[Operation, CallOutcome], HistogramCell] = {}
        self._db_client = _db_client_duration(telemetry)
        self._written: dict[str, CounterCell] = {}
        self._sizes = self.events_size.labels(store)
        self._created = self.streams_created.labels(store)
        self._info = self.info.labels(store, __version__, system, str(schema_version))
        self.batch = self.append_batch.labels(store, system)
        self.read: Final[dict[Purpose, CounterCell]] = {
            purpose: self.events_read.labels(store, purpose) for purpose in get_args(Purpose)
        }
        self.active = ActiveStreams()
        self._active_handle = self.streams_active.add_callback(lambda: {(store,): self.active.count()})

    def opened(self) -> None:
        """Show the store as open."""
        self._info.set(1)

    def closed(self) -> None:
        """Stop showing what is true of an open store only."""
        self._info.set(None)
        self._active_handle.close()

    def succeeded(self, operation: Operation, seconds: float) -> None:
        """Record a call to the backend that succeeded."""
        if self._outages.failures:
            self._outages.succeeded()
        self._record(operation, "ok", seconds)
        if self._db_client is not None:
            self._db_client.labels(self._system, operation, "", self._store).record(seconds)

    def failed(self, operation: Operation, seconds: float, error: BaseException) -> None:
        """Record a call to the backend that failed, with the time that it took."""
        self._record(operation, "error", seconds)
        if self._db_client is not None:
            self._db_client.labels(self._system, operation, type(error).__name__, self._store).record(seconds)
        self._outages.failed(error, seconds)
        self.errors.labels(self._store, operation, type(error).__name__).add(1)

    def _record(self, operation: Operation, outcome: CallOutcome, seconds: float) -> None:
        cell = self._calls.get((operation, outcome))
        if cell is None:
            cell = self.operation_duration.labels(self._store, operation, self._system, outcome)
            self._calls[operation, outcome] = cell
        cell.record(seconds)

    def committed(self, events: Sequence[NewEvent]) -> None:
        """Count events that are durable now."""
        self._sizes.record_many([len(new.data) for new in events])
        recorded = [new.recorded for new in events]
        if created := sum([event.version == 1 for event in recorded]):
            self._created.add(created)
        types = [event.event_type for event in recorded]
        # Most batches hold one type, and counting them is slow to begin.
        counted = {types[0]: len(types)} if types and types.count(types[0]) == len(types) else Counter(types)
        for event_type, count in counted.items():
            cell = self._written.get(event_type)
            if cell is None:
                cell = self._written[event_type] = self.events_written.labels(self._store, event_type)
            cell.add(count)

    def codec_failed(self, direction: str, event_type: str) -> None:
        """Count an event that could not be encoded or decoded."""
        self.codec_errors.labels(self._store, direction, event_type).add(1)


def _db_client_duration(telemetry: Telemetry) -> Histogram | None:
    """The metric that dashboards of databases know, if it is asked for. It says the same as ``store.operation.duration``."""
    if not telemetry.configuration.telemetry.db_client_duration:
        return None
    return telemetry.histogram(
        "db.client.operation.duration",
        unit="s",
        description="Duration of database client operations.",
        labels=("db.system.name", "db.operation.name", "error.type", "store"),
        boundaries=_DB_CLIENT_BOUNDARIES,
    )
