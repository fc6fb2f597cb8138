"""Logs of millions of events: written past the store, into its own table, in the layout that the store gives them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from time import monotonic, time_ns
from typing import Any, Final, TypeAlias, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has no annotations

from benchmarks.measuring import announce

__all__ = ["COLUMNS", "Record", "copy", "fill_postgres", "fill_sqlite", "insert", "records"]

Record: TypeAlias = tuple[int, str, int, str, str, bytes, bytes, int]
"""Position, stream, version, event id, event type, data, metadata, time in nanoseconds."""

COLUMNS: Final = ("position", "stream_id", "version", "event_id", "event_type", "data", "metadata", "recorded_at_ns")
_LINES: Final = 10
_AT_ONCE: Final = 100_000
# Seconds between two lines of progress.
_PROGRESS: Final = 10.0
_INSERT: Final = f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # put together from constants


def records(first: int, events: int, example: tuple[bytes, bytes], lines: int = _LINES) -> Iterator[Record]:
    """Events from position ``first``, ``lines`` to a stream, each with the data and the metadata of ``example``."""
    data, metadata = example
    random = os.urandom(8).hex()
    now = time_ns()
    for position in range(first, first + events):
        number, line = divmod(position - first, lines)
        yield position, f"old-{first}-{number}", line + 1, f"{random}{position:016x}", "ItemAdded", data, metadata, now


def fill_postgres(url: str, events: int, example: tuple[bytes, bytes]) -> float:
    """Load events by COPY into an empty store. Returns the seconds, without those of its VACUUM."""
    return asyncio.run(_fill_postgres(url, events, example))


async def _fill_postgres(url: str, events: int, example: tuple[bytes, bytes]) -> float:
    connection = cast(Any, await asyncpg.connect(url))
    try:
        begun, progress = monotonic(), _progress("PostgreSQL", events)
        rows = records(1, events, example)
        for loaded in range(0, events, _AT_ONCE):
            await copy(connection, "events", "eventcore", islice(rows, _AT_ONCE))
            progress(loaded)
        seconds = monotonic() - begun
        announce("  PostgreSQL, vacuum")
        await connection.execute("VACUUM ANALYZE eventcore.events")
        return seconds
    finally:
        await connection.close()


async def copy(connection: Any, table: str, schema: str, rows: Iterable[Record]) -> None:
    """Load rows in one transaction."""
    await connection.copy_records_to_table(table, schema_name=schema, columns=COLUMNS, records=rows, timeout=600)


def fill_sqlite(path: str, events: int, example: tuple[bytes, bytes]) -> float:
    """Load events in few transactions, without waiting for the disk, into an empty store. Returns the seconds."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144")
        begun, progress = monotonic(), _progress("SQLite", events)
        rows = records(1, events, example)
        for loaded in range(0, events, _AT_ONCE):
            insert(connection, islice(rows, _AT_ONCE))
            progress(loaded)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return monotonic() - begun


def insert(connection: sqlite3.Connection, rows: Iterable[Record]) -> None:
    """Insert rows in one transaction with one prepared statement."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, ((*row[:5], row[5].decode(), row[6].decode(), row[7]) for row in rows))
    connection.execute("COMMIT")


def _progress(name: str, events: int) -> Callable[[int], None]:
    due = begun = monotonic()

    def loaded(number: int) -> None:
        nonlocal due
        if number and monotonic() >= due:
            due = monotonic() + _PROGRESS
            announce(f"  {name}: {number:,} of {events:,} events loaded, {number / (due - _PROGRESS - begun):,.0f}/s")

    return loaded
