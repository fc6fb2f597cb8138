"""Follows the global order under one lease: read a page, apply it, commit the checkpoint, wait for more."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final, NoReturn, final

from eventcore.errors import StoreError, StoreUnavailable
from eventcore.projections.attempts import LostAttempts
from eventcore.projections.batches import BatchApplier
from eventcore.projections.checkpoints import CheckpointWriter
from eventcore.projections.context import RunContext
from eventcore.projections.handler import LeaseHold
from eventcore.projections.read_ahead import ReadAhead
from eventcore.stores.values import Checkpoint, Lease, LogPage

# Seconds to wait for new events before the store is read again, to see that its history still holds the checkpoint.
_MAX_WAIT: Final = 1.0
# Seconds that applying a batch should take. A transaction is shorter, since on SQLite it keeps commands waiting.
_BATCH_SECONDS: Final = 0.2
_TRANSACTION_SECONDS: Final = 0.05
# Batches that may be applied while an earlier one is being committed. A crash applies them again.
_MAX_UNCOMMITTED_BATCHES: Final = 5
# Seconds between reads while the store cannot tell when events come.
_POLL: Final = 0.2
_FIRST_BATCH_SIZE: Final = 100


@final
class Projector:
    """Applies events from the checkpoint of ``lease`` on. Its ``run`` is called once, in a separate task."""

    def __init__(self, context: RunContext, lease: Lease, hold: LeaseHold) -> None:
        context.handler.hold = hold
        self._backend = context.backend
        self._definition = context.definition
        self._progress = context.progress
        self._series = context.series
        self._batch_size = min(_FIRST_BATCH_SIZE, context.definition.batch_size)
        self._pages = ReadAhead(context, lambda: self._batch_size)
        self._checkpoints = CheckpointWriter(context, lease)
        self._batches = BatchApplier(context, self._checkpoints, LostAttempts(context, lease, self._checkpoints))

    @property
    def applied(self) -> Checkpoint:
        """Every event up to here is applied."""
        return self._checkpoints.applied

    async def run(self) -> NoReturn:
        """Apply the events that are there and those that come, until the task is cancelled.

        An event is applied first and its checkpoint committed after that (or both in one transaction). So no event is lost; a
        crash in between applies it again.

        Raises:
            ProjectionFailed: an event cannot be applied, and the policy is to stop.
            LeadershipLost: another runner has taken over.
            StoreError: the store cannot be read or cannot commit.
        """
        checkpoints = self._checkpoints
        try:
            while True:
                begun = perf_counter()
                page = await self._pages.next(checkpoints.applied)
                behind = page.end.position < page.head
                self._progress.state = "catching_up" if behind else "running"
                if page.rows:
                    self._series.load.record(perf_counter() - begun)
                    await self._apply(page)
                else:
                    # The filter left out every event of the page: they count as applied.
                    checkpoints.advance(page.end)
                if behind and page.rows:
                    await checkpoints.commit_in_background(_MAX_UNCOMMITTED_BATCHES * self._batch_size)
                else:
                    await checkpoints.commit_if_due()
                if not behind:
                    await self._wait_for_events()
        except StoreError:
            # The head position may grow unseen from now on. No lag is better than one that is too small.
            self._progress.head = None
            raise
        finally:
            # When the task is cancelled, this is the orderly end: a second cancellation would skip the last commit.
            await self._pages.close()
            await checkpoints.close()

    async def _apply(self, page: LogPage) -> None:
        """Apply a page, and choose the size of later batches so that each takes about the intended time."""
        begun = perf_counter()
        await self._batches.apply(page)
        seconds, count = perf_counter() - begun, len(page.rows)
        intended = _TRANSACTION_SECONDS if self._definition.transactional else _BATCH_SECONDS
        if seconds > intended:
            self._batch_size = max(1, min(self._batch_size, count) // 2)
        elif count >= self._batch_size and seconds < intended / 2:
            self._batch_size = min(self._definition.batch_size, self._batch_size * 2)

    async def _wait_for_events(self) -> None:
        due = self._checkpoints.due_in()
        position = self._checkpoints.applied.position
        try:
            self._progress.observe_head(await self._backend.log.wait_beyond(position, _MAX_WAIT if due is None else due))
        except StoreUnavailable:
            # For example no connection is free for notifications. The next read shows whether the store is away.
            await asyncio.sleep(_POLL if due is None else min(due, _POLL))
        await self._checkpoints.commit_if_due()
