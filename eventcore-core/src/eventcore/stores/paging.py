"""How much one call reads: the sizes of pages and windows, the same for every store.

A page holds rows; a window is a range of positions. Both are bounded, so that no call runs long or fills the memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from eventcore.events.codec import StoredEvent
from eventcore.stores.values import EventFilter

MAX_PAGE: Final = 500
"""The largest number of rows of one stream, or of the global order, that one call returns."""

PAGE_BYTES: Final = 4 << 20
"""The largest size of a page: data and metadata of its rows. Only a single row may be larger."""

REFUSED_ROWS: Final = 256
REFUSED_BYTES: Final = 256 << 10
"""The largest number of rows, and their size, that an append returns of the streams of refused requests, under its lock."""

LAST_POSITION: Final = 2**62
"""A position that no store reaches: "up to the end"."""

SEARCH_WINDOW: Final = 100_000
"""How many positions one call searches for an event id."""

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


def cut(rows: Iterable[StoredEvent], limit: int) -> tuple[list[StoredEvent], bool]:
    """The first rows that fit into a page, at most ``limit``, and whether others were left out."""
    taken: list[StoredEvent] = []
    room = PAGE_BYTES
    for row in rows:
        room -= len(row.data) + len(row.metadata)
        if len(taken) == limit or (room < 0 and taken):
            return taken, True
        taken.append(row)
    return taken, False
