"""The statement that appends the events of a batch to an SQLite file: their values are bound, a row each.

Most batches are one statement (see ``eventcore.stores.sqlite.statements``), which inserts all of them or none. Its text has
room for one of a few numbers of rows, so that each text is prepared once for a connection. What a batch does not fill is NULL.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, TypeAlias, final

from eventcore.events import StreamId
from eventcore.stores.sqlite.connection import StoreConnection
from eventcore.stores.values import AppendRequest

MOST_ROWS: Final = 1024
"""The most rows of one statement. SQLite allows 32,766 values."""

# From each to the next is less than half of it, so that few rows are NULL.
_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, MOST_ROWS)
_COLUMNS: Final = 8
# Inserts the rows if every stream has its version in `base`, an object of stream to version, and the store has at most
# `redactions` redactions; else nothing. The statement is one transaction: SQLite takes the write lock before the snapshot, so
# no other process can append between the check and the insert. The columns are named: an operator may have added another one.
# `sqlite3` counts the rows of statements that begin with INSERT only.
_INSERT: Final = """
    INSERT INTO events (position, stream_id, version, event_id, event_type, data, metadata, recorded_at_ns)
    WITH new(number, stream_id, version, event_id, event_type, data, metadata, recorded_at_ns) AS (VALUES {rows})
    SELECT head.position + new.number,
        new.stream_id, new.version, new.event_id, new.event_type, new.data, new.metadata, new.recorded_at_ns
    FROM (SELECT coalesce(max(position), 0) AS position FROM events) AS head CROSS JOIN new
    WHERE new.number IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM json_each(?) AS wanted
        WHERE coalesce((SELECT max(version) FROM events WHERE stream_id = wanted.key), 0) <> wanted.value
    ) AND coalesce((SELECT max(redaction) FROM redactions), 0) <= ?
"""

_Value: TypeAlias = str | int | None


@final
class Rows:
    """The rows of accepted requests, in order.

    Attributes:
        count: how many there are.
        size: the length of their data and metadata.
    """

    __slots__ = ("_values", "count", "size")

    def __init__(self, requests: Sequence[AppendRequest]) -> None:
        values: list[_Value] = []
        number = size = 0
        stream: StreamId | None = None
        encoded: bytes | None = None
        text = metadata = ""
        for request in requests:
            for new in request.events:
                event = new.recorded
                if event.stream_id is not stream:
                    stream = event.stream_id
                    # To bind a text whose class is not exactly str takes four times as long.
                    text = str(stream)
                if new.metadata is not encoded:
                    # All events of a command have the same metadata.
                    encoded = new.metadata
                    metadata = encoded.decode()
                number += 1
                size += len(new.data) + len(metadata)
                values += (number, text, event.version, event.event_id, event.event_type)
                values += (new.data.decode(), metadata, event.recorded_at_ns)
        self._values = values
        self.count = number
        self.size = size

    def insert(self, base: str, redactions: int, connection: StoreConnection) -> int:
        """Insert them behind the head of the store; return the position of the first, 0 if none was inserted.

        More than ``MOST_ROWS`` need a transaction of the caller.

        Args:
            base: JSON, an object of stream to the version that it must have.
            redactions: the most redactions that the store may have.
            connection: the connection that appends.
        """
        first = 0
        for begin in range(0, self.count, MOST_ROWS):
            count = min(self.count - begin, MOST_ROWS)
            room = next(size for size in _SIZES if size >= count)
            values = self._values if self.count <= MOST_ROWS else self._part(begin, count)
            rest = [None] * (_COLUMNS * (room - count))
            cursor = connection.execute(_statement(room), (*values, *rest, base, redactions))
            if not cursor.rowcount:
                return 0
            first = first or (cursor.lastrowid or 0) - cursor.rowcount + 1
            # The first rows have been checked, and have changed the versions.
            base = "{}"
        return first

    def _part(self, begin: int, count: int) -> list[_Value]:
        values = self._values[_COLUMNS * begin : _COLUMNS * (begin + count)]
        values[::_COLUMNS] = range(1, count + 1)
        return values


@cache
def _statement(room: int) -> str:
    row = f"({', '.join('?' * _COLUMNS)})"
    return _INSERT.format(rows=", ".join([row] * room))
