"""Dead letters: how an event that could not be applied is kept, and how it is tried again."""

from __future__ import annotations

import time
from typing import Final, final

import msgspec

from eventcore.errors import HistoryDiverged
from eventcore.events.codec import StoredEvent
from eventcore.ground import text_of, without_values
from eventcore.projections.context import RunContext
from eventcore.projections.handler import HandlerFailed, LeaseHold, refused_commit_as_failure
from eventcore.stores.values import DeadLetter, EventFilter

_MAX_ERROR: Final = 4096
_ALL: Final = 2**31 - 1


@final
class RetriedDeadLetters(msgspec.Struct, frozen=True):
    """The result of ``EventStore.retry_dead_letters``.

    Attributes:
        applied: dead letters whose event is applied now; the store has deleted them.
        remaining: dead letters that failed again, with the new error and one attempt more.
    """

    applied: tuple[DeadLetter, ...]
    remaining: tuple[DeadLetter, ...]


def dead_letter(projection: str, row: StoredEvent, error: BaseException, attempts: int) -> DeadLetter:
    """The dead letter of an event that failed now."""
    return DeadLetter(
        projection, row.position, row.event_id, type(error).__name__, _storable(error), attempts, failed_at_ns=time.time_ns()
    )


async def retry_dead_letters(context: RunContext) -> RetriedDeadLetters:
    """Apply each dead letter of a projection once, in order of position.

    A dead letter is deleted after its event is applied, or in the same transaction: after a crash in between it is still there.

    Raises:
        HistoryDiverged: the event of a dead letter is no longer in the store.
    """
    backend, definition, handler, series = context.backend, context.definition, context.handler, context.series
    if definition.fenced:
        # No lease is held here. The newest token passes every fence that its holder passes.
        tokens = [record.token for record in await backend.ledger.projections() if record.name == definition.key]
        handler.hold = LeaseHold(max(tokens, default=0))
    applied: list[DeadLetter] = []
    remaining: list[DeadLetter] = []
    for letter in await backend.ledger.dead_letters(definition.key, _ALL):
        rows = await backend.log.scan(letter.position - 1, letter.position, 1, EventFilter())
        if not rows or rows[0].event_id != letter.event_id:
            raise HistoryDiverged(
                f"the event {letter.event_id} of a dead letter of projection {letter.projection!r} is no longer at "
                f"position {letter.position}"
            )
        try:
            if definition.transactional:
                apply = handler.in_transaction(await handler.decode(rows))
                with refused_commit_as_failure():
                    removed = await backend.ledger.remove_dead_letter(letter, apply)
            else:
                await handler.apply(rows)
                removed = await backend.ledger.remove_dead_letter(letter)
        except HandlerFailed as failure:
            error = failure.cause
            series.failed(error)
            again = {"error_type": type(error).__name__, "error": _storable(error), "attempts": letter.attempts + 1}
            remaining.append(msgspec.structs.replace(letter, **again))
        else:
            # When another process was faster, it counts the event.
            if removed:
                series.events["applied"].add(1)
                applied.append(letter)
    return RetriedDeadLetters(tuple(applied), tuple(remaining))


def _storable(error: BaseException) -> str:
    """The text of an error, cut to 4,096 characters, without values and characters that a database refuses.

    A redaction of the event could not reach values here. Refused are NUL and lone surrogates.
    """
    return text_of(without_values(error), _MAX_ERROR).replace("\0", "\ufffd")
