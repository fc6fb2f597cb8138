"""Leases, checkpoints and dead letters, which are rows beside the events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import asyncpg
import msgspec
import pytest

from eventcore import OnError, Projection, RecordedEvent, open_store
from eventcore.errors import LeadershipLost, StoreUnavailable
from eventcore.stores import START, Backend, Checkpoint, DeadLetter, Lease, ProjectionRecord
from tests.postgres.backends import OpenBackend, new_event, request
from tests.postgres.proxy import Proxy
from tests.store.bank import Deposit, account

ONE = Checkpoint(1, "1" * 32)
TWO = Checkpoint(2, "2" * 32)


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE balances (account text, amount integer)")
    yield connection
    await connection.close()


async def leased(backend: Backend, owner: str = "me", seconds: float = 30) -> Lease:
    """Acquire the lease. Before that, make sure that the events ONE and TWO are there."""
    if await backend.log.head_position() == 0:
        news = [new_event("a", 1), new_event("a", 2)]
        named = [
            msgspec.structs.replace(new, recorded=msgspec.structs.replace(new.recorded, event_id=known.event_id))
            for new, known in zip(news, (ONE, TWO), strict=True)
        ]
        await backend.log.append([request({"a": 0}, events=named)])
    lease = await backend.ledger.acquire_lease("balances", owner, seconds)
    assert lease is not None
    return lease


def letter(position: int = 1, error: str = "no such account") -> DeadLetter:
    return DeadLetter("balances", position, f"{position:032x}", "KeyError", error, 3, 1_700_000_000_000_000_000)


async def test_of_many_that_ask_one_gets_the_lease(backend: Backend, url: str, open_backend: OpenBackend) -> None:
    other = await open_backend(url)
    leases = await asyncio.gather(
        *(one.ledger.acquire_lease("balances", f"owner-{n}", 30) for n, one in enumerate([backend, other] * 4))
    )
    [lease] = [lease for lease in leases if lease is not None]
    assert lease == Lease("balances", 1, START, seconds=30)
    [record] = await backend.ledger.projections()
    assert (record.name, record.checkpoint, record.token, record.dead_letters) == ("balances", START, 1, 0)
    assert record.owner.startswith("owner-")
    assert 20 < record.lease_left <= 30


async def test_a_lease_that_has_run_out_goes_to_the_next_and_fences_the_last(backend: Backend) -> None:
    first = await leased(backend, "first", 0.05)
    async with asyncio.timeout(10):
        while (second := await backend.ledger.acquire_lease("balances", "second", 30)) is None:
            await asyncio.sleep(0.02)
    assert second.token == 2
    assert not await backend.ledger.renew_lease(first, 30)
    with pytest.raises(LeadershipLost):
        await backend.ledger.commit_checkpoint(first, START, ONE)
    await backend.ledger.release_lease(first)
    assert await backend.ledger.renew_lease(second, 30)
    await backend.ledger.commit_checkpoint(second, START, ONE)


async def test_a_lease_that_is_given_back_is_free_at_once(backend: Backend) -> None:
    await backend.ledger.release_lease(await leased(backend, "first"))
    assert await backend.ledger.projections() == [ProjectionRecord("balances", START, "", 1, 0.0, 0)]
    assert (await leased(backend, "second")).token == 2


async def test_the_checkpoint_moves_only_from_where_it_is(backend: Backend) -> None:
    lease = await leased(backend)
    await backend.ledger.commit_checkpoint(lease, START, ONE)
    with pytest.raises(LeadershipLost, match="taken over by another runner: its checkpoint cannot be moved from position 0"):
        await backend.ledger.commit_checkpoint(lease, START, TWO)
    await backend.ledger.commit_checkpoint(lease, ONE, TWO)
    assert (await leased(backend)).checkpoint == TWO


async def test_a_read_model_changes_with_its_checkpoint_or_not_at_all(backend: Backend, connection: Any) -> None:
    lease = await leased(backend)

    async def pay(transaction: Any) -> None:
        await transaction.execute("INSERT INTO balances VALUES ('a', 5)")

    await backend.ledger.commit_checkpoint(lease, START, ONE, apply=pay)
    with pytest.raises(LeadershipLost):
        await backend.ledger.commit_checkpoint(lease, START, TWO, apply=pay)
    assert await connection.fetchval("SELECT count(*) FROM balances") == 1


async def test_a_handlers_own_failure_comes_out_as_it_is_and_undoes_everything(backend: Backend, connection: Any) -> None:
    lease = await leased(backend)
    mine = OSError("the handler's")

    async def fail(transaction: Any) -> None:
        await transaction.execute("INSERT INTO balances VALUES ('a', 5)")
        raise mine

    async def misspell(transaction: Any) -> None:
        await transaction.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(OSError, match="the handler's") as failure:
        await backend.ledger.commit_checkpoint(lease, START, ONE, [letter()], fail)
    assert failure.value is mine
    with pytest.raises(asyncpg.UndefinedTableError):
        await backend.ledger.commit_checkpoint(lease, START, ONE, [letter()], misspell)
    assert await connection.fetchval("SELECT count(*) FROM balances") == 0
    assert await backend.ledger.dead_letters("balances", 10) == []
    assert (await leased(backend)).checkpoint == START


async def test_dead_letters_are_kept_in_order_and_removed_once_applied(backend: Backend, connection: Any) -> None:
    lease = await leased(backend)
    await backend.ledger.commit_checkpoint(lease, START, TWO, [letter(2), letter(1, "old")])
    await backend.ledger.commit_checkpoint(lease, TWO, TWO, [letter(1)])
    assert await backend.ledger.dead_letters("balances", 10) == [letter(1), letter(2)]
    assert await backend.ledger.dead_letters("balances", 1) == [letter(1)]
    [record] = await backend.ledger.projections()
    assert record.dead_letters == 2

    async def pay(transaction: Any) -> None:
        await transaction.execute("INSERT INTO balances VALUES ('a', 5)")

    async def fail(transaction: Any) -> None:
        raise KeyError("still")

    with pytest.raises(KeyError, match="still"):
        await backend.ledger.remove_dead_letter(letter(1), fail)
    assert await backend.ledger.remove_dead_letter(letter(1), pay)
    assert not await backend.ledger.remove_dead_letter(letter(1), pay)
    assert await connection.fetchval("SELECT count(*) FROM balances") == 1
    assert await backend.ledger.dead_letters("balances", 10) == [letter(2)]


async def test_a_projection_is_reset_only_when_nobody_runs_it(backend: Backend) -> None:
    lease = await leased(backend)
    await backend.ledger.commit_checkpoint(lease, START, ONE, [letter()])
    with pytest.raises(LeadershipLost, match="stop it before you reset it"):
        await backend.ledger.reset_projection("balances")
    await backend.ledger.release_lease(lease)
    await backend.ledger.reset_projection("balances")
    assert await backend.ledger.dead_letters("balances", 10) == []
    with pytest.raises(LeadershipLost):
        await backend.ledger.commit_checkpoint(lease, ONE, TWO)
    assert (await leased(backend)).checkpoint == START
    await backend.ledger.reset_projection("unknown")


async def test_whoever_is_cancelled_does_not_wait_for_a_server_that_is_silent(url: str, open_backend: OpenBackend) -> None:
    async with Proxy.before(url) as proxy:
        backend = await open_backend(proxy.url)
        lease = await leased(backend)
        begun = asyncio.Event()

        async def apply(transaction: Any) -> None:
            proxy.silent = True
            begun.set()
            await transaction.execute("SELECT 1")

        committing = asyncio.create_task(backend.ledger.commit_checkpoint(lease, START, ONE, apply=apply))
        await begun.wait()
        committing.cancel()
        done, _ = await asyncio.wait([committing], timeout=3)
        assert done == {committing}
        assert committing.cancelled()
        proxy.silent = False
        assert (await leased(backend)).checkpoint == START


async def test_a_handler_may_be_a_plain_function_and_use_savepoints(backend: Backend, connection: Any) -> None:
    lease = await leased(backend)
    seen: list[Any] = []

    async def pay(transaction: Any) -> None:
        async with transaction.transaction():
            await transaction.execute("INSERT INTO balances VALUES ('a', 5)")

    await backend.ledger.commit_checkpoint(lease, START, ONE, apply=seen.append)
    await backend.ledger.commit_checkpoint(lease, ONE, TWO, apply=pay)
    assert len(seen) == 1
    assert await connection.fetchval("SELECT amount FROM balances") == 5


@pytest.mark.parametrize(("pool", "count"), [(1, 1), (1, 2), (2, 2), (4, 4)])
async def test_handlers_read_the_store_while_their_transactions_hold_connections(url: str, pool: int, count: int) -> None:
    class Reading(Projection):
        on_error = OnError(retries=0)

        def __init__(self, number: int) -> None:
            self.number = number
            self.found: list[int] = []

        async def handle(self, event: RecordedEvent, transaction: Any) -> None:
            await transaction.fetchval("SELECT 1")
            assert await store.head_position() == 3
            self.found += [found.position async for found in store.read(event.stream_id)]

    async with open_store(f"{url}?pool={pool}&timeout=4", exporters=[]) as store:
        for _ in range(3):
            await store.execute(Deposit(account=account("a")))
        # The names of classes, since a name belongs to one projection.
        projections = [type(f"Reading{n}", (Reading,), {"name": f"reading-{n}"})(n) for n in range(count)]
        running = [asyncio.create_task(store.run(projection)) for projection in projections]
        begun = monotonic()
        for projection in projections:
            await store.wait_for(projection, 3, timeout=20)
        assert monotonic() - begun < 4, "a handler waited for a connection until the timeout"
        assert [projection.found for projection in projections] == [[1, 2, 3] * 3] * count
        assert not any(task.done() for task in running)


async def test_handlers_that_wait_for_a_transaction_fail_with_advice(
    backend: Backend, url: str, open_backend: OpenBackend
) -> None:
    other = await open_backend(f"{url}?pool=1&timeout=0.5")
    lease = await leased(other)
    inside, leave = asyncio.Event(), asyncio.Event()

    async def apply(transaction: Any) -> None:
        inside.set()
        await leave.wait()

    first = asyncio.create_task(other.ledger.commit_checkpoint(lease, START, ONE, (), apply))
    await asyncio.wait_for(inside.wait(), 10)
    with pytest.raises(StoreUnavailable, match=r"the transactions of 1 handlers of projections.* raise pool in the store URL"):
        await other.ledger.remove_dead_letter(letter(), apply)
    leave.set()
    await asyncio.wait_for(first, 10)
