"""Stored states of streams in an SQLite file, and redactions. Every function here runs in the thread of its connection."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import msgspec

from eventcore.events import StreamId
from eventcore.stores.sqlite.connection import StoreConnection, write_transaction
from eventcore.stores.sqlite.statements import read_streams
from eventcore.stores.values import BackendPage, Redaction, Snapshot, StateKey, Versions

# Whether a stored state may be used: its event is there, and no later redaction concerns its stream.
_FITS: Final = """
    EXISTS (
        SELECT 1 FROM events AS event
        WHERE event.stream_id = {of}.stream_id AND event.version = {of}.version AND event.event_id = {of}.event_id
            AND event.position <= :up_to
    ) AND NOT EXISTS (
        SELECT 1 FROM redactions AS trace JOIN events AS event ON event.position = trace.position
        WHERE trace.redaction > {of}.redactions AND event.stream_id = {of}.stream_id
    )
"""
# keys: an array of [stream, state type, state version]. One value holds all states: see `statements`.
_LOAD: Final = f"""
    SELECT json_group_array(json_array(stream_id, version, event_id, redactions, hex(data))) FROM snapshots AS kept
    WHERE (stream_id, state_type, state_version) IN (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(:keys)
    ) AND {_FITS.format(of="kept")}
"""  # noqa: S608  # put together from constants
_SAVE: Final = f"""
    INSERT INTO snapshots AS kept (stream_id, state_type, state_version, version, event_id, redactions, data)
    SELECT * FROM (
        SELECT :stream AS stream_id, :type, :type_version, :version AS version, :event_id AS event_id,
            :redactions AS redactions, :data
    ) AS new WHERE {_FITS.format(of="new")}
    ON CONFLICT (stream_id, state_type, state_version) DO UPDATE SET
        version = excluded.version, event_id = excluded.event_id, redactions = excluded.redactions, data = excluded.data
    WHERE kept.version <= excluded.version OR NOT ({_FITS.format(of="kept")})
"""  # noqa: S608  # put together from constants
_ANYWHERE: Final = 2**62
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[tuple[str, int, str, int, str]]).decode


def read_behind_snapshots(
    after: Versions, up_to: int, limit: int, keys: Mapping[StreamId, StateKey], connection: StoreConnection
) -> BackendPage:
    """See ``EventLog.read_streams``: the stored states, and the rows behind them, from one snapshot of the store."""
    asked = [(str(stream), key.state_type, key.state_version) for stream, key in keys.items() if after.get(stream) == 0]
    # Two reads: the transaction gives them one snapshot of the store.
    connection.execute("BEGIN")
    try:
        found = connection.execute(_LOAD, {"keys": _encode(asked).decode(), "up_to": up_to}).fetchone()[0]
        states = {
            StreamId(stream): Snapshot(keys[StreamId(stream)], version, event_id, redactions, bytes.fromhex(data))
            for stream, version, event_id, redactions, data in _decode(found)
        }
        behind = {stream: states[stream].version if stream in states else version for stream, version in after.items()}
        page = read_streams(behind, up_to, limit, connection)
    finally:
        connection.execute("COMMIT")
    return msgspec.structs.replace(page, snapshots=states)


def save_snapshots(snapshots: Mapping[StreamId, Snapshot], connection: StoreConnection) -> None:
    """See ``EventLog.save_snapshots``."""
    with write_transaction(connection):
        for stream, snapshot in snapshots.items():
            connection.execute(
                _SAVE,
                {
                    "stream": str(stream),
                    "type": snapshot.key.state_type,
                    "type_version": snapshot.key.state_version,
                    "version": snapshot.version,
                    "event_id": snapshot.event_id,
                    "redactions": snapshot.redactions,
                    "data": snapshot.data,
                    "up_to": _ANYWHERE,
                },
            )


def redact(position: int, event_id: str, data: str, reason: str, connection: StoreConnection) -> Redaction | None:
    """See ``EventLog.redact``."""
    now = time.time_ns()
    with write_transaction(connection):
        event = connection.execute(
            "SELECT stream_id, version FROM events WHERE position = ? AND event_id = ?", (position, event_id)
        ).fetchone()
        if event is None:
            return None
        # Triggers change the event and delete the stored states.
        number = connection.execute(
            "INSERT INTO redactions (position, reason, redacted_at_ns, new_data) VALUES (?, ?, ?, ?)",
            (position, reason, now, data),
        ).lastrowid
    return Redaction(number or 0, event[0].decode(), event[1], position, event_id, reason, now)
