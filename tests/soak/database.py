"""What stands in a database, read without the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from tests.soak.proof import Row

__all__ = ["Standing", "of_postgres", "of_sqlite"]

_EVENTS: Final = "SELECT position, stream_id, version, event_id, event_type, data FROM {} ORDER BY position"
_CHECKPOINTS: Final = "SELECT name, position FROM {}"
_TALLY: Final = "SELECT projection, stream, events, amount, chain FROM soak_tally"


class _Part(msgspec.Struct):
    command: str
    number: int
    of: int
    seen: dict[str, int]


class _Data(msgspec.Struct):
    part: _Part
    amount: int


_decode: Final = msgspec.json.Decoder(_Data).decode


class Standing(msgspec.Struct, frozen=True):
    """All events in order of position; and of each projection how far it has come and what it keeps of each stream."""

    rows: list[Row]
    checkpoints: Mapping[str, int]
    tallies: Mapping[str, Mapping[str, tuple[int, int, int]]]


async def of_postgres(url: str) -> Standing:
    """What stands in a PostgreSQL store."""
    connection = await asyncpg.connect(url)
    try:
        return _standing(
            await connection.fetch(_EVENTS.format("eventcore.events")),
            await connection.fetch(_CHECKPOINTS.format("eventcore.projections")),
            await connection.fetch(_TALLY),
        )
    finally:
        await connection.close()


def of_sqlite(path: Path) -> tuple[Standing, str]:
    """What stands in a SQLite store; and what SQLite says of the file's integrity."""
    with closing(sqlite3.connect(path)) as connection:
        ask = connection.execute
        standing = _standing(ask(_EVENTS.format("events")), ask(_CHECKPOINTS.format("projections")), ask(_TALLY))
        [(integrity,)] = ask("PRAGMA integrity_check")
        return standing, integrity


def _standing(events: Iterable[Any], checkpoints: Iterable[Any], tallies: Iterable[Any]) -> Standing:
    return Standing(_rows(events), dict(checkpoints), _tallies(tallies))


def _rows(found: Iterable[Any]) -> list[Row]:
    rows: list[Row] = []
    for position, stream, version, event_id, kind, data in found:
        said = _decode(data)
        part = said.part
        rows.append(Row(position, stream, version, event_id, kind, part.command, part.number, part.of, part.seen, said.amount))
    return rows


def _tallies(found: Iterable[Any]) -> dict[str, dict[str, tuple[int, int, int]]]:
    tallies: dict[str, dict[str, tuple[int, int, int]]] = {}
    for projection, stream, events, amount, chain in found:
        tallies.setdefault(projection, {})[stream] = (events, amount, chain)
    return tallies
