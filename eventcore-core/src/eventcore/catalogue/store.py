"""What is recorded of a store: its calls, its events, its streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, final, get_args

from eventcore.catalogue.active_streams import ActiveStreams
from eventcore.catalogue.declaring import Declaring
from eventcore.recording import CounterCell, HistogramCell
from eventcore.stores.base import NewEvent, Purpose
from eventcore.telemetry import Telemetry
from eventcore.version import __version__

Operation: TypeAlias = Literal[
    "read_streams",
    "append",
    "scan",
    "head_position",
    "follow",
    "wait_beyond",
    "acquire_lease",
    "renew_lease",
    "release_lease",
    "commit_checkpoint",
    "projections",
    "dead_letters",
    "remove_dead_letter",
    "reset_projection",
]


@final
class StoreInstruments:
    """The ``store.*``, ``events.*``, ``streams.*``, ``codec.errors`` and ``info`` rows for one store."""

    def __init__(self, telemetry: Telemetry, store: str, system: str, schema_version: int) -> None:
        declared = Declaring(telemetry)
        self._store = store
        self._duration = declared.histogram("store.operation.duration")
        self._system = system
        self._ended: dict[tuple[Operation, str], HistogramCell] = {}
        self._errors = declared.counter("store.errors")
        self._written = declared.counter("events.written")
        self._written_by_type: dict[str, CounterCell] = {}
        self._size = declared.histogram("events.size").labels(store)
        self._created = declared.counter("streams.created").labels(store)
        self._codec_errors = declared.counter("codec.errors")
        self._info = declared.gauge("info").labels(store, __version__, system, str(schema_version))
        self.batch = declared.histogram("store.append.batch").labels(store, system)
        read = declared.counter("events.read")
        self.read: Final[dict[Purpose, CounterCell]] = {purpose: read.labels(store, purpose) for purpose in get_args(Purpose)}
        self.active = ActiveStreams()
        self._active_handle = declared.gauge("streams.active").add_callback(lambda: {(store,): self.active.count()})

    def opened(self) -> None:
        """Show the store as open."""
        self._info.set(1)

    def closed(self) -> None:
        """Show what is only true of an open store no longer."""
        self._info.set(None)
        self._active_handle.close()

    def succeeded(self, operation: Operation, seconds: float) -> None:
        """Record a call to the backend that went well."""
        self._record(operation, "ok", seconds)

    def failed(self, operation: Operation, seconds: float, error: BaseException) -> None:
        """Record a call to the backend that failed, with the time that it took."""
        self._record(operation, "error", seconds)
        self._errors.labels(self._store, operation, type(error).__name__).add(1)

    def _record(self, operation: Operation, outcome: str, seconds: float) -> None:
        cell = self._ended.get((operation, outcome))
        if cell is None:
            cell = self._ended[operation, outcome] = self._duration.labels(self._store, operation, self._system, outcome)
        cell.record(seconds)

    def committed(self, events: Sequence[NewEvent]) -> None:
        """Count events that are durable now."""
        self._size.record_many([len(new.data) for new in events])
        recorded = [new.recorded for new in events]
        if created := sum([event.version == 1 for event in recorded]):
            self._created.add(created)
        for event_type, count in Counter([event.event_type for event in recorded]).items():
            cell = self._written_by_type.get(event_type)
            if cell is None:
                cell = self._written_by_type[event_type] = self._written.labels(self._store, event_type)
            cell.add(count)

    def codec_failed(self, direction: str, event_type: str) -> None:
        """Count an event that could not be encoded or decoded."""
        self._codec_errors.labels(self._store, direction, event_type).add(1)
