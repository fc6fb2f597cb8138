"""An event store for asyncio whose commands read and write several streams atomically."""

from eventcore.commands import Command, CommandResult, RetryPolicy
from eventcore.errors import BusinessRuleViolation, EventCoreError
from eventcore.events import Event, EventMetadata, RawEvent, RecordedEvent, StreamId, StreamState
from eventcore.projections import OnError, Projection
from eventcore.recording import TraceContext
from eventcore.store import EventStore, open_store
from eventcore.telemetry import Telemetry
from eventcore.version import __version__

__all__ = [
    "BusinessRuleViolation",
    "Command",
    "CommandResult",
    "Event",
    "EventCoreError",
    "EventMetadata",
    "EventStore",
    "OnError",
    "Projection",
    "RawEvent",
    "RecordedEvent",
    "RetryPolicy",
    "StreamId",
    "StreamState",
    "Telemetry",
    "TraceContext",
    "__version__",
    "open_store",
]
