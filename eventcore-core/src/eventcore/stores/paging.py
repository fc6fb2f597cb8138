"""How much one call reads: the sizes of pages and windows, the same for every store.

A page holds rows; a window is a range of positions. Both are bounded, so that no call runs long or fills the memory.
"""

from __future__ import annotations

from typing import Final

from eventcore.stores.base import EventFilter

MAX_PAGE: Final = 500
"""The largest number of rows of one stream, or of the global order, that one call returns."""

LAST_POSITION: Final = 2**62
"""A position that no store reaches: "up to the end"."""

_MIN_PAGE: Final = 16
_ROWS_PER_CALL: Final = 4096
_WINDOW: Final = 10_000
_EVERY_EVENT: Final = EventFilter()


def rows_per_stream(streams: int) -> int:
    """The page size of a call that reads ``streams`` streams: fewer rows of each when they are many."""
    return max(_MIN_PAGE, min(MAX_PAGE, _ROWS_PER_CALL // max(1, streams)))


def window(wanted: EventFilter, limit: int) -> int:
    """How many positions one call searches for at most ``limit`` matching events.

    Without a filter every position matches, so ``limit`` positions are enough. A filter may match few events; it searches a
    larger window.
    """
    return limit if wanted == _EVERY_EVENT else _WINDOW
