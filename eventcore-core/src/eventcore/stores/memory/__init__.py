"""The store in memory: not durable, for tests and trials."""

from eventcore.stores.memory.backend import MemoryBackend

__all__ = ["MemoryBackend"]
