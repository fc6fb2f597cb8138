"""A handler on SQLite can neither end its transaction nor keep anything of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from eventcore import OnError, Projection, RecordedEvent, open_store
from eventcore.errors import InvalidProjection, ProjectionFailed
from tests.projections.conftest import Run
from tests.projections.models import Table, deposit

ONCE = OnError(retries=0)


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as database:
        return database.execute(sql).fetchall()


class Calling(Projection):
    """Writes a row, then calls ``misuse`` with its transaction."""

    name = "calling"
    on_error = ONCE

    def __init__(self, misuse: Callable[[Any], object]) -> None:
        self.misuse = misuse

    def handle(self, event: RecordedEvent, transaction: Any) -> None:
        transaction.execute("CREATE TABLE IF NOT EXISTS mine (n INTEGER PRIMARY KEY)")
        transaction.execute("INSERT INTO mine VALUES (?)", (event.position,))
        self.misuse(transaction)


def run_sql(sql: str) -> Callable[[Any], object]:
    return lambda transaction: transaction.execute(sql)


def rolled_back_and_gone_on(transaction: Any) -> None:
    with suppress(sqlite3.IntegrityError):
        transaction.execute("INSERT OR ROLLBACK INTO mine VALUES (1)")
    transaction.execute("CREATE TABLE IF NOT EXISTS mine (n INTEGER PRIMARY KEY)")


def rolled_back_in_silence(transaction: Any) -> None:
    with suppress(sqlite3.IntegrityError):
        transaction.execute("INSERT OR ROLLBACK INTO mine VALUES (1)")


MISUSES: dict[str, Callable[[Any], object]] = {
    "BEGIN": run_sql("BEGIN"),
    "COMMIT": run_sql("/* now */ commit"),
    "END": run_sql("END TRANSACTION"),
    "ROLLBACK": run_sql("ROLLBACK"),
    "ATTACH": run_sql("ATTACH ':memory:' AS other"),
    "PRAGMA": run_sql("PRAGMA query_only = ON"),
    "locking": run_sql("PRAGMA locking_mode = EXCLUSIVE"),
    "OR ROLLBACK": rolled_back_and_gone_on,
    "OR ROLLBACK unseen": rolled_back_in_silence,
    "script": lambda transaction: transaction.executescript("SELECT 1"),
    "cursor's script": lambda transaction: transaction.cursor().executescript("SELECT 1"),
    "cursor": lambda transaction: transaction.cursor().execute("COMMIT"),
    "cursor's connection": lambda transaction: transaction.cursor().connection.close(),
    "close": lambda transaction: transaction.close(),
    "commit": lambda transaction: transaction.commit(),
    "rollback": lambda transaction: transaction.rollback(),
    "with": lambda transaction: transaction.__enter__(),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
async def test_a_handler_that_ends_or_changes_its_transaction_fails_and_changes_nothing(
    sqlite_url: str, run: Run, misuse: Callable[[Any], object]
) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        await deposit(store, 1)
        with pytest.raises(ProjectionFailed, match="a handler must not") as failed:
            await store.run(Calling(misuse))
        assert isinstance(failed.value.__cause__, InvalidProjection)
        table = Table()
        run(store, table)
        await store.wait_for(table, await deposit(store, 1))
        [record] = [record for record in await store.projections() if record.name == "calling"]
        assert record.checkpoint.position == 0
    assert rows(sqlite_url, "SELECT name FROM sqlite_master WHERE name = 'mine'") == []


async def test_a_handler_may_use_savepoints_and_look_at_tables(sqlite_url: str, run: Run) -> None:
    def careful(transaction: Any) -> None:
        transaction.execute("SAVEPOINT mine")
        transaction.execute("DELETE FROM mine")
        transaction.execute("ROLLBACK TO mine")
        transaction.execute("RELEASE mine")
        assert [row[1] for row in transaction.execute("PRAGMA table_info(mine)")] == ["n"]
        assert transaction.in_transaction

    async with open_store(sqlite_url, exporters=[]) as store:
        calling = Calling(careful)
        run(store, calling)
        await store.wait_for(calling, await deposit(store, 3))
    assert rows(sqlite_url, "SELECT n FROM mine") == [(1,), (2,), (3,)]


async def test_unread_rows_of_one_handler_stop_no_other_projection_and_its_policy_is_kept(sqlite_url: str, run: Run) -> None:
    kept: list[Any] = []

    def keep(transaction: Any) -> None:
        cursor = transaction.execute("SELECT 1 UNION ALL SELECT 2")
        cursor.fetchone()
        kept.append(cursor)
        raise KeyError("the handler's")

    class Keeping(Calling):
        on_error = OnError(retries=0, then="dead_letter")

    async with open_store(sqlite_url, exporters=[]) as store:
        keeping, table = Keeping(keep), Table()
        run(store, keeping)
        run(store, table)
        for _ in range(3):
            await store.wait_for(table, await deposit(store, 2), timeout=5)
        await store.wait_for(keeping, 6, timeout=5)
        assert [letter.error_type for letter in await store.dead_letters(keeping)] == ["KeyError"] * 6
        assert len(kept) == 6
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            kept[0].fetchone()


async def test_a_transaction_that_a_handler_keeps_raises_when_it_is_used_later(sqlite_url: str, run: Run) -> None:
    kept: list[Any] = []
    async with open_store(sqlite_url, exporters=[]) as store:
        calling = Calling(kept.append)
        run(store, calling)
        await store.wait_for(calling, await deposit(store, 1))
        for use in (lambda: kept[0].execute("SELECT 1"), kept[0].cursor, lambda: kept[0].total_changes):
            with pytest.raises(InvalidProjection, match="after it has ended"):
                await asyncio.to_thread(use)
        with pytest.raises(AttributeError, match="it has execute"):
            _ = kept[0].backup
