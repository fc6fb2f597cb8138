"""One failure, many who wait for the same call."""

from __future__ import annotations

import copy

from eventcore.errors import StoreError

__all__ = ["as_store_error", "own_copy"]


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
