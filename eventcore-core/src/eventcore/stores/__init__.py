"""The stores: what a backend is, its kinds, and the batching and caching that all of them share."""

from eventcore.stores.base import CONFLICT, SCHEMA_VERSION, AppendRequest, Backend, BackendPage, EventFilter, NewEvent, Verdict
from eventcore.stores.batching import Batcher, Candidate, Fate
from eventcore.stores.cache import StreamCache
from eventcore.stores.loading import Loaded, Loader
from eventcore.stores.memory import MemoryBackend
from eventcore.stores.patterns import StreamPattern
from eventcore.stores.sqlite import SqliteBackend
from eventcore.stores.urls import backend_from_url

__all__ = [
    "CONFLICT",
    "SCHEMA_VERSION",
    "AppendRequest",
    "Backend",
    "BackendPage",
    "Batcher",
    "Candidate",
    "EventFilter",
    "Fate",
    "Loaded",
    "Loader",
    "MemoryBackend",
    "NewEvent",
    "SqliteBackend",
    "StreamCache",
    "StreamPattern",
    "Verdict",
    "backend_from_url",
]
