"""Errors that all kinds of stores raise in the same words, and copies of one failure for several callers."""

from __future__ import annotations

import copy

from eventcore.errors import HistoryDiverged, InvalidProjection, LeadershipLost, StoreError
from eventcore.ground import describe_error
from eventcore.stores.values import Checkpoint, Lease


def as_store_error(error: Exception) -> StoreError:
    """The error itself if it is a ``StoreError``, else a ``StoreError`` that it caused: callers handle this class only."""
    if isinstance(error, StoreError):
        return error
    wrapped = StoreError(f"the store failed: {describe_error(error)}")
    wrapped.__cause__ = error
    return wrapped


def own_copy(error: StoreError) -> StoreError:
    """A copy to raise to one of several callers: raising an exception sets its traceback and context."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def diverged(after: Checkpoint, found: str) -> HistoryDiverged:
    """The error for a checkpoint whose position now holds the event with the id ``found``; empty: holds no event."""
    return HistoryDiverged(
        f"the event {after.event_id}, which was read at position {after.position}, is no longer there "
        f"(now: {found or 'no event'}): the store has lost events, so rebuild what was derived from them"
    )


def taken_over(lease: Lease, before: Checkpoint) -> LeadershipLost:
    """The error for a checkpoint that cannot be moved from ``before``: another runner has a newer lease."""
    return LeadershipLost(
        f"projection {lease.projection!r} was taken over by another runner: its checkpoint cannot be moved from position "
        f"{before.position}"
    )


def lost_event(checkpoint: Checkpoint) -> HistoryDiverged:
    """The error for a checkpoint that cannot be moved to an event which is not in the store."""
    return HistoryDiverged(
        f"the event {checkpoint.event_id}, which was read at position {checkpoint.position}, is no longer there: the store has "
        "lost events (failover, restore), so the batch that ends with it was not committed"
    )


def still_running(projection: str) -> LeadershipLost:
    """The error for a reset of a projection whose lease a runner holds."""
    return LeadershipLost(f"projection {projection!r} is running: stop it before you reset it")


def check_reason(reason: object) -> None:
    """Refuse a reason for a redaction that not every store can keep, or that says nothing."""
    if not isinstance(reason, str) or not reason.strip() or "\0" in reason or not reason.isprintable():
        raise ValueError(f"reason={reason!r:.80}; expected a printable text that says why the event is redacted: it is stored")


def refusal(what: str) -> InvalidProjection:
    """The error for a handler that does something with its transaction that only the store may do."""
    return InvalidProjection(
        f"a handler must not {what}: the store commits what the handler writes together with the checkpoint, or rolls both back"
    )


def is_caused_by(error: BaseException, cause: BaseException) -> bool:
    """Whether ``cause`` is ``error``, or was being handled when ``error`` was raised."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        if (one := pending.pop()) is None or id(one) in seen:
            continue
        if one is cause:
            return True
        seen.add(id(one))
        pending += [one.__cause__, one.__context__]
    return False
