"""One term of leadership: from the checkpoint along the global order, page by page, until something ends it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final, NamedTuple, NoReturn, final

from eventcore.catalogue import ProjectionProgress, ProjectionSeries
from eventcore.errors import ProjectionFailed, StoreError
from eventcore.events.codec import StoredEvent
from eventcore.exporting.logs import bounded_logger
from eventcore.projections.checkpoints import Checkpoints
from eventcore.projections.definition import Definition
from eventcore.projections.handling import HandlerFailed, Handling
from eventcore.projections.links import writers
from eventcore.projections.positions import Positions
from eventcore.projections.reading import Pages
from eventcore.recording import Span
from eventcore.stores.base import Backend, Checkpoint, DeadLetter, Lease, LogPage
from eventcore.telemetry import Telemetry

# Seconds to wait for events before looking whether the store is still the one that was read.
_IDLE: Final = 1.0
# Seconds that a batch should take: those of a transaction hold up whoever writes.
_TARGET: Final = 0.2
_TARGET_INSIDE: Final = 0.05
# Batches that may be applied while the commit of one before them is on its way.
_MOST_UNCOMMITTED: Final = 5
_FIRST_BATCH: Final = 100
_MAX_ERROR: Final = 4096
_logger: Final = bounded_logger("eventcore.projections")


class _Piece(NamedTuple):
    """Rows to apply; with a failure, the one row that has been tried once."""

    rows: Sequence[StoredEvent]
    failure: HandlerFailed | None = None


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
        self._log = backend.log
        self._definition = definition
        self._handling = handling
        self._progress = progress
        self._series = series
        self._telemetry = telemetry
        self._limit = min(_FIRST_BATCH, definition.batch_size)
        self._pages = Pages(backend.log, definition.wanted, lambda: self._limit, progress.saw)
        self._checkpoints = Checkpoints(backend.ledger, lease, progress, positions, series.commit)

    @property
    def reached(self) -> Checkpoint:
        """Everything up to here is applied."""
        return self._checkpoints.reached

    async def run(self) -> NoReturn:
        """Apply what there is and what comes.

        Raises:
            ProjectionFailed: an event cannot be applied, and the policy is to stop.
            LeadershipLost: another runner has taken over.
            StoreError: the store cannot do its part.
        """
        checkpoints = self._checkpoints
        try:
            while True:
                page = await self._next_page()
                behind = page.end.position < page.head
                self._progress.state = "catching_up" if behind else "running"
                if page.rows:
                    await self._project(page)
                else:
                    checkpoints.advance(page.end)
                if behind and page.rows:
                    await checkpoints.settle_meanwhile(_MOST_UNCOMMITTED * self._limit)
                else:
                    await checkpoints.settle()
                if not behind:
                    await self._wait()
        finally:
            await self._pages.close()
            await checkpoints.leave()

    async def _next_page(self) -> LogPage:
        begun = perf_counter()
        try:
            page = await self._pages.next(self._checkpoints.reached)
        except StoreError:
            self._progress.head = None
            raise
        if page.rows:
            self._series.load.record(perf_counter() - begun)
        return page

    async def _wait(self) -> None:
        due = self._checkpoints.due_in()
        position = self._checkpoints.reached.position
        try:
            self._progress.saw(await self._log.wait_beyond(position, _IDLE if due is None else due))
        except StoreError:
            self._progress.head = None
            raise
        await self._checkpoints.settle()

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
            pieces = deque([_Piece(page.rows)])
            while pieces:
                piece, known = pieces.popleft()
                after = page.end if not pieces else _checkpoint(piece[-1])
                if known is not None:
                    await self._insist(piece[0], after, known, span)
                    continue
                try:
                    if (applied := await self._attempt(piece, after)) < len(piece):
                        pieces.appendleft(_Piece(piece[applied:]))
                except HandlerFailed as failure:
                    await self._checkpoints.commit(self._checkpoints.reached)
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
                self._checkpoints.advance(after if applied == len(piece) else _checkpoint(piece[applied - 1]))

    async def _apply_inside(self, piece: Sequence[StoredEvent], after: Checkpoint) -> None:
        events = await self._handling.decode(piece)
        begun = perf_counter()
        try:
            await self._checkpoints.commit_with(after, self._handling.inside(events))
        except StoreError as error:
            if type(error) is StoreError:
                # The database refuses what was written at its commit: not the store's fault.
                raise HandlerFailed(0, None) from error
            raise
        self._series.apply.record(self._handling.seconds)
        self._series.commit.record(max(0.0, perf_counter() - begun - self._handling.seconds))
        self._series.events["applied"].add(len(piece))

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
            await self._checkpoints.commit(after)
            self._series.events["skipped"].add(1)
        else:
            _logger.warning("%s; it is kept as a dead letter", what, exc_info=cause)
            await self._checkpoints.commit(after, (_letter(key, row, cause, tries),))
            self._series.events["failed"].add(1)
            self._series.dead_letters.add(1)
        self._checkpoints.advance(after)

    async def _pause(self, seconds: float) -> None:
        """Wait, and show that the loop lives."""
        while seconds > 0:
            self._progress.tick()
            await asyncio.sleep(min(seconds, _IDLE))
            seconds -= _IDLE
        self._progress.tick()

    def _adapt(self, seconds: float, count: int) -> None:
        """Make batches as large as their time allows."""
        target = _TARGET_INSIDE if self._definition.transactional else _TARGET
        if seconds > target:
            self._limit = max(1, min(self._limit, count) // 2)
        elif count >= self._limit and seconds < target / 2:
            self._limit = min(self._definition.batch_size, self._limit * 2)


def _checkpoint(row: StoredEvent) -> Checkpoint:
    return Checkpoint(row.position, row.event_id)


def _split(piece: Sequence[StoredEvent], failure: HandlerFailed) -> list[_Piece]:
    """What is left of a piece: the event that failed alone, or two halves when it is not known which one it is."""
    if (at := failure.at) is None:
        middle = len(piece) // 2
        return [_Piece(piece[:middle]), _Piece(piece[middle:])]
    parts = (_Piece(piece[failure.applied : at]), _Piece(piece[at : at + 1], failure), _Piece(piece[at + 1 :]))
    return [part for part in parts if part.rows]


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
