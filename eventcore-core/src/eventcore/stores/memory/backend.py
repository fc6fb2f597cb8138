"""The store in memory: everything in lists and dictionaries of this process, for tests and trials."""

from __future__ import annotations

from typing import final

from eventcore.stores.memory.ledger import MemoryLedger
from eventcore.stores.memory.log import MemoryLog
from eventcore.stores.sampling import BackendCounters, DatabaseSample


@final
class MemoryBackend:
    """A backend whose events exist as long as the backend does.

    Several stores of one process may be opened on the same backend; it belongs to one event loop.
    """

    system = "memory"

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.ledger = MemoryLedger(self.log.rows)
        self.counters = BackendCounters()

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self, timeout: float) -> None:
        """Nothing to release."""

    async def sample(self) -> DatabaseSample:
        """The head position and its time; a store in memory has no size on disk."""
        rows = self.log.rows
        return DatabaseSample(len(rows), rows[-1].recorded_at_ns if rows else None)
