"""Failures that every kind of store has: one that reaches many who wait for the same call, and a history that went back."""

from __future__ import annotations

import copy

from eventcore.errors import HistoryDiverged, StoreError
from eventcore.stores.base import Checkpoint


def as_store_error(error: Exception) -> StoreError:
    """The error itself, or a ``StoreError`` caused by it: whoever asked waits for an answer."""
    if isinstance(error, StoreError):
        return error
    wrapped = StoreError(f"the store failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def own_copy(error: StoreError) -> StoreError:
    """One copy for each caller that the same failure reaches: raising an exception changes it."""
    mine = copy.copy(error)
    mine.__cause__ = error.__cause__
    return mine


def diverged(after: Checkpoint, found: str) -> HistoryDiverged:
    """What to raise when not the event of ``after`` stands at its position, but ``found``, or none if that is empty."""
    return HistoryDiverged(
        f"the event {after.event_id} that was read at position {after.position} stands there no longer "
        f"({found or 'none'} does): the store is on another timeline, so rebuild what was derived from it"
    )
