"""The store that an application holds."""

from eventcore.store.event_store import EventStore
from eventcore.store.opening import open_store

__all__ = ["EventStore", "open_store"]
