"""A read model in the SQLite file of the store changes together with its checkpoint or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eventcore import OnError, Projection, RecordedEvent, Telemetry, open_store
from eventcore.errors import ProjectionFailed
from eventcore.stores import SqliteBackend, backend_from_url
from tests.projections.conftest import Run
from tests.projections.models import Table, deposit, until
from tests.store.bank import Deposit, account
from tests.store.conftest import Measured

ONCE = OnError(retries=0)


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as database:
        return database.execute(sql).fetchall()


async def test_every_event_is_applied_once_also_after_many_stops(sqlite_url: str) -> None:
    for _ in range(6):
        async with open_store(sqlite_url, exporters=[]) as store:
            running = asyncio.create_task(store.run(Table()))
            writing = asyncio.create_task(deposit(store, 20))
            await store.wait_for("table", await store.head_position() + 5)
            running.cancel()
            await asyncio.wait([running])
            await writing
    async with open_store(sqlite_url, exporters=[]) as store:
        running = asyncio.create_task(store.run(Table()))
        await store.wait_for("table", 120)
    await running
    assert rows(sqlite_url, "SELECT position FROM seen ORDER BY rowid") == [(position,) for position in range(1, 121)]


async def test_settings_that_a_handler_changes_on_the_connection_do_not_affect_the_store(sqlite_url: str, run: Run) -> None:
    class Reading(Projection):
        name = "reading"

        def __init__(self) -> None:
            self.found: list[object] = []

        def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
            transaction.row_factory = sqlite3.Row
            row = transaction.execute("SELECT stream_id AS stream FROM events WHERE position = ?", (event.position,)).fetchone()
            self.found.append(row["stream"])

    async with open_store(sqlite_url, exporters=[]) as store:
        reading = Reading()
        run(store, reading)
        await store.wait_for(reading, await deposit(store, 2))
        assert reading.found == ["account-a"] * 2
        await store.wait_for(reading, await deposit(store, 2))
        assert [event.position async for event in store.read_all()] == [1, 2, 3, 4]


async def test_a_violated_constraint_is_a_failure_of_the_handler(sqlite_url: str) -> None:
    class Twice(Projection):
        name = "twice"
        on_error = ONCE

        def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
            transaction.execute("CREATE TABLE IF NOT EXISTS mine (n INTEGER PRIMARY KEY)")
            transaction.execute("INSERT INTO mine VALUES (1)")

    async with open_store(sqlite_url, exporters=[]) as store:
        await deposit(store, 3)
        with pytest.raises(
            ProjectionFailed, match=r"position 2, tried once: IntegrityError: UNIQUE constraint failed"
        ) as failed:
            await store.run(Twice())
        assert isinstance(failed.value.__cause__, sqlite3.IntegrityError)
        [record] = await store.projections()
        assert record.checkpoint.position == 1
    assert rows(sqlite_url, "SELECT n FROM mine") == [(1,)]


async def test_a_constraint_violated_at_the_commit_is_a_failure_of_the_handler(sqlite_url: str, telemetry: Telemetry) -> None:
    class Orphans(Projection):
        name = "orphans"
        on_error = ONCE

        def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
            transaction.execute("CREATE TABLE IF NOT EXISTS parent (n INTEGER PRIMARY KEY)")
            transaction.execute(
                "CREATE TABLE IF NOT EXISTS child (n INTEGER REFERENCES parent (n) DEFERRABLE INITIALLY DEFERRED)"
            )
            if event.position != 2:
                transaction.execute("INSERT INTO parent VALUES (?)", (event.position,))
            transaction.execute("INSERT INTO child VALUES (?)", (event.position,))

    backend = backend_from_url(sqlite_url)
    assert isinstance(backend, SqliteBackend)
    async with open_store(backend, telemetry=telemetry) as store:
        await backend.ledger._writer.run(lambda connection: connection.execute("PRAGMA foreign_keys = ON").fetchone())
        await deposit(store, 3)
        with pytest.raises(ProjectionFailed, match=r"position 2, tried once: StoreError: .*FOREIGN KEY constraint failed"):
            await store.run(Orphans())
    assert rows(sqlite_url, "SELECT n FROM child") == [(1,)]


async def test_a_handler_that_returns_an_awaitable_fails(sqlite_url: str) -> None:
    async def later() -> None:
        pass

    class Lazy(Projection):
        name = "lazy"
        on_error = ONCE

        def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> object:
            return later()

    async with open_store(sqlite_url, exporters=[]) as store:
        await deposit(store, 1)
        with pytest.raises(ProjectionFailed, match="TypeError: the handler returned something to await"):
            await store.run(Lazy())


async def test_a_full_disk_pauses_a_projection_without_losing_events(
    sqlite_url: str, run: Run, telemetry: Telemetry, measured: Measured
) -> None:
    class Large(Projection):
        name = "large"
        on_error = ONCE

        def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
            transaction.execute("CREATE TABLE IF NOT EXISTS large (position INTEGER, data BLOB)")
            transaction.execute("INSERT INTO large VALUES (?, zeroblob(100000))", (event.position,))

    backend = backend_from_url(sqlite_url)
    assert isinstance(backend, SqliteBackend)
    async with open_store(backend, telemetry=telemetry) as store:
        await deposit(store, 20)
        writer = backend.ledger._writer
        pages = await writer.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        await writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 30}").fetchone())
        large = Large()
        run(store, large)
        await until(lambda: measured("projections.failures", projection="large", error_type="StoreUnavailable") >= 1)
        await until(lambda: measured("projections.state", projection="large", state="paused") == 1)
        assert measured("projections.events", projection="large", outcome="failed") == 0
        await writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
        await store.wait_for(large, 20)
    assert rows(sqlite_url, "SELECT position FROM large ORDER BY rowid") == [(position,) for position in range(1, 21)]
    assert rows(sqlite_url, "PRAGMA integrity_check") == [("ok",)]


async def test_commands_run_beside_a_projection_that_writes(sqlite_url: str, run: Run) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        table = Table()
        run(store, table)
        for _ in range(5):
            await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(100)))
        await store.wait_for(table, 500)
    assert rows(sqlite_url, "SELECT count(*), count(DISTINCT position), max(position) FROM seen") == [(500, 500, 500)]
