"""How far a projection has come, and how far the store knows: kept under one lease."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final, final

from eventcore.catalogue import ProjectionProgress
from eventcore.errors import StoreError
from eventcore.projections.positions import Positions
from eventcore.recording import HistogramCell
from eventcore.stores.base import Checkpoint, DeadLetter, Lease, ProjectionLedger

# Seconds between checkpoints of events that come one by one; what a crash may bring again.
_EVERY: Final = 0.05
_LAST_COMMIT: Final = 2.0


@final
class Checkpoints:
    """Moves the checkpoint behind what is applied.

    Args:
        durations: gets the seconds of each commit that applies nothing.

    Attributes:
        reached: everything up to here is applied.
        committed: the store knows of everything up to here.
    """

    def __init__(
        self,
        ledger: ProjectionLedger,
        lease: Lease,
        progress: ProjectionProgress,
        positions: Positions,
        durations: HistogramCell,
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._progress = progress
        self._positions = positions
        self._durations = durations
        self._committing: asyncio.Task[None] | None = None
        self._committed_at = perf_counter()
        self.committed = self.reached = lease.checkpoint
        self.advance(lease.checkpoint)

    def advance(self, checkpoint: Checkpoint) -> None:
        """Everything up to ``checkpoint`` is applied."""
        self.reached = checkpoint
        self._progress.reached(checkpoint.position)
        self._positions.reached(self._lease.projection, checkpoint.position)

    def due_in(self) -> float | None:
        """Seconds until the checkpoint ought to move, ``None`` when it is where it belongs."""
        if self.reached == self.committed:
            return None
        return max(0.0, self._committed_at + _EVERY - perf_counter())

    async def settle(self) -> None:
        """Commit what is applied, if that is due."""
        if self.due_in() == 0:
            await self.commit(self.reached)

    async def settle_meanwhile(self, most: int) -> None:
        """Begin to commit what is applied, one commit at a time; wait for it when more than ``most`` positions depend on it."""
        if self._committing is not None and not self._committing.done() and self._uncommitted() < most:
            return
        await self._committed_meanwhile()
        if self.reached != self.committed:
            self._committing = asyncio.create_task(
                self._move(self.reached), name="eventcore-projection-commit", context=contextvars.Context()
            )

    async def commit(self, after: Checkpoint, letters: Sequence[DeadLetter] = ()) -> None:
        """Commit now, with what is put aside."""
        await self._committed_meanwhile()
        if letters or after != self.committed:
            await self._move(after, letters)

    async def commit_with(self, after: Checkpoint, apply: Callable[[Any], Any]) -> None:
        """Apply and commit in one transaction."""
        await self._committed_meanwhile()
        await self._ledger.commit_checkpoint(self._lease, self.committed, after, (), apply)
        self._note(after)
        self.advance(after)

    async def leave(self) -> None:
        """Commit what is applied, so that it does not come again; who cannot, because the lease is lost, need not."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_LAST_COMMIT):
                await self.commit(self.reached)
        if (committing := self._committing) is not None:
            self._committing = None
            committing.cancel()
            await asyncio.wait([committing])
            if not committing.cancelled():
                # Read so that nobody complains that it was not.
                committing.exception()

    def _uncommitted(self) -> int:
        return self.reached.position - self.committed.position

    async def _committed_meanwhile(self) -> None:
        if (committing := self._committing) is not None:
            # Whoever is cancelled here waits for it again when it leaves.
            await asyncio.shield(committing)
            self._committing = None

    async def _move(self, after: Checkpoint, letters: Sequence[DeadLetter] = ()) -> None:
        begun = perf_counter()
        await self._ledger.commit_checkpoint(self._lease, self.committed, after, letters)
        self._durations.record(perf_counter() - begun)
        self._note(after)

    def _note(self, checkpoint: Checkpoint) -> None:
        self.committed = checkpoint
        self._committed_at = perf_counter()
        self._progress.checkpoint = checkpoint.position
