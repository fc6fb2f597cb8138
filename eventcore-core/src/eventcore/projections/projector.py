"""One term of leadership: from the checkpoint along the global order, page by page, until something ends it."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Final, NoReturn, final

from eventcore.catalogue import ProjectionProgress, ProjectionSeries
from eventcore.codec import StoredEvent
from eventcore.errors import ProjectionFailed, StoreError
from eventcore.exporting.logs import bounded_logger
from eventcore.projections.definition import Definition
from eventcore.projections.handling import HandlerFailed, Handling
from eventcore.projections.links import writers
from eventcore.projections.positions import Positions
from eventcore.projections.reading import Pages
from eventcore.recording import Span
from eventcore.stores.base import Backend, Checkpoint, DeadLetter, Lease, LogPage
from eventcore.telemetry import Telemetry

__all__ = ["Projector"]

# Seconds between checkpoints of events that come one by one; what a crash may bring again.
_CHECKPOINT_EVERY: Final = 0.05
# Seconds to wait for events before looking whether the store is still the one that was read.
_IDLE: Final = 1.0
# Seconds that a batch should take: those of a transaction hold up whoever writes.
_TARGET: Final = 0.2
_TARGET_INSIDE: Final = 0.05
# Batches that may be applied while the commit of one before them is on its way.
_MOST_UNCOMMITTED: Final = 5
_FIRST_BATCH: Final = 100
_LAST_COMMIT: Final = 2.0
_MAX_ERROR: Final = 4096
_logger: Final = bounded_logger("eventcore.projections")


@final
class Projector:
    """Follows the global order under one lease."""

    def __init__(
        self,
        backend: Backend,
        definition: Definition,
        handling: Handling,
        lease: Lease,
        progress: ProjectionProgress,
        positions: Positions,
        series: ProjectionSeries,
        telemetry: Telemetry,
    ) -> None:
        self._backend = backend
        self._definition = definition
        self._handling = handling
        self._lease = lease
        self._progress = progress
        self._positions = positions
        self._series = series
        self._telemetry = telemetry
        self._committed = self._reached = lease.checkpoint
        self._committed_at = perf_counter()
        self._limit = min(_FIRST_BATCH, definition.batch_size)
        self._pages = Pages(backend, definition.wanted, lambda: self._limit, progress.saw)
        self._committing: asyncio.Task[None] | None = None

    async def run(self) -> NoReturn:
        """Apply what there is and what comes.

        Raises:
            ProjectionFailed: an event cannot be applied, and the policy is to stop.
            LeadershipLost: another runner has taken over.
            StoreError: the store cannot do its part.
        """
        self._advance(self._reached)
        try:
            while True:
                page = await self._next_page()
                behind = page.end.position < page.head
                self._progress.state = "catching_up" if behind else "running"
                if page.rows:
                    await self._project(page)
                else:
                    self._advance(page.end)
                if behind and page.rows:
                    await self._settle_meanwhile()
                else:
                    await self._settle()
                if not behind:
                    await self._wait()
        except asyncio.CancelledError:
            await self._leave()
            raise
        finally:
            await self._pages.close()
            await self._drop_commit()

    async def _next_page(self) -> LogPage:
        begun = perf_counter()
        try:
            page = await self._pages.next(self._reached)
        except StoreError:
            self._progress.head = None
            raise
        if page.rows:
            self._series.load.record(perf_counter() - begun)
        return page

    async def _wait(self) -> None:
        timeout = _IDLE
        if self._reached != self._committed:
            timeout = max(0.0, self._committed_at + _CHECKPOINT_EVERY - perf_counter())
        try:
            self._progress.saw(await self._backend.wait_beyond(self._reached.position, timeout))
        except StoreError:
            self._progress.head = None
            raise
        await self._settle()

    # A page is applied in pieces: all of it, unless an event in it fails or the time is up.

    async def _project(self, page: LogPage) -> None:
        begun = perf_counter()
        with self._telemetry.span(f"project {self._definition.key}", kind="consumer") as span:
            if span.recording:
                span.add_links(writers(page.rows))
                span.set_attribute("eventcore.projection", self._definition.key)
                span.set_attribute("eventcore.events", len(page.rows))
                span.set_attribute("eventcore.position.first", page.rows[0].position)
                span.set_attribute("eventcore.position.last", page.rows[-1].position)
            pieces = deque([page.rows])
            while pieces:
                piece = pieces.popleft()
                after = page.end if not pieces else _checkpoint(piece[-1])
                try:
                    if (applied := await self._attempt(piece, after)) < len(piece):
                        pieces.appendleft(piece[applied:])
                except HandlerFailed as failure:
                    await self._settle(urgent=True)
                    if len(piece) == 1:
                        await self._insist(piece[0], after, failure, span)
                    else:
                        pieces.extendleft(reversed(_split(piece, failure)))
        self._adapt(perf_counter() - begun, len(page.rows))

    async def _attempt(self, piece: Sequence[StoredEvent], after: Checkpoint) -> int:
        """Apply the piece, or as much of it as time allows; how many events that was.

        Raises:
            HandlerFailed: one of them could not be applied; those before it that are, are noted.
        """
        if self._definition.transactional:
            await self._apply_inside(piece, after)
            return len(piece)
        handling, begun = self._handling, perf_counter()
        handling.applied = 0
        try:
            return await handling.apply(piece)
        finally:
            if applied := handling.applied:
                self._series.apply.record(perf_counter() - begun)
                self._series.events["applied"].add(applied)
                self._advance(after if applied == len(piece) else _checkpoint(piece[applied - 1]))

    async def _apply_inside(self, piece: Sequence[StoredEvent], after: Checkpoint) -> None:
        events = await self._handling.decode(piece)
        begun = perf_counter()
        try:
            await self._committed_meanwhile()
            await self._backend.commit_checkpoint(self._lease, self._committed, after, (), self._handling.inside(events))
        except StoreError as error:
            if type(error) is StoreError:
                # The database refuses what was written at its commit: not the store's fault.
                raise HandlerFailed(0, None) from error
            raise
        self._series.apply.record(self._handling.seconds)
        self._series.commit.record(max(0.0, perf_counter() - begun - self._handling.seconds))
        self._series.events["applied"].add(len(piece))
        self._note_committed(after)
        self._advance(after)

    async def _insist(self, row: StoredEvent, after: Checkpoint, failure: HandlerFailed, span: Span) -> None:
        """Try an event again, and at last do what the policy says."""
        policy = self._definition.on_error
        tries = 1
        while True:
            cause = _cause(failure)
            self._series.failed(cause)
            span.record_exception(cause)
            if tries > policy.retries:
                break
            self._series.retried(cause)
            await self._pause(policy.delay(tries))
            tries += 1
            try:
                await self._attempt([row], after)
            except HandlerFailed as again:
                failure = again
            else:
                return
        key = self._definition.key
        what = (
            f"projection {key!r} cannot apply {row.event_type} of stream {str(row.stream_id)!r} at position {row.position}, "
            f"tried {'once' if tries == 1 else f'{tries} times'}: {type(cause).__name__}: {cause}"
        )
        if policy.then == "stop":
            self._series.events["failed"].add(1)
            raise ProjectionFailed(f"{what}; mend the handler or the event, or let OnError(then=...) skip it") from cause
        span.set_status("error", what)
        if policy.then == "skip":
            _logger.warning("%s; it is skipped", what, exc_info=cause)
            await self._commit(after)
            self._series.events["skipped"].add(1)
        else:
            _logger.warning("%s; it is kept as a dead letter", what, exc_info=cause)
            await self._commit(after, (_letter(key, row, cause, tries),))
            self._series.events["failed"].add(1)
            self._series.dead_letters.add(1)
        self._advance(after)

    async def _pause(self, seconds: float) -> None:
        """Wait, and show that the loop lives."""
        while seconds > 0:
            self._progress.tick()
            await asyncio.sleep(min(seconds, _IDLE))
            seconds -= _IDLE
        self._progress.tick()

    # Checkpoints

    async def _settle(self, *, urgent: bool = False) -> None:
        """Keep how far it has come, if that is due."""
        if self._reached != self._committed and (urgent or perf_counter() - self._committed_at >= _CHECKPOINT_EVERY):
            await self._commit(self._reached)

    async def _settle_meanwhile(self) -> None:
        """Keep how far it has come while the next page is applied; one commit is on its way at a time."""
        uncommitted = self._reached.position - self._committed.position
        if self._committing is not None and not self._committing.done() and uncommitted < _MOST_UNCOMMITTED * self._limit:
            return
        await self._committed_meanwhile()
        if self._reached != self._committed:
            self._committing = asyncio.create_task(
                self._move(self._reached), name="eventcore-projection-commit", context=contextvars.Context()
            )

    async def _committed_meanwhile(self) -> None:
        if (committing := self._committing) is not None:
            # Whoever is cancelled here waits for it again when it leaves.
            await asyncio.shield(committing)
            self._committing = None

    async def _commit(self, after: Checkpoint, letters: Sequence[DeadLetter] = ()) -> None:
        await self._committed_meanwhile()
        await self._move(after, letters)

    async def _move(self, after: Checkpoint, letters: Sequence[DeadLetter] = ()) -> None:
        begun = perf_counter()
        await self._backend.commit_checkpoint(self._lease, self._committed, after, letters)
        self._series.commit.record(perf_counter() - begun)
        self._note_committed(after)

    def _note_committed(self, checkpoint: Checkpoint) -> None:
        self._committed = checkpoint
        self._committed_at = perf_counter()
        self._progress.checkpoint = checkpoint.position

    def _advance(self, checkpoint: Checkpoint) -> None:
        self._reached = checkpoint
        self._progress.reached(checkpoint.position)
        self._positions.reached(self._definition.key, checkpoint.position)

    def _adapt(self, seconds: float, count: int) -> None:
        """Make batches as large as their time allows."""
        target = _TARGET_INSIDE if self._definition.transactional else _TARGET
        if seconds > target:
            self._limit = max(1, min(self._limit, count) // 2)
        elif count >= self._limit and seconds < target / 2:
            self._limit = min(self._definition.batch_size, self._limit * 2)

    # Ends

    async def _leave(self) -> None:
        """Keep what was applied, so that it does not come again; who has lost the lease cannot, and need not."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_LAST_COMMIT):
                await self._settle(urgent=True)

    async def _drop_commit(self) -> None:
        if (committing := self._committing) is not None:
            self._committing = None
            committing.cancel()
            await asyncio.wait([committing])
            if not committing.cancelled():
                # Read so that nobody complains that it was not.
                committing.exception()


def _checkpoint(row: StoredEvent) -> Checkpoint:
    return Checkpoint(row.position, row.event_id)


def _split(piece: Sequence[StoredEvent], failure: HandlerFailed) -> list[Sequence[StoredEvent]]:
    """What is left of a piece: the event that fails alone, or two halves when it is not known which one it is."""
    if failure.at is None:
        middle = len(piece) // 2
        return [piece[:middle], piece[middle:]]
    parts = (piece[failure.applied : failure.at], piece[failure.at : failure.at + 1], piece[failure.at + 1 :])
    return [part for part in parts if part]


def _cause(failure: HandlerFailed) -> BaseException:
    return failure.__cause__ or failure


def _letter(projection: str, row: StoredEvent, cause: BaseException, attempts: int) -> DeadLetter:
    return DeadLetter(
        projection,
        row.position,
        row.event_id,
        type(cause).__name__,
        storable(str(cause)),
        attempts,
        time.time_ns(),
    )


def storable(text: str) -> str:
    """A text that every store can keep."""
    return text[:_MAX_ERROR].replace("\0", "\ufffd").encode(errors="replace").decode()
