"""Behind pgbouncer in transaction mode, where each transaction may go over another connection to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from eventcore import RetryPolicy, open_store
from eventcore.stores import START, EventFilter
from tests.postgres.backends import OpenBackend, Server, everything
from tests.real_parts.postgres import PgBouncer, PostgresServer
from tests.store.bank import Deposit, Transfer, account


async def test_the_store_works_behind_pgbouncer(
    server: Server, start_pgbouncer: Callable[[Server], PgBouncer], open_backend: OpenBackend
) -> None:
    if not isinstance(server, PostgresServer):
        pytest.skip("EVENTCORE_TEST_POSTGRES names a server whose address pgbouncer is not told")
    url = start_pgbouncer(server).url(server.new_database())
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
