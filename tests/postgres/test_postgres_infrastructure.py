"""What the server or the network does is no failure of an event: with no retries, no event is skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from eventcore import OnError, Projection, RecordedEvent, open_store
from eventcore.stores import START, Checkpoint
from tests.postgres.backends import OpenBackend
from tests.postgres.test_postgres_projections import leased
from tests.projections.models import deposit

Fault = Callable[[Any], Awaitable[object]]


@pytest.fixture
async def outside(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE mine (n bigint); CREATE TABLE held (n bigint); INSERT INTO held VALUES (0)")
    yield connection
    await connection.close()


class Once(Projection):
    """Meets a fault at the second event, the first time."""

    name = "once"
    on_error = OnError(retries=0, then="skip")

    def __init__(self, fault: Fault) -> None:
        self.fault: Fault | None = fault

    async def handle(self, event: RecordedEvent, transaction: Any) -> None:
        await transaction.execute("INSERT INTO mine VALUES ($1)", event.position)
        if event.position == 2 and (fault := self.fault) is not None:
            self.fault = None
            await fault(transaction)


async def lose_the_connection(transaction: Any) -> None:
    await transaction.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def lose_it_and_hide_it(transaction: Any) -> None:
    try:
        await lose_the_connection(transaction)
    except Exception:  # noqa: BLE001  # as handlers do
        raise ValueError("the handler's own error") from None


async def lose_it_and_go_on(transaction: Any) -> None:
    try:
        await lose_the_connection(transaction)
    except asyncpg.PostgresError:
        return


async def overrun_the_statement_timeout(transaction: Any) -> None:
    await transaction.execute("SET LOCAL statement_timeout = 20")
    await transaction.execute("SELECT pg_sleep(10)")


async def overrun_the_lock_timeout(transaction: Any) -> None:
    await transaction.execute("SET LOCAL lock_timeout = 20")
    await transaction.execute("UPDATE held SET n = 1")


async def overrun_the_idle_timeout(transaction: Any) -> None:
    await transaction.execute("SET LOCAL idle_in_transaction_session_timeout = 20")
    await asyncio.sleep(0.3)
    await transaction.execute("SELECT 1")


async def meet_a_read_only_server(transaction: Any) -> None:
    await transaction.execute("SET LOCAL transaction_read_only = on; INSERT INTO mine VALUES (99)")


def raising(code: str) -> Fault:
    return lambda transaction: transaction.execute(f"DO $$ BEGIN RAISE EXCEPTION 'a fault' USING ERRCODE = '{code}'; END $$")


FAULTS: dict[str, Fault] = {
    "lost": lose_the_connection,
    "lost and hidden": lose_it_and_hide_it,
    "lost and ignored": lose_it_and_go_on,
    "statement timeout": overrun_the_statement_timeout,
    "lock timeout": overrun_the_lock_timeout,
    "idle timeout": overrun_the_idle_timeout,
    "read only": meet_a_read_only_server,
    "serialization": raising("40001"),
    "deadlock": raising("40P01"),
    "memory": raising("53200"),
    "shutdown": raising("57P01"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_failure_of_the_server_is_no_failure_of_the_event(url: str, outside: Any, fault: Fault) -> None:
    async with open_store(url, exporters=[]) as store, outside.transaction():
        await outside.execute("UPDATE held SET n = 2")
        head = await deposit(store, 3)
        once = Once(fault)
        running = asyncio.create_task(store.run(once))
        await store.wait_for(once, head, timeout=20)
        running.cancel()
        await asyncio.wait([running])
        assert once.fault is None
    assert [row[0] for row in await outside.fetch("SELECT n FROM mine ORDER BY n")] == [1, 2, 3]


async def test_a_wrong_call_of_the_driver_is_a_failure_of_the_event(url: str, outside: Any) -> None:
    async def wrong(transaction: Any) -> None:
        await transaction.execute("INSERT INTO mine VALUES ($1)")

    async with open_store(url, exporters=[]) as store:
        head = await deposit(store, 3)
        once = Once(wrong)
        running = asyncio.create_task(store.run(once))
        await store.wait_for(once, head, timeout=20)
        running.cancel()
        await asyncio.wait([running])
    assert [row[0] for row in await outside.fetch("SELECT n FROM mine ORDER BY n")] == [1, 3]


async def test_a_lease_survives_a_clock_that_was_set_back_and_a_dead_one_ends_all_the_same(
    url: str, outside: Any, open_backend: OpenBackend
) -> None:
    first, second = await open_backend(url), await open_backend(url)
    lease = await leased(first, "first", 1.0)
    # As it looks after the clock was set back by an hour.
    await outside.execute("UPDATE eventcore.projections SET leased_until = leased_until + interval '1 hour'")
    assert await second.ledger.acquire_lease("balances", "second", 1.0) is None
    assert await first.ledger.renew_lease(lease, 1.0), "its holder goes on"
    await outside.execute("UPDATE eventcore.projections SET leased_until = leased_until + interval '1 hour'")
    async with asyncio.timeout(3):
        while (found := await second.ledger.acquire_lease("balances", "second", 1.0)) is None:
            await asyncio.sleep(0.05)
    assert found.abandoned
    assert found.checkpoint == START == Checkpoint(0, "")
