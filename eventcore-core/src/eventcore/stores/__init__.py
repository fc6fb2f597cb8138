"""Kinds of stores, and what it takes to write another: ``Backend`` and the plain values that pass through it.

Whoever writes one gives it to ``open_store``; ``eventcore.testing`` has the contract that it has to keep.
"""

from eventcore.events import StreamPattern
from eventcore.events.codec import StoredEvent
from eventcore.stores.base import (
    CONFLICT,
    SCHEMA_VERSION,
    START,
    AppendRequest,
    Backend,
    BackendPage,
    Checkpoint,
    DeadLetter,
    EventFilter,
    Lease,
    LogPage,
    NewEvent,
    ProjectionRecord,
    Purpose,
    Verdict,
)
from eventcore.stores.memory import MemoryBackend
from eventcore.stores.sqlite import SqliteBackend
from eventcore.stores.urls import backend_from_url

__all__ = [
    "CONFLICT",
    "SCHEMA_VERSION",
    "START",
    "AppendRequest",
    "Backend",
    "BackendPage",
    "Checkpoint",
    "DeadLetter",
    "EventFilter",
    "Lease",
    "LogPage",
    "MemoryBackend",
    "NewEvent",
    "ProjectionRecord",
    "Purpose",
    "SqliteBackend",
    "StoredEvent",
    "StreamPattern",
    "Verdict",
    "backend_from_url",
]
