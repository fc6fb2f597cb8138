"""Behind pgbouncer in transaction mode, where each transaction may go over another connection to the server."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from eventcore import RetryPolicy, open_store
from eventcore.errors import CommandTimeout, InvalidStoreUrl, StoreError
from eventcore.stores import START, EventFilter
from eventcore.stores.urls import backend_from_url
from tests.postgres.backends import OpenBackend, Server, everything, request
from tests.real_parts.postgres import PgBouncer, PostgresServer
from tests.store.bank import Deposit, Transfer, account
from tests.store.test_processes import fill, start_writer

StartPgBouncer = Callable[..., PgBouncer]


async def test_the_store_works_behind_pgbouncer(
    server: Server, start_pgbouncer: StartPgBouncer, open_backend: OpenBackend
) -> None:
    url = start_pgbouncer(own(server)).url(server.new_database())
    backend = await open_backend(url)
    retry = RetryPolicy(attempts=100)
    async with open_store(url, exporters=[]) as one, open_store(url, exporters=[]) as other:
        await asyncio.gather(*(one.execute(Deposit(account=account(number), amount=50)) for number in range(8)))
        waiting = asyncio.create_task(backend.log.wait_beyond(50, 20))
        await asyncio.gather(
            *(
                store.execute(Transfer(source=account(number), target=account((number + turn) % 8), amount=1), retry=retry)
                for store in (one, other)
                for number in range(8)
                for turn in range(1, 6)
            )
        )
        assert len([event async for event in one.read_all(pattern="account-[0-3]")]) > 0
    rows = await everything(backend)
    assert [row.position for row in rows] == list(range(1, 169))
    assert await waiting > 50
    assert len((await backend.log.follow(START, 500, EventFilter())).rows) == 168
    lease = await backend.ledger.acquire_lease("balances", "me", 30)
    assert lease is not None

    async def apply(transaction: Any) -> None:
        await transaction.execute("CREATE TABLE balances (account text)")

    await backend.ledger.commit_checkpoint(lease, START, START, apply=apply)


def own(server: Server) -> PostgresServer:
    if not isinstance(server, PostgresServer):
        pytest.skip("EVENTCORE_TEST_POSTGRES names a server whose address pgbouncer is not told")
    return server


async def test_a_call_that_is_given_up_leaves_no_statement_behind_pgbouncer(
    server: Server, start_pgbouncer: StartPgBouncer, open_backend: OpenBackend, url: str, database: str
) -> None:
    backend = await open_backend(start_pgbouncer(own(server)).url(database))
    holder, observer = await asyncpg.connect(url), await asyncpg.connect(server.url())
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
    await holder.execute("BEGIN; LOCK TABLE eventcore.events IN ACCESS EXCLUSIVE MODE")
    for call in (backend.log.head_position, lambda: backend.log.append([request({"a": 0}, "a")])):
        task = asyncio.ensure_future(call())
        async with asyncio.timeout(5):
            while not await observer.fetchval(waiting, database):
                await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            while await observer.fetchval(waiting, database):
                await asyncio.sleep(0.01)
    await holder.close()
    await observer.close()


@pytest.mark.timing
@pytest.mark.parametrize("through_pgbouncer", [True, False])
async def test_a_writer_that_is_stopped_at_any_moment_does_not_keep_the_append_lock(
    server: Server,
    start_pgbouncer: StartPgBouncer,
    open_backend: OpenBackend,
    url: str,
    database: str,
    through_pgbouncer: bool,
) -> None:
    await fill(url)
    indirect = start_pgbouncer(own(server)).url(database) if through_pgbouncer else f"{url}?statement_cache=off"
    writer = await start_writer(indirect, 1, 1_000_000)
    assert writer.stdout is not None
    backend = await open_backend(url)
    choice = random.Random(4)
    try:
        for number in range(25):
            writer.send_signal(signal.SIGCONT)
            await asyncio.wait_for(writer.stdout.readline(), 20)
            await asyncio.sleep(choice.uniform(0, 0.02))
            writer.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(2):
                assert await backend.log.append([request({f"other-{number}": 0}, f"other-{number}")]) != [-1]
    finally:
        writer.kill()
        await writer.communicate()


async def test_without_the_switch_opening_says_which_one_is_missing(
    server: Server, start_pgbouncer: StartPgBouncer, database: str
) -> None:
    url = start_pgbouncer(own(server)).url(database).removesuffix("?statement_cache=off")
    backend = backend_from_url(url)
    with pytest.raises(InvalidStoreUrl, match=r"is pgbouncer, .* add statement_cache=off to the store URL"):
        await backend.open()
    await backend.close(1)


async def test_a_prepared_statement_that_another_session_has_says_which_switch_is_missing(
    server: Server, start_pgbouncer: StartPgBouncer, database: str
) -> None:
    ignored = "statement_timeout, lock_timeout, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count"
    pgbouncer = start_pgbouncer(own(server), f"ignore_startup_parameters = {ignored}")
    url = pgbouncer.url(database).removesuffix("?statement_cache=off")
    failures: set[StoreError] = set()

    async def use(number: int) -> None:
        try:
            async with open_store(f"{url}?listen=off&timeout=5", exporters=[]) as store:
                for turn in range(20):
                    await store.execute(Deposit(account=account(f"{number}-{turn}")))
        except StoreError as error:
            failures.add(error)

    await asyncio.gather(*(use(number) for number in range(8)))
    # A session that others use, too, may also give no answer at all.
    answered = {str(failure) for failure in failures if not isinstance(failure, CommandTimeout)}
    assert answered
    assert all("add statement_cache=off to the store URL" in failure for failure in answered), answered
