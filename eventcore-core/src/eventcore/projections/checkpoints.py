"""Commits how far a projection has been applied, under the lease of its runner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final, final

from eventcore.errors import StoreError
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.projections.context import RunContext
from eventcore.stores.values import Checkpoint, DeadLetter, Lease

# Seconds between commits while events come one by one. A crash applies the events of this time again.
_INTERVAL: Final = 0.05
_CLOSE_TIMEOUT: Final = 2.0


@final
class CheckpointWriter:
    """Moves the checkpoint in the store behind the events that are applied.

    Only the task of the projector calls it, so ``applied`` and ``committed`` need no lock. At most one commit is in flight:
    every commit waits for the one in the background first, because the store accepts a checkpoint only if the stored one is
    still the one before (and under the newest lease). A runner whose lease was taken over can therefore never move it.

    Attributes:
        applied: every event up to here is applied.
        committed: the checkpoint in the store, as far as this process knows.
    """

    def __init__(self, context: RunContext, lease: Lease) -> None:
        self._backend = context.backend
        self._lease = lease
        self._context = context
        self._background: OwnedTask[None] | None = None
        self._committed_at = perf_counter()
        self.committed = self.applied = lease.checkpoint
        self.advance(lease.checkpoint)

    def advance(self, checkpoint: Checkpoint) -> None:
        """Every event up to ``checkpoint`` is applied."""
        self.applied = checkpoint
        self._context.progress.advance(checkpoint.position)
        self._context.positions.advance(self._lease.projection, checkpoint.position)

    def due_in(self) -> float | None:
        """Seconds until the next commit is due; ``None`` when everything is committed."""
        if self.applied == self.committed:
            return None
        return max(0.0, self._committed_at + _INTERVAL - perf_counter())

    async def commit_if_due(self) -> None:
        """Commit what is applied, at most every 50 ms."""
        if self.due_in() == 0:
            await self.commit(self.applied)

    async def commit_in_background(self, max_uncommitted: int) -> None:
        """Start to commit what is applied, while the next batch is applied.

        Returns at once while the commit before is in flight, unless ``max_uncommitted`` events or more are not committed.
        """
        uncommitted = self.applied.position - self.committed.position
        if self._background is not None and not self._background.done() and uncommitted < max_uncommitted:
            return
        await self._finish_background()
        if self.applied != self.committed:
            self._background = spawn(self._commit(self.applied), "eventcore-projection-commit")

    async def commit(self, checkpoint: Checkpoint, dead_letters: Sequence[DeadLetter] = ()) -> None:
        """Commit now: move the checkpoint, and store ``dead_letters`` in the same transaction."""
        await self._finish_background()
        if dead_letters or checkpoint != self.committed:
            await self._commit(checkpoint, dead_letters)

    async def commit_with(self, checkpoint: Checkpoint, apply: Callable[[Any], Any]) -> None:
        """Apply events and move the checkpoint in one transaction of the store."""
        await self._finish_background()
        await self._backend.ledger.commit_checkpoint(self._lease, self.committed, checkpoint, (), apply)
        self._mark_committed(checkpoint)
        self.advance(checkpoint)

    async def close(self) -> None:
        """Commit what is applied, so that the next runner does not apply it again. Gives up after 2 seconds.

        A commit that was cancelled before may or may not have happened. If it has, the checkpoint is ahead of ``committed``
        and the store refuses this last commit. That is harmless: only applied events were ever committed, and the next runner
        begins at the checkpoint in the store. The same holds when the lease is lost.
        """
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.commit(self.applied)
        if (background := self._background) is not None:
            self._background = None
            await cancel_and_wait(background)

    async def _finish_background(self) -> None:
        """Wait for the commit in the background, and raise its error."""
        if (background := self._background) is not None:
            # A cancellation of this task leaves the commit running; `close` waits for it again.
            await asyncio.shield(background)
            self._background = None

    async def _commit(self, checkpoint: Checkpoint, dead_letters: Sequence[DeadLetter] = ()) -> None:
        begun = perf_counter()
        await self._backend.ledger.commit_checkpoint(self._lease, self.committed, checkpoint, dead_letters)
        self._context.series.commit.record(perf_counter() - begun)
        self._mark_committed(checkpoint)

    def _mark_committed(self, checkpoint: Checkpoint) -> None:
        self.committed = checkpoint
        self._committed_at = perf_counter()
        self._context.progress.checkpoint = checkpoint.position
