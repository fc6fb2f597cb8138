"""The built-in stores, and what a store of one's own implements: ``Backend``, with an ``EventLog`` and a ``ProjectionLedger``.

Pass an instance to ``open_store``. ``eventcore.testing`` has the tests that every store must pass.
"""

from eventcore.events import StreamPattern
from eventcore.events.codec import StoredEvent
from eventcore.stores.base import Backend, EventLog, ProjectionLedger
from eventcore.stores.memory import MemoryBackend
from eventcore.stores.sqlite import SqliteBackend
from eventcore.stores.urls import backend_from_url
from eventcore.stores.values import (
    CONFLICT,
    KNOWN_KEY,
    SCHEMA_VERSION,
    START,
    AppendHints,
    AppendRequest,
    BackendPage,
    Checkpoint,
    CommandKey,
    DeadLetter,
    EventFilter,
    EventsRedacted,
    KeyRecord,
    Lease,
    LogPage,
    NewEvent,
    ProjectionRecord,
    Purpose,
    Redaction,
    Refused,
    RunState,
    Snapshot,
    StateKey,
    Verdict,
    Verdicts,
)

__all__ = [
    "CONFLICT",
    "KNOWN_KEY",
    "SCHEMA_VERSION",
    "START",
    "AppendHints",
    "AppendRequest",
    "Backend",
    "BackendPage",
    "Checkpoint",
    "CommandKey",
    "DeadLetter",
    "EventFilter",
    "EventLog",
    "EventsRedacted",
    "KeyRecord",
    "Lease",
    "LogPage",
    "MemoryBackend",
    "NewEvent",
    "ProjectionLedger",
    "ProjectionRecord",
    "Purpose",
    "Redaction",
    "Refused",
    "RunState",
    "Snapshot",
    "SqliteBackend",
    "StateKey",
    "StoredEvent",
    "StreamPattern",
    "Verdict",
    "Verdicts",
    "backend_from_url",
]
