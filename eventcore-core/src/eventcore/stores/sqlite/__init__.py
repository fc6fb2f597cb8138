"""The store in one SQLite file."""

from eventcore.stores.sqlite.backend import SqliteBackend, Synchronous

__all__ = ["SqliteBackend", "Synchronous"]
