"""Counts attempts at an event whose handler never came back, so that an event that ends its process is given up in the end."""

from __future__ import annotations

from typing import Final, final

import msgspec

from eventcore.events.codec import StoredEvent
from eventcore.projections.checkpoints import CheckpointWriter
from eventcore.projections.context import RunContext
from eventcore.stores.values import Lease, LogPage

# Attempts that must be lost at least, whatever the policy says: a process may end by chance while its handler runs.
_MIN_LOST: Final = 3
# Batches without a transaction that may be applied and not committed: see `eventcore.projections.projector`.
_MAX_BATCHES: Final = 7


class ProcessEnded(Exception):
    """An attempt at an event did not come back, since the process ended or was stopped while the handler ran."""


@final
class LostAttempts:
    """The attempts at one event that did not come back, under one lease.

    When a lease was abandoned, the event that has ended its process is among those behind the checkpoint. As many as were in
    work at most are applied one by one, and each attempt is written down before it begins. An attempt that comes back, with
    success or an error, is not lost.
    """

    def __init__(self, context: RunContext, lease: Lease, checkpoints: CheckpointWriter) -> None:
        self._context = context
        self._lease = lease
        self._checkpoints = checkpoints
        self._state = lease.state
        memory = context.attempts
        if (memory.position, memory.lost + 1) == (self._state.attempt_position, self._state.attempts):
            # This process has written the attempt down, and lives: the attempt came back.
            self._state = msgspec.structs.replace(self._state, attempts=memory.lost)
        # Apply events one by one up to this position; `None`: up to the head position of the first page.
        self._until = None if lease.abandoned else lease.state.attempt_position
        # How many events the runner before may have begun behind the checkpoint.
        definition = context.definition
        self._remaining = definition.batch_size * (1 if definition.transactional else _MAX_BATCHES)
        self.limit = max(_MIN_LOST, definition.on_error.retries + 1)

    def one_by_one(self, page: LogPage) -> bool:
        """Whether the events of this page must be applied one by one."""
        if self._until is None:
            self._until = page.head
        if self._remaining <= 0 or page.rows[0].position > self._until:
            return False
        self._remaining -= len(page.rows)
        return True

    async def begin(self, row: StoredEvent) -> int:
        """Write down that an attempt at ``row`` begins; how many were lost before. From ``limit`` on, no attempt begins.

        Raises:
            StoreError: the store cannot write it down.
        """
        lost = self._state.attempts if self._state.attempt_position == row.position else 0
        if lost < self.limit:
            # What was applied before must not be applied again by a successor, which would count for this event.
            await self._checkpoints.commit(self._checkpoints.applied)
            await self._save(row, lost + 1)
            self._context.attempts.position, self._context.attempts.lost = row.position, lost
        return lost

    async def forget(self, row: StoredEvent) -> None:
        """Begin to count anew, so that the event is tried again when the projection is started after it was stopped."""
        await self._save(row, 0)

    async def _save(self, row: StoredEvent, attempts: int) -> None:
        state = msgspec.structs.replace(self._state, attempt_position=row.position, attempts=attempts)
        await self._context.backend.ledger.save_run_state(self._lease, state)
