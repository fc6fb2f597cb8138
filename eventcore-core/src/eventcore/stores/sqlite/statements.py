"""What is said to SQLite: one statement for a batch, one value for a page of rows.

Each call into SQLite's ``step`` lets go of the interpreter's lock, and under a busy event loop it takes 5 ms to get it back:
one statement for a batch of 128 takes 6 ms then, a statement for each row 394 ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.base import CONFLICT, START, AppendRequest, BackendPage, Checkpoint, EventFilter, LogPage, Verdict
from eventcore.stores.failures import diverged
from eventcore.stores.sqlite.connection import StoreConnection, write_transaction

T = TypeVar("T")

# new: an array of [stream, version, id, type, data, metadata, time]; base: an object of stream to the version it must have.
# The whole is one transaction, whose write lock comes before its snapshot is taken.
_APPEND: Final = """
    INSERT INTO events
    SELECT head.position + 1 + new.key,
        json_extract(new.value, '$[0]'), json_extract(new.value, '$[1]'), json_extract(new.value, '$[2]'),
        json_extract(new.value, '$[3]'), json_extract(new.value, '$[4]'), json_extract(new.value, '$[5]'),
        json_extract(new.value, '$[6]')
    FROM (SELECT coalesce(max(position), 0) AS position FROM events) AS head, json_each(:new) AS new
    WHERE NOT EXISTS (
        SELECT 1 FROM json_each(:base) AS wanted
        WHERE coalesce((SELECT max(version) FROM events WHERE stream_id = wanted.key), 0) <> wanted.value
    )
"""
_VERSIONS: Final = """
    SELECT json_group_object(key, coalesce((SELECT max(version) FROM events WHERE stream_id = key), 0)) FROM json_each(:base)
"""
# The casts keep a row that was changed by hand to a blob from failing the whole page.
_ROW: Final = (
    "json_array(position, stream_id, version, event_id, event_type, CAST(data AS TEXT), CAST(metadata AS TEXT), recorded_at_ns)"
)
# after: an object of stream to the version behind which to read; up_to: the highest position; limit: rows per stream.
_READ: Final = f"""
    SELECT '{{"head":' || (SELECT coalesce(max(position), 0) FROM events) || ',"rows":[' || coalesce(group_concat((
        SELECT '[' || coalesce(group_concat(found), '') || ']' FROM (
            SELECT {_ROW} AS found FROM events
            WHERE stream_id = asked.key AND version > asked.value AND position <= :up_to
            ORDER BY version LIMIT :limit
        )
    )), '') || ']}}' FROM json_each(:after) AS asked
"""  # noqa: S608  # put together from constants
# Head position, id of the event at :after, last event of the window (or of the store where that is nearer), rows: as columns,
# because putting the long text of the rows into a longer one takes a fifth of the time.
_FOLLOW: Final = """
    SELECT (SELECT coalesce(max(position), 0) FROM events), (SELECT event_id FROM events WHERE position = :after),
        last.position, last.event_id, {log}
    FROM (SELECT 1) LEFT JOIN (
        SELECT position, event_id FROM events
        WHERE position > :after AND position <= :up_to ORDER BY position DESC LIMIT 1
    ) AS last
"""
# A filter looks at so many positions in one call, whether or not anything there is wanted.
_WINDOW: Final = 10_000
_ANYTHING: Final = EventFilter()
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
_encode: Final = msgspec.json.Encoder().encode


class _Found(msgspec.Struct):
    head: int
    rows: list[list[StoredEvent]]


_decode_found: Final = msgspec.json.Decoder(_Found).decode
_decode_versions: Final = msgspec.json.Decoder(dict[str, int]).decode
_decode_rows: Final = msgspec.json.Decoder(list[StoredEvent]).decode


def append(requests: Sequence[AppendRequest], connection: StoreConnection) -> Sequence[Verdict]:
    base: dict[str, int] = {}
    for request in requests:
        for stream, version in request.base.items():
            base.setdefault(stream, version)
    now = base.copy()
    if all(_judge(request, base, now) for request in requests) and any(request.events for request in requests):
        # The usual case: nobody else has written, and all of them are accepted by one statement.
        rows = _rows(requests)
        cursor = connection.execute(_APPEND, {"new": rows, "base": _object(base)})
        if cursor.rowcount:
            _count_written(connection, rows)
            return _verdicts(requests, [True] * len(requests), (cursor.lastrowid or 0) - cursor.rowcount)
    with write_transaction(connection):
        began = _decode_versions(connection.execute(_VERSIONS, {"base": _object(base)}).fetchone()[0])
        now = began.copy()
        accepted = [_judge(request, began, now) for request in requests]
        winners = [request for request, wins in zip(requests, accepted, strict=True) if wins]
        first = head(connection)
        rows = _rows(winners) if any(request.events for request in winners) else ""
        if rows:
            connection.execute(_APPEND, {"new": rows, "base": "{}"})
    _count_written(connection, rows)
    return _verdicts(requests, accepted, first)


def _judge(request: AppendRequest, began: Mapping[str, int], now: dict[str, int]) -> bool:
    for stream, version in request.expected.items():
        if began[stream] != request.base[stream] or now[stream] != version:
            return False
    for new in request.events:
        now[new.recorded.stream_id] = new.recorded.version
    return True


def _rows(requests: Sequence[AppendRequest]) -> str:
    return _encode(
        [
            (
                str(event.stream_id),
                event.version,
                event.event_id,
                event.event_type,
                new.data.decode(),
                new.metadata.decode(),
                event.recorded_at_ns,
            )
            for request in requests
            for new in request.events
            for event in (new.recorded,)
        ]
    ).decode()


def _object(versions: Mapping[StreamId, int] | Mapping[str, int]) -> str:
    # msgspec writes only what is exactly a str.
    return _encode({str(stream): version for stream, version in versions.items()}).decode()


def _verdicts(requests: Sequence[AppendRequest], accepted: Sequence[bool], head: int) -> Sequence[Verdict]:
    verdicts: list[Verdict] = []
    for request, wins in zip(requests, accepted, strict=True):
        if not wins:
            verdicts.append(CONFLICT)
        elif request.events:
            verdicts.append(head + 1)
            head += len(request.events)
        else:
            verdicts.append(0)
    return verdicts


def read_streams(after: Mapping[StreamId, int], up_to: int, limit: int, connection: StoreConnection) -> BackendPage:
    asked: dict[str, str | int] = {"after": _object(after), "up_to": up_to, "limit": limit}
    found = _decode_page(_decode_found, connection.execute(_READ, asked).fetchone()[0], connection)
    return BackendPage(dict(zip(after, found.rows, strict=True)), found.head, limit)


def scan(after: int, up_to: int, limit: int, wanted: EventFilter, connection: StoreConnection) -> Sequence[StoredEvent]:
    asked: dict[str, str | int] = {"after": after, "up_to": up_to, "limit": limit}
    return _rows_of(connection.execute(f"SELECT {_log(wanted, asked)}", asked).fetchone()[0], connection)


def follow(after: Checkpoint, limit: int, wanted: EventFilter, connection: StoreConnection) -> LogPage:
    """See ``Backend.follow``: one statement, which is one snapshot."""
    window = limit if wanted == _ANYTHING else _WINDOW
    asked: dict[str, str | int] = {"after": after.position, "up_to": after.position + window, "limit": limit}
    head, at, end, end_id, log = connection.execute(_FOLLOW.format(log=_log(wanted, asked)), asked).fetchone()
    found = "" if at is None else at.decode(errors="replace")
    if after != START and found != after.event_id:
        raise diverged(after, found)
    rows = _rows_of(log, connection)
    if len(rows) == limit:
        return LogPage(rows, Checkpoint(rows[-1].position, rows[-1].event_id), head)
    return LogPage(rows, after if end is None else Checkpoint(end, end_id.decode(errors="replace")), head)


def _log(wanted: EventFilter, asked: dict[str, str | int]) -> str:
    """The expression for the wanted rows of a range of positions as JSON, without brackets; adds its values to ``asked``."""
    conditions = ["position > :after AND position <= :up_to"]
    if wanted.pattern is not None:
        conditions.append("stream_id GLOB :glob")
        asked["glob"] = wanted.pattern.glob
    if wanted.event_types is not None:
        conditions.append("event_type IN (SELECT value FROM json_each(:types))")
        asked["types"] = _encode(wanted.event_types).decode()
    return f"""
        (SELECT group_concat(found) FROM (
            SELECT {_ROW} AS found FROM events WHERE {" AND ".join(conditions)} ORDER BY position LIMIT :limit
        ))
    """  # noqa: S608  # put together from constants; the values are bound


def _rows_of(log: bytes | None, connection: StoreConnection) -> list[StoredEvent]:
    return [] if log is None else _decode_page(_decode_rows, b"[%b]" % log, connection)


def _decode_page(decode: Callable[[str | bytes], T], page: bytes, connection: StoreConnection) -> T:
    connection.counters.bytes_read = (connection.counters.bytes_read or 0) + len(page)
    try:
        return decode(page)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Bytes that are not UTF-8 become NUL, which no event holds: then the codec refuses that one row only.
        return decode(_NOT_UTF8.sub(r"\\u0000", page.decode(errors="surrogateescape")))


def _count_written(connection: StoreConnection, rows: str) -> None:
    connection.counters.bytes_written = (connection.counters.bytes_written or 0) + len(rows)


def head(connection: StoreConnection) -> int:
    position: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
    return position


def last_append_ns(connection: StoreConnection) -> tuple[int, int | None]:
    """The head position, and when its event was recorded."""
    found = connection.execute("SELECT position, recorded_at_ns FROM events ORDER BY position DESC LIMIT 1").fetchone()
    return (0, None) if found is None else (found[0], found[1])
