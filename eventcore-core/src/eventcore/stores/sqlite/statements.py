"""The statements of an SQLite event log: one statement appends a whole batch, and one value holds a whole page of rows.

Each step of SQLite releases the GIL and may wait 5 ms to get it back while the event loop is busy (see
``eventcore.ground.pacing``). Measured then: a batch of 128 events takes 6 ms as one statement, 394 ms with one for each row.

Every function here runs in the thread of its connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.failures import diverged
from eventcore.stores.judging import (
    base_versions,
    judge,
    key_records,
    rows_to_return,
    verdicts,
    with_known_keys,
    with_new_keys,
)
from eventcore.stores.paging import LAST_POSITION, PAGE_BYTES, REFUSED_BYTES, REFUSED_ROWS, SEARCH_WINDOW, window
from eventcore.stores.sqlite.connection import StoreConnection, write_transaction
from eventcore.stores.sqlite.inserting import MOST_ROWS, Rows
from eventcore.stores.values import (
    START,
    AppendRequest,
    BackendPage,
    Checkpoint,
    CommandKey,
    EventFilter,
    KeyRecord,
    LogPage,
    Refused,
    Verdicts,
    Versions,
)
from eventcore.stores.watching import redacted

T = TypeVar("T")

_VERSIONS: Final = """
    SELECT json_group_object(key, coalesce((SELECT max(version) FROM events WHERE stream_id = key), 0)) FROM json_each(:base)
"""
# json_array() refuses blobs. The casts keep a row whose text was replaced by a blob by hand from failing the whole page.
_ROW: Final = (
    "json_array(position, stream_id, version, event_id, event_type, CAST(data AS TEXT), CAST(metadata AS TEXT), recorded_at_ns)"
)
_ROW_OF_PAGE: Final = """
    json_array(event.position, event.stream_id, event.version, event.event_id, event.event_type,
        CAST(event.data AS TEXT), CAST(event.metadata AS TEXT), event.recorded_at_ns)
"""
_SIZE: Final = "length(CAST(event.data AS BLOB)) + length(CAST(event.metadata AS BLOB))"
_COUNTS: Final = """'{"head":' || (SELECT coalesce(max(position), 0) FROM events)
    || ',"redactions":' || (SELECT coalesce(max(redaction), 0) FROM redactions)"""
# Whether some of the events that a page may hold are large: the page must be measured.
_LARGE_OF_STREAMS: Final = f"""
    EXISTS (
        SELECT 1 FROM json_each(:after) AS asked CROSS JOIN events AS event INDEXED BY large_events_by_stream
        ON event.stream_id = asked.key AND event.version > asked.value AND event.version <= asked.value + :limit
        WHERE {_SIZE} > 2048
    )
"""  # noqa: S608  # put together from constants
# after: an object of stream to the version after which to read; up_to: the highest position; limit: rows per stream. One row
# more of each stream is read: it shows that there are more. No rows if the page must be measured.
_READ: Final = f"""
    SELECT {_COUNTS} || ',"rows":[' || coalesce(group_concat((
        SELECT '[' || coalesce(group_concat(found), '') || ']' FROM (
            SELECT {_ROW} AS found FROM events
            WHERE NOT {_LARGE_OF_STREAMS} AND stream_id = asked.key AND version > asked.value AND position <= :up_to
            ORDER BY version LIMIT :limit + 1
        )
    )), '') || ']}}', {_LARGE_OF_STREAMS} FROM json_each(:after) AS asked
"""  # noqa: S608  # put together from constants
# The same for large events: `fitting` walks through the events of all streams until the page is full, and one further: so each
# event is measured once. `next` are the versions of the events behind those of the page, 0 where there are none. The rows of
# all streams are one column: copying the long text of the rows into one JSON text would take two thirds of the time.
_READ_MEASURED: Final = f"""
    WITH RECURSIVE asked(number, stream_id, version) AS MATERIALIZED (
        SELECT row_number() OVER (), key, value FROM json_each(:after)
    ), wanted(number, asked, version, position) AS MATERIALIZED (
        SELECT row_number() OVER (ORDER BY asked.number, event.version), asked.number, event.version, event.position
        FROM asked CROSS JOIN events AS event ON event.stream_id = asked.stream_id
            AND event.version > asked.version AND event.version <= asked.version + :limit
        WHERE event.position <= :up_to
    ), fitting(number, asked, version, position, size) AS (
        SELECT 0, 0, 0, 0, 0
        UNION ALL
        SELECT wanted.number, wanted.asked, wanted.version, wanted.position, fitting.size + {_SIZE}
        FROM fitting JOIN wanted ON wanted.number = fitting.number + 1 JOIN events AS event ON event.position = wanted.position
        WHERE fitting.size <= :bytes
    ), page(number, asked, version, position) AS MATERIALIZED (
        SELECT number, asked, version, position FROM fitting WHERE number = 1 OR (number > 1 AND size <= :bytes)
    )
    SELECT {_COUNTS} || ',"rows":[],"next":[' || coalesce(group_concat(coalesce((
        SELECT event.version FROM events AS event WHERE event.stream_id = asked.stream_id AND event.position <= :up_to
            AND event.version = 1 + coalesce(
                (SELECT max(page.version) FROM page WHERE page.asked = asked.number), asked.version
            )
    ), 0)), '') || ']}}', (
        SELECT group_concat(found) FROM (
            SELECT {_ROW_OF_PAGE} AS found FROM page CROSS JOIN events AS event ON event.position = page.position
            ORDER BY page.number
        )
    ) FROM (SELECT * FROM asked ORDER BY number) AS asked
"""  # noqa: S608  # put together from constants
# The head position, the id of the event at :after, the last event of the window (or of the store, if that comes first), and the
# rows. They are columns: copying the long text of the rows into one JSON text would take a fifth of the time.
_FOLLOW: Final = """
    SELECT (SELECT coalesce(max(position), 0) FROM events), (SELECT event_id FROM events WHERE position = :after),
        last.position, last.event_id, {log}
    FROM (SELECT 1) LEFT JOIN (
        SELECT position, event_id FROM events
        WHERE position > :after AND position <= :up_to ORDER BY position DESC LIMIT 1
    ) AS last
"""
# So many rows fit into a page if none of them is large.
_SMALL_ROWS: Final = PAGE_BYTES // 2048
# Whether some events of a range of positions are large: a page of them must be measured.
_LARGE: Final = f"""
    EXISTS (
        SELECT 1 FROM events AS event INDEXED BY large_events
        WHERE event.position > :after AND event.position <= :up_to AND {_SIZE} > 2048
    )
"""  # noqa: S608  # put together from constants
# The matching rows in a range of positions, as JSON without brackets; and whether they must be measured, then no rows. Two
# columns: a CASE would copy the long text.
_LOG: Final = f"""
    (SELECT group_concat(found) FROM (
        SELECT {_ROW} AS found FROM events WHERE NOT {_LARGE} AND {{conditions}} ORDER BY position LIMIT :limit
    )), {_LARGE}
"""  # noqa: S608  # put together from constants
_LOG_MEASURED: Final = f"""
    (WITH RECURSIVE wanted(number, position) AS MATERIALIZED (
        SELECT row_number() OVER (ORDER BY position), position FROM events WHERE {{conditions}} ORDER BY position LIMIT :limit
    ), fitting(number, position, size) AS (
        SELECT 0, 0, 0
        UNION ALL
        SELECT wanted.number, wanted.position, fitting.size + {_SIZE}
        FROM fitting JOIN wanted ON wanted.number = fitting.number + 1 JOIN events AS event ON event.position = wanted.position
        WHERE fitting.size <= :bytes
    )
    SELECT group_concat(found) FROM (
        SELECT {_ROW} AS found FROM events
        WHERE position IN (SELECT position FROM fitting WHERE number = 1 OR size <= :bytes) ORDER BY position
    )), 0
"""  # noqa: S608  # put together from constants
# Idempotency keys expire by the machine's wall clock, which all processes on the file share.
_FIND_KEYS: Final = """
    SELECT key, fingerprint, attempts, first, events, position FROM command_keys
    WHERE key IN (SELECT value FROM json_each(:keys)) AND expires_at_ns > :now
"""
# keys: an array of [key, fingerprint, attempts, first, events, position, expires_at_ns].
_ADD_KEYS: Final = """
    INSERT OR REPLACE INTO command_keys
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),
        json_extract(value, '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]')
    FROM json_each(:keys)
"""
# Each append removes more keys than it adds, so that expired keys cannot pile up.
_REMOVE_KEYS: Final = """
    DELETE FROM command_keys WHERE key IN (
        SELECT key FROM command_keys WHERE expires_at_ns <= :now ORDER BY expires_at_ns LIMIT :limit
    )
"""
_MORE_REMOVED: Final = 16
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
# Those of some streams that have a stored state.
_WITH_STATE: Final = "SELECT DISTINCT stream_id FROM snapshots WHERE stream_id IN (SELECT value FROM json_each(:streams))"
_encode: Final = msgspec.json.Encoder().encode


class _Found(msgspec.Struct):
    head: int
    redactions: int
    rows: list[list[StoredEvent]]
    next: list[int] = []


_decode_found: Final = msgspec.json.Decoder(_Found).decode
_decode_versions: Final = msgspec.json.Decoder(dict[str, int]).decode
_decode_rows: Final = msgspec.json.Decoder(list[StoredEvent]).decode


def append(requests: Sequence[AppendRequest], redactions: int | None, connection: StoreConnection) -> Verdicts:
    """See ``EventLog.append``.

    Args:
        requests: the requests.
        redactions: the number of redactions that commands of this process have seen; ``None``: no command has read yet.
        connection: the connection that appends.

    Raises:
        EventsRedacted: the store has more than ``redactions`` redactions.
    """
    base = base_versions(requests)
    if redactions is not None and all(judge(requests, base)) and any(request.events for request in requests):
        # The usual case: if no other process has written these streams, every request is accepted and one statement will do.
        rows = Rows(requests)
        if rows.count <= MOST_ROWS and (first := rows.insert(_object(base), redactions, connection)):
            _count_written(connection, rows)
            return Verdicts(verdicts(requests, [True] * len(requests), first - 1))
    # Another process has written one of the streams, or a request contradicts one before it: decide each request by the
    # versions that the streams have under the write lock.
    with write_transaction(connection):
        return append_in_transaction(requests, redactions, connection)


def append_in_transaction(requests: Sequence[AppendRequest], redactions: int | None, connection: StoreConnection) -> Verdicts:
    """Decide each request by the versions that its streams have; to be called in a transaction that holds the write lock."""
    found = count_redactions(connection)
    if redactions is not None and found > redactions:
        raise redacted(found)
    base = base_versions(requests)
    versions = _decode_versions(connection.execute(_VERSIONS, {"base": _object(base)}).fetchone()[0])
    # By the ids of the requests: those of the answer are plain texts.
    began = {stream: versions[stream] for stream in base}
    accepted = judge(requests, began)
    winners = [request for request, wins in zip(requests, accepted, strict=True) if wins]
    first = head(connection)
    refused = None if all(accepted) else _refused(base, began, connection)
    rows = Rows(winners)
    rows.insert("{}", found, connection)
    _count_written(connection, rows)
    return Verdicts(verdicts(requests, accepted, first), refused, found)


def _refused(base: Versions, began: Versions, connection: StoreConnection) -> Refused:
    after = rows_to_return(base, began)
    if unread := [str(stream) for stream, version in after.items() if not version]:
        for (stream,) in connection.execute(_WITH_STATE, {"streams": _encode(unread).decode()}):
            after.pop(StreamId(stream.decode()))
    page = read_streams(after, LAST_POSITION, REFUSED_ROWS, connection, REFUSED_BYTES)
    complete = {stream: rows for stream, rows in page.rows.items() if after[stream] + len(rows) == began[stream]}
    return Refused(began, complete, page.head, page.redactions)


def _object(versions: Versions) -> str:
    return _encode({str(stream): version for stream, version in versions.items()}).decode()


def read_streams(after: Versions, up_to: int, limit: int, connection: StoreConnection, size: int = PAGE_BYTES) -> BackendPage:
    """See ``EventLog.read_streams``; without stored states, and with at most ``size`` bytes (but a first event of any size)."""
    asked: dict[str, str | int] = {"after": _object(after), "up_to": up_to, "limit": limit}
    page, is_large = connection.execute(_READ, asked).fetchone()
    if is_large:
        page, log = connection.execute(_READ_MEASURED, {**asked, "bytes": size}).fetchone()
        found = _decode_page(_decode_found, page, connection)
        rows: dict[StreamId, list[StoredEvent]] = {stream: [] for stream in after}
        for row in _rows_of(log, connection):
            rows[row.stream_id].append(row)  # type: ignore[index]  # they are the keys of `after`
    else:
        found = _decode_page(_decode_found, page, connection)
        rows = dict(zip(after, found.rows, strict=True))
    more = {stream for stream, version in zip(rows, found.next, strict=False) if version}
    for stream, of_stream in rows.items():
        if len(of_stream) > limit:
            more.add(stream)
            del of_stream[limit:]
    return BackendPage(rows, found.head, frozenset(more), {}, found.redactions)


def scan(after: int, up_to: int, limit: int, wanted: EventFilter, connection: StoreConnection) -> Sequence[StoredEvent]:
    """See ``EventLog.scan``."""
    asked: dict[str, str | int] = {"after": after, "up_to": up_to, "limit": limit, "bytes": PAGE_BYTES}
    matching = _conditions(wanted, asked)
    expression = _LOG_MEASURED if limit > _SMALL_ROWS else _LOG
    log, is_large = connection.execute(f"SELECT {expression.format(conditions=matching)}", asked).fetchone()
    if is_large:
        log, _ = connection.execute(f"SELECT {_LOG_MEASURED.format(conditions=matching)}", asked).fetchone()
    return _rows_of(log, connection)


def follow(after: Checkpoint, limit: int, wanted: EventFilter, connection: StoreConnection) -> LogPage:
    """See ``EventLog.follow``."""
    up_to = after.position + window(wanted, limit)
    asked: dict[str, str | int] = {"after": after.position, "up_to": up_to, "limit": limit, "bytes": PAGE_BYTES}
    matching = _conditions(wanted, asked)
    is_measured = limit > _SMALL_ROWS
    expression = _LOG_MEASURED if is_measured else _LOG
    found = connection.execute(_FOLLOW.format(log=expression.format(conditions=matching)), asked).fetchone()
    if found[5]:
        is_measured = True
        found = connection.execute(_FOLLOW.format(log=_LOG_MEASURED.format(conditions=matching)), asked).fetchone()
    head, at, end, end_id, log, _ = found
    found_id = "" if at is None else at.decode(errors="replace")
    if after != START and found_id != after.event_id:
        raise diverged(after, found_id)
    rows = _rows_of(log, connection)
    # Behind measured rows there may be others that did not fit.
    if rows and (is_measured or len(rows) == limit):
        return LogPage(rows, Checkpoint(rows[-1].position, rows[-1].event_id), head)
    return LogPage(rows, after if end is None else Checkpoint(end, end_id.decode(errors="replace")), head)


def _conditions(wanted: EventFilter, asked: dict[str, str | int]) -> str:
    """The SQL condition of the matching rows in a range of positions; adds values to ``asked``."""
    conditions = ["position > :after AND position <= :up_to"]
    if wanted.pattern is not None:
        conditions.append("stream_id GLOB :glob")
        asked["glob"] = wanted.pattern.glob
    if wanted.event_types is not None:
        conditions.append("event_type IN (SELECT value FROM json_each(:types))")
        asked["types"] = _encode(wanted.event_types).decode()
    return " AND ".join(conditions)


def _rows_of(log: bytes | None, connection: StoreConnection) -> list[StoredEvent]:
    return [] if log is None else _decode_page(_decode_rows, b"[%b]" % log, connection)


def _decode_page(decode: Callable[[str | bytes], T], page: bytes, connection: StoreConnection) -> T:
    connection.counters.bytes_read = (connection.counters.bytes_read or 0) + len(page)
    try:
        return decode(page)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # A byte that is not UTF-8 becomes NUL, which no event may contain: the codec then refuses this row only.
        return decode(_NOT_UTF8.sub(r"\\u0000", page.decode(errors="surrogateescape")))


def _count_written(connection: StoreConnection, rows: Rows) -> None:
    connection.counters.bytes_written = (connection.counters.bytes_written or 0) + rows.size


def head(connection: StoreConnection) -> int:
    position: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
    return position


def count_redactions(connection: StoreConnection) -> int:
    """How many redactions the store has."""
    count: int = connection.execute("SELECT coalesce(max(redaction), 0) FROM redactions").fetchone()[0]
    return count


def find_event(event_id: str, up_to: int, connection: StoreConnection) -> StoredEvent | None:
    """The event with this id among the ``SEARCH_WINDOW`` positions up to ``up_to``."""
    asked: dict[str, str | int] = {"id": event_id, "up_to": up_to, "after": up_to - SEARCH_WINDOW}
    found = connection.execute(
        f"SELECT {_ROW} FROM events WHERE position > :after AND position <= :up_to AND event_id = :id",  # noqa: S608
        asked,
    ).fetchone()
    return None if found is None else _rows_of(found[0], connection)[0]


def last_append(connection: StoreConnection) -> tuple[int, int | None]:
    """The head position, and when its event was recorded in nanoseconds since 1970 (``None``: there is no event)."""
    found = connection.execute("SELECT position, recorded_at_ns FROM events ORDER BY position DESC LIMIT 1").fetchone()
    return (0, None) if found is None else (found[0], found[1])


def append_with_keys(requests: Sequence[AppendRequest], redactions: int | None, connection: StoreConnection) -> Verdicts:
    """See ``EventLog.append``, for a call in which a request has an idempotency key."""
    with write_transaction(connection):
        first = head(connection)
        known = find_keys([request.key.key for request in requests if request.key is not None], connection)
        decided = append_in_transaction(with_new_keys(requests, known), redactions, connection)
        found = Verdicts(with_known_keys(requests, known, decided), decided.refused, decided.redactions)
        if records := key_records(requests, found, first):
            _add_keys(records, connection)
        return found


def find_keys(keys: Sequence[str], connection: StoreConnection) -> Mapping[str, KeyRecord]:
    """See ``EventLog.find_keys``."""
    asked: dict[str, str | int] = {"keys": _encode(keys).decode(), "now": time.time_ns()}
    return {
        key.decode(): KeyRecord(fingerprint.decode(), attempts, first, events, position)
        for key, fingerprint, attempts, first, events, position in connection.execute(_FIND_KEYS, asked).fetchall()
    }


def _add_keys(records: Iterable[tuple[CommandKey, KeyRecord]], connection: StoreConnection) -> None:
    now = time.time_ns()
    rows = [
        (
            *(key.key, record.fingerprint, record.attempts, record.first, record.events, record.position),
            now + int(key.seconds * 1e9),
        )
        for key, record in records
    ]
    asked: dict[str, str | int] = {"now": now, "limit": len(rows) + _MORE_REMOVED}
    connection.execute(_REMOVE_KEYS, asked)
    asked = {"keys": _encode(rows).decode()}
    connection.execute(_ADD_KEYS, asked)
