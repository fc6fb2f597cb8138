"""The store in memory: everything in lists and dictionaries of this process, for tests and trials."""

from __future__ import annotations

from typing import final

from eventcore.stores.memory.ledger import MemoryLedger
from eventcore.stores.memory.log import MemoryEvents, MemoryLog
from eventcore.stores.sampling import BackendCounters, DatabaseSample


@final
class MemoryBackend:
    """A backend whose events exist as long as the backend does.

    Several stores of one process may be opened on the same backend, or on others that share its events; all belong to one event
    loop.

    Args:
        events: the events to share; left out, the backend begins without any.
        ledger: the ledger to share with it.
    """

    system = "memory"

    def __init__(self, events: MemoryEvents | None = None, ledger: MemoryLedger | None = None) -> None:
        self._events = events or MemoryEvents()
        self.log = MemoryLog(self._events)
        self.ledger = ledger or MemoryLedger(self.log.rows)
        self.counters = BackendCounters()

    def another(self) -> MemoryBackend:
        """A backend with the same events and projections, as another process has one with a file."""
        return MemoryBackend(self._events, self.ledger)

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self, timeout: float) -> None:
        """Nothing to release."""

    async def sample(self) -> DatabaseSample:
        """The head position and its time; a store in memory has no size on disk."""
        rows = self._events.all.rows
        return DatabaseSample(len(rows), rows[-1].recorded_at_ns if rows else None)
