"""The content of a store's database, read in plain SQL without eventcore."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from tests.soak.proof import Row

_EVENTS: Final = "SELECT position, stream_id, version, event_id, event_type, data FROM {} ORDER BY position"
_CHECKPOINTS: Final = "SELECT name, position FROM {}"
_DEAD_LETTERS: Final = "SELECT position FROM {} WHERE projection = 'unruly' ORDER BY position"
_SNAPSHOTS: Final = "SELECT count(*) FROM {}"
_TALLY: Final = "SELECT projection, stream, events, amount, chain FROM soak_tally"


class _Part(msgspec.Struct):
    command: str
    number: int
    of: int
    seen: dict[str, int]


class _Data(msgspec.Struct):
    part: _Part
    amount: int
    text: str = ""


_decode: Final = msgspec.json.Decoder(_Data).decode


class Stored(msgspec.Struct, frozen=True):
    """The content of a store.

    Attributes:
        rows: all events, ordered by position.
        checkpoints: the position of each projection.
        dead_letters: the positions of the dead letters of the unruly projection.
        snapshots: how many states of streams are stored.
        tallies: for each projection and stream, the number of events, the sum of amounts, and the chain of positions.
    """

    rows: list[Row]
    checkpoints: Mapping[str, int]
    dead_letters: list[int]
    snapshots: int
    tallies: Mapping[str, Mapping[str, tuple[int, int, int]]]


async def of_postgres(url: str) -> Stored:
    """Read a PostgreSQL store."""
    connection = await asyncpg.connect(url)
    try:
        return _stored(
            await connection.fetch(_EVENTS.format("eventcore.events")),
            await connection.fetch(_CHECKPOINTS.format("eventcore.projections")),
            await connection.fetch(_DEAD_LETTERS.format("eventcore.dead_letters")),
            await connection.fetch(_SNAPSHOTS.format("eventcore.snapshots")),
            await connection.fetch(_TALLY),
        )
    finally:
        await connection.close()


def of_sqlite(path: Path) -> tuple[Stored, str]:
    """Read a SQLite store; return its content, and the result of SQLite's integrity check (``ok``)."""
    with closing(sqlite3.connect(path)) as connection:
        execute = connection.execute
        stored = _stored(
            execute(_EVENTS.format("events")),
            execute(_CHECKPOINTS.format("projections")),
            execute(_DEAD_LETTERS.format("dead_letters")),
            execute(_SNAPSHOTS.format("snapshots")),
            execute(_TALLY),
        )
        [(integrity,)] = execute("PRAGMA integrity_check")
        return stored, integrity


def _stored(
    events: Iterable[Any], checkpoints: Iterable[Any], letters: Iterable[Any], snapshots: Iterable[Any], tallies: Iterable[Any]
) -> Stored:
    [(kept,)] = snapshots
    return Stored(_rows(events), dict(checkpoints), [position for (position,) in letters], kept, _tallies(tallies))


def _rows(found: Iterable[Any]) -> list[Row]:
    rows: list[Row] = []
    for position, stream, version, event_id, kind, data in found:
        decoded = _decode(data)
        part = decoded.part
        rows.append(
            Row(
                position,
                stream,
                version,
                event_id,
                kind,
                part.command,
                part.number,
                part.of,
                part.seen,
                decoded.amount,
                len(decoded.text),
            )
        )
    return rows


def _tallies(found: Iterable[Any]) -> dict[str, dict[str, tuple[int, int, int]]]:
    tallies: dict[str, dict[str, tuple[int, int, int]]] = {}
    for projection, stream, events, amount, chain in found:
        tallies.setdefault(projection, {})[stream] = (events, amount, chain)
    return tallies
