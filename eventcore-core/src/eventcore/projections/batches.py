"""Applies one page of events as one batch: finds the event that fails, tries it again, and then does what ``OnError`` says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final, NamedTuple, final

import msgspec

from eventcore.errors import ProjectionFailed
from eventcore.events.codec import StoredEvent
from eventcore.exporting.logs import bounded_logger
from eventcore.ground import describe_error, without_values
from eventcore.projections.attempts import LostAttempts, ProcessEnded
from eventcore.projections.checkpoints import CheckpointWriter
from eventcore.projections.context import RunContext
from eventcore.projections.dead_letters import dead_letter
from eventcore.projections.handler import HandlerFailed, refused_commit_as_failure
from eventcore.recording import Span, TraceContext
from eventcore.stores.values import Checkpoint, LogPage

# Longest sleep in seconds between two heartbeats during a pause before a retry.
_HEARTBEAT: Final = 1.0
_MAX_LINKS: Final = 64
_logger: Final = bounded_logger("eventcore.projections")


class _Piece(NamedTuple):
    """Events of a page to apply in one go. With ``failure``, it is one event, which has failed once."""

    rows: Sequence[StoredEvent]
    failure: HandlerFailed | None = None


@final
class BatchApplier:
    """Applies pages, one at a time, in order."""

    def __init__(self, context: RunContext, checkpoints: CheckpointWriter, attempts: LostAttempts) -> None:
        self._key = context.definition.key
        self._definition = context.definition
        self._handler = context.handler
        self._progress = context.progress
        self._series = context.series
        self._telemetry = context.telemetry
        self._checkpoints = checkpoints
        self._attempts = attempts
        self._log_fields = {"eventcore.store": context.series.store, "eventcore.projection": self._key}

    async def apply(self, page: LogPage) -> None:
        """Apply a page that has events, in a span that begins a trace and links to the spans that wrote the events.

        Raises:
            ProjectionFailed: an event cannot be applied, and the policy is to stop.
            StoreError: the store cannot commit.
        """
        with self._telemetry.span(f"project {self._key}", kind="consumer") as span:
            span.log_fields = self._log_fields
            if span.recording:
                span.add_links(_writing_spans(page.rows))
                span.set_attribute("eventcore.projection", self._key)
                span.set_attribute("eventcore.events", len(page.rows))
                span.set_attribute("eventcore.position.first", page.rows[0].position)
                span.set_attribute("eventcore.position.last", page.rows[-1].position)
            # One piece at first. A failure, or a handler that takes too long, splits it.
            one_by_one = self._attempts.one_by_one(page)
            pieces = deque([_Piece([row]) for row in page.rows] if one_by_one else [_Piece(page.rows)])
            while pieces:
                rows, failure = pieces.popleft()
                end = page.end if not pieces else _checkpoint(rows[-1])
                lost = await self._attempts.begin(rows[0]) if one_by_one else 0
                if lost >= self._attempts.limit:
                    await self._give_up_lost(rows[0], end, lost, span)
                    continue
                if failure is None:
                    try:
                        if (applied := await self._attempt(rows, end)) < len(rows):
                            pieces.appendleft(_Piece(rows[applied:]))
                        continue
                    except HandlerFailed as error:
                        # Retries may take long, and a failed transaction is undone: keep what was applied before.
                        await self._checkpoints.commit(self._checkpoints.applied)
                        if len(rows) > 1:
                            pieces.extendleft(reversed(_split(rows, error)))
                            continue
                        failure = error
                await self._retry(rows[0], end, failure, lost, span)

    async def _attempt(self, rows: Sequence[StoredEvent], end: Checkpoint) -> int:
        """Apply ``rows``, up to the checkpoint ``end``; how many were applied before the time was up.

        Raises:
            HandlerFailed: an event could not be applied. Events applied before it count as applied.
        """
        if self._definition.transactional:
            await self._attempt_in_transaction(rows, end)
            return len(rows)
        handler, begun = self._handler, perf_counter()
        handler.applied = 0
        try:
            return await handler.apply(rows)
        finally:
            # Also when this task is cancelled: the last commit then covers all events that were applied.
            if applied := handler.applied:
                self._series.apply.record(perf_counter() - begun)
                self._series.events["applied"].add(applied)
                self._checkpoints.advance(end if applied == len(rows) else _checkpoint(rows[applied - 1]))

    async def _attempt_in_transaction(self, rows: Sequence[StoredEvent], end: Checkpoint) -> None:
        handler = self._handler
        events = await handler.decode(rows)
        begun = perf_counter()
        with refused_commit_as_failure():
            await self._checkpoints.commit_with(end, handler.in_transaction(events))
        self._series.apply.record(handler.seconds)
        self._series.commit.record(max(0.0, perf_counter() - begun - handler.seconds))
        self._series.events["applied"].add(len(rows))

    async def _retry(self, row: StoredEvent, end: Checkpoint, failure: HandlerFailed, lost: int, span: Span) -> None:
        """Try an event that has failed again, as often as the policy says; then give it up. Lost attempts count, too."""
        policy = self._definition.on_error
        attempts = 1 + lost
        while True:
            self._series.failed(failure.cause)
            # What a handler or the database says may repeat the event or a row: only its caller gets that.
            error = without_values(failure.cause)
            self._progress.problem = describe_error(error)
            span.record_exception(error)
            if attempts > policy.retries:
                return await self._give_up(row, end, failure.cause, attempts, span)
            self._series.retried(failure.cause)
            if attempts == 1 + lost:
                _logger.warning(
                    "projection %r tries an event again, up to %d times: %s of stream %r at position %d: %s",
                    *(
                        self._key,
                        policy.retries - lost,
                        row.event_type,
                        str(row.stream_id),
                        row.position,
                        describe_error(error),
                    ),
                    exc_info=error,
                )
            await self._pause(policy.delay(attempts))
            attempts += 1
            try:
                await self._attempt([row], end)
            except HandlerFailed as again:
                failure = again
            else:
                return None

    async def _give_up_lost(self, row: StoredEvent, end: Checkpoint, lost: int, span: Span) -> None:
        error = ProcessEnded(f"the process ended while the handler ran, in each of {lost} attempts")
        self._series.failed(error)
        span.record_exception(error)
        if self._definition.on_error.then == "stop":
            await self._attempts.forget(row)
        await self._give_up(row, end, error, lost, span)

    async def _give_up(self, row: StoredEvent, end: Checkpoint, error: BaseException, attempts: int, span: Span) -> None:
        policy, stand_in = self._definition.on_error.then, without_values(error)
        what = (
            f"projection {self._key!r} cannot apply {row.event_type} of stream {str(row.stream_id)!r} at position "
            f"{row.position}, tried {'once' if attempts == 1 else f'{attempts} times'}: {describe_error(stand_in)}"
        )
        if policy == "stop":
            self._series.events["failed"].add(1)
            raise ProjectionFailed(f"{what}; fix the handler or the event, or let OnError(then=...) skip it") from error
        span.set_status("error", what)
        if policy == "skip":
            _logger.warning("%s; it is skipped", what, exc_info=stand_in)
            await self._checkpoints.commit(end)
            self._series.events["skipped"].add(1)
        else:
            _logger.warning("%s; it is kept as a dead letter", what, exc_info=stand_in)
            await self._checkpoints.commit(end, (dead_letter(self._key, row, error, attempts),))
            self._series.events["failed"].add(1)
            self._series.dead_letters.add(1)
        # Only after the commit. If that fails, `CheckpointWriter.close` must not commit a position past this event: its dead
        # letter would be lost.
        self._checkpoints.advance(end)

    async def _pause(self, seconds: float) -> None:
        while seconds > 0:
            self._progress.tick()
            await asyncio.sleep(min(seconds, _HEARTBEAT))
            seconds -= _HEARTBEAT
        self._progress.tick()


def _checkpoint(row: StoredEvent) -> Checkpoint:
    return Checkpoint(row.position, row.event_id)


def _split(rows: Sequence[StoredEvent], failure: HandlerFailed) -> list[_Piece]:
    """What to try next: the event that failed by itself, or two halves when it is not known which one has failed."""
    if (index := failure.index) is None:
        middle = len(rows) // 2
        return [_Piece(rows[:middle]), _Piece(rows[middle:])]
    pieces = (_Piece(rows[failure.applied : index]), _Piece(rows[index : index + 1], failure), _Piece(rows[index + 1 :]))
    return [piece for piece in pieces if piece.rows]


class _WrittenBy(msgspec.Struct):
    """The fields of an event's metadata that name the span in which the event was written."""

    traceparent: str = ""
    tracestate: str = ""


_decode: Final = msgspec.json.Decoder(_WrittenBy).decode


def _writing_spans(rows: Sequence[StoredEvent]) -> list[TraceContext]:
    """At most 64 different spans that wrote ``rows``, in order. Metadata that names no valid span is left out."""
    found: dict[str, TraceContext] = {}
    # All events of one command have equal metadata: decode it once.
    for metadata in dict.fromkeys([row.metadata for row in rows]):
        try:
            writer = _decode(metadata)
        except (msgspec.MsgspecError, UnicodeError):
            continue
        if not writer.traceparent or writer.traceparent in found:
            continue
        if (context := TraceContext.from_traceparent(writer.traceparent, writer.tracestate)) is not None:
            found[writer.traceparent] = context
            if len(found) == _MAX_LINKS:
                break
    return list(found.values())
