"""A handler on PostgreSQL can neither end its transaction nor keep anything of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from eventcore import OnError, Projection, RecordedEvent, open_store
from eventcore.errors import InvalidProjection, ProjectionFailed
from eventcore.stores.postgres.ledger.scripts import forbidden
from tests.projections.models import deposit

Handler = Callable[[Any], Awaitable[object]]


@pytest.fixture
async def outside(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE mine (n bigint)")
    yield connection
    await connection.close()


class Calling(Projection):
    """Writes a row, then calls ``handler`` with its transaction."""

    name = "calling"
    on_error = OnError(retries=0)

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def handle(self, event: RecordedEvent, transaction: Any) -> None:
        await transaction.execute("INSERT INTO mine VALUES ($1)", event.position)
        await self.handler(transaction)


def sending(sql: str) -> Handler:
    return lambda transaction: transaction.execute(sql)


async def closing(transaction: Any) -> None:
    await transaction.close()


async def terminating(transaction: Any) -> None:
    transaction.terminate()


async def preparing(transaction: Any) -> None:
    statement = await transaction.prepare("COMMIT")
    await statement.fetch()


async def leaving_a_call(transaction: Any) -> None:
    tasks.append(asyncio.create_task(transaction.execute("SELECT pg_sleep(5)")))
    await asyncio.sleep(0.05)


tasks: list[asyncio.Task[Any]] = []
MISUSES: dict[str, Handler] = {
    "close": closing,
    "terminate": terminating,
    "reset": lambda transaction: transaction.reset(),
    "COMMIT": sending("COMMIT"),
    "ROLLBACK": sending("rollback"),
    "script": sending("SELECT 1; /* a /* nested */ comment */ END; BEGIN"),
    "chain": sending("COMMIT AND CHAIN"),
    "prepared": preparing,
    "two-phase": sending("PREPARE TRANSACTION 'mine'"),
    "fetch": lambda transaction: transaction.fetch("ABORT"),
    "SET": sending("SET search_path = elsewhere"),
    "LISTEN": sending("LISTEN eventcore_mine"),
    "a call left running": leaving_a_call,
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
async def test_a_handler_that_ends_or_changes_its_transaction_fails_and_changes_nothing(
    url: str, outside: Any, misuse: Handler
) -> None:
    async with open_store(f"{url}?pool=1", exporters=[]) as store:
        await deposit(store, 2)
        with pytest.raises(ProjectionFailed, match="a handler must not") as failed:
            await store.run(Calling(misuse))
        assert isinstance(failed.value.__cause__, InvalidProjection)
        [record] = await store.projections()
        assert record.checkpoint.position == 0
    assert await outside.fetchval("SELECT count(*) FROM mine") == 0
    await asyncio.gather(*(tasks.pop() for _ in tuple(tasks)), return_exceptions=True)


async def test_a_commit_that_the_guard_does_not_recognise_is_detected(url: str, outside: Any) -> None:
    async def behind_its_back(transaction: Any) -> None:
        await transaction._connection.execute("COMMIT; BEGIN")

    async with open_store(url, exporters=[]) as store:
        await deposit(store, 1)
        with pytest.raises(ProjectionFailed, match="a handler must not end its transaction"):
            await store.run(Calling(behind_its_back))
        [record] = await store.projections()
        assert record.checkpoint.position == 0


async def test_a_handler_may_use_savepoints_cursors_and_prepared_statements(url: str, outside: Any) -> None:
    seen: list[int] = []

    async def everything(transaction: Any) -> None:
        with suppress(ValueError):
            async with transaction.transaction():
                await transaction.execute("INSERT INTO mine VALUES (-1)")
                raise ValueError
        seen.extend([row["n"] async for row in transaction.cursor("SELECT n FROM mine ORDER BY n", prefetch=1)])
        cursor = await transaction.cursor("SELECT n FROM mine")
        assert await cursor.fetchrow() == (1,)
        statement = await transaction.prepare("SELECT $1::int + 1")
        assert await statement.fetchval(1) == 2
        assert statement.get_query() == "SELECT $1::int + 1"
        await transaction.copy_records_to_table("mine", records=[(100,)])
        await transaction.execute("DELETE FROM mine WHERE n = 100; SET LOCAL work_mem = '5MB'; SELECT 'COMMIT; ROLLBACK'")
        assert transaction.is_in_transaction()

    async with open_store(url, exporters=[]) as store:
        calling = Calling(everything)
        running = asyncio.create_task(store.run(calling))
        await store.wait_for(calling, await deposit(store, 2))
        running.cancel()
        await asyncio.wait([running])
    assert seen == [1, 1, 2]
    assert [row[0] for row in await outside.fetch("SELECT n FROM mine ORDER BY n")] == [1, 2]


async def test_what_a_handler_keeps_raises_when_it_is_used_later(url: str, outside: Any) -> None:
    kept: list[Any] = []

    async def keep(transaction: Any) -> None:
        statement = await transaction.prepare("SELECT 1")
        kept.extend([transaction, statement, await transaction.cursor("SELECT 1"), transaction.transaction()])

    async with open_store(url, exporters=[]) as store:
        calling = Calling(keep)
        running = asyncio.create_task(store.run(calling))
        await store.wait_for(calling, await deposit(store, 1))
        transaction, statement, cursor, savepoint = kept
        for use in (
            lambda: transaction.execute("INSERT INTO mine VALUES (9)"),
            statement.fetch,
            lambda: cursor.fetch(1),
            savepoint.start,
        ):
            with pytest.raises(InvalidProjection, match="after it has ended"):
                await use()
        running.cancel()
        await asyncio.wait([running])
    assert await outside.fetchval("SELECT count(*) FROM mine") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'it''s; COMMIT'",
        "SELECT $$; COMMIT; $$, $a$ $$ ; ROLLBACK $a$",
        "DO $body$ BEGIN PERFORM 1; END; $body$",
        'SELECT 1 AS "; COMMIT;"',
        "-- ; COMMIT\nSELECT 1",
        "/* ; /* COMMIT; */ ; */ SELECT 1",
        "SELECT E'\\'; COMMIT; '",
        "SAVEPOINT a; ROLLBACK TO SAVEPOINT a; ROLLBACK WORK TO a; RELEASE a",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
        "SET LOCAL statement_timeout = 5; SET CONSTRAINTS ALL DEFERRED",
        "UPDATE mine SET n = 1",
        "SELECT a$b$ FROM commit",
    ],
)
def test_statements_that_only_look_like_the_end_of_a_transaction_are_sent(sql: str) -> None:
    assert forbidden(sql) == ""


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;COMMIT",
        "/**/COMMIT/**/",
        "commit work",
        "ROLLBACK TRANSACTION",
        "START TRANSACTION",
        "SELECT $$a$$;END",
        "SELECT E'\\\\'; COMMIT",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; END",
        "RESET ALL",
        "DISCARD ALL",
        "SET SESSION ROLE other",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "UNLISTEN *",
        "DEALLOCATE ALL",
    ],
)
def test_the_end_of_a_transaction_is_found_wherever_it_stands(sql: str) -> None:
    assert forbidden(sql) != ""
