"""The store in one SQLite file."""

from eventcore.stores.sqlite.backend import SqliteBackend
from eventcore.stores.sqlite.schema import Synchronous

__all__ = ["SqliteBackend", "Synchronous"]
