"""Connections to the server: never more than pool + 3, whatever times out; and what they tell the server."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

import asyncpg
import psutil  # type: ignore[import-untyped]  # it has no types
import pytest

from eventcore import EventStore, open_store
from eventcore.errors import EventCoreError, StoreUnavailable
from eventcore.stores import START, EventFilter
from eventcore.stores.postgres.schema import lock_key
from tests.postgres.backends import OpenBackend, Server, as_soon_as_it_answers, request
from tests.postgres.proxy import Proxy
from tests.projections.models import Seen
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, account

Sessions = Callable[[], Awaitable[int]]


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[Any]:
    """Hold a lock that no read and no append of the store passes."""
    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE eventcore.events IN ACCESS EXCLUSIVE MODE")
            yield holder
    finally:
        await holder.close()


@pytest.fixture
async def sessions(server: Server, database: str) -> AsyncIterator[Sessions]:
    """A function that counts the connections of the store: all to the database, except those that hold a lock for a test."""
    observer = await asyncpg.connect(server.url())

    async def count() -> int:
        found: int = await observer.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND query NOT LIKE 'LOCK TABLE%'", database
        )
        return found

    yield count
    await observer.close()


async def most(sessions: Sessions, seconds: float) -> int:
    """The largest count within the next seconds."""
    found, until = 0, monotonic() + seconds
    while monotonic() < until:
        found = max(found, await sessions())
        await asyncio.sleep(0.01)
    return found


async def for_ever(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        with suppress(EventCoreError):
            await call()
        await asyncio.sleep(0.005)


async def read(store: EventStore) -> None:
    async for _ in store.read(account(1)):
        pass


@asynccontextmanager
async def busy(store: EventStore) -> AsyncIterator[None]:
    """Commands, commands that are given up, reads and a projection at the same time, all the while."""

    async def give_up() -> None:
        async with asyncio.timeout(0.05):
            await store.execute(Deposit(account=account(3)))

    calls: list[Callable[[], Awaitable[object]]] = [partial(read, store), store.head_position] * 5
    calls += [partial(store.execute, Deposit(account=account(number))) for number in range(10)]
    tasks = [asyncio.create_task(for_ever(call)) for call in calls]
    tasks.append(asyncio.create_task(store.run(Seen(), lease=0.5)))

    async def abandon() -> None:
        while True:
            with suppress(TimeoutError, EventCoreError):
                await give_up()

    tasks.append(asyncio.create_task(abandon()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("switch", ["", "&statement_cache=off"])
async def test_while_a_lock_is_held_there_are_never_more_connections_than_pool_and_three(
    url: str, sessions: Sessions, switch: str
) -> None:
    async with open_store(f"{url}?pool=2&timeout=0.8{switch}", exporters=[]) as store:
        await store.execute(Deposit(account=account(1)))
        async with busy(store):
            assert await most(sessions, 0.5) <= 5
            async with locked(url):
                assert await most(sessions, 3) <= 5
            assert await most(sessions, 1) <= 5
        await as_soon_as_it_answers(lambda: store.execute(Deposit(account=account(1))))


async def test_while_the_server_is_silent_there_are_never_more_connections_than_pool_and_three(
    url: str, sessions: Sessions
) -> None:
    async with Proxy.before(url) as proxy, open_store(f"{proxy.url}?pool=2&timeout=0.8", exporters=[]) as store:
        await store.execute(Deposit(account=account(1)))
        async with busy(store):
            for _ in range(3):
                proxy.silent = True
                assert await most(sessions, 1.5) <= 5
                proxy.silent = False
                assert await most(sessions, 0.5) <= 5
        await as_soon_as_it_answers(lambda: store.execute(Deposit(account=account(1))))


async def test_a_call_that_is_given_up_leaves_no_statement_behind(
    server: Server, url: str, open_backend: OpenBackend, database: str
) -> None:
    backend = await open_backend(url)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
    observer = await asyncpg.connect(server.url())
    async with locked(url):
        for call in (backend.log.head_position, lambda: backend.log.append([request({"a": 0}, "a")])):
            task = asyncio.ensure_future(call())
            async with asyncio.timeout(5):
                while not await observer.fetchval(waiting, database):
                    await asyncio.sleep(0.01)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            async with asyncio.timeout(2):
                while await observer.fetchval(waiting, database):
                    await asyncio.sleep(0.01)
    await observer.close()


def processes(postmaster: psutil.Process, database: str) -> int:
    """How many processes of a server serve a database, or are about to."""
    found = 0
    for child in postmaster.children():
        # One that has just ended.
        with suppress(psutil.Error):
            found += f" {database} " in " ".join(child.cmdline())
    return found


async def test_calls_that_are_given_up_while_they_connect_leave_no_more_sessions_than_pool_and_three(
    server: Server, url: str, open_backend: OpenBackend, database: str
) -> None:
    """Sessions that begin slowly are in no view of the server; its processes show them."""
    if not isinstance(server, PostgresServer):
        pytest.skip("EVENTCORE_TEST_POSTGRES names a server whose processes are not seen")
    backend = await open_backend(f"{url}?pool=1&timeout=6&options=-c%20post_auth_delay%3D1")
    postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().splitlines()[0]))
    most_found = 0
    async with locked(url):
        for _ in range(20):
            with suppress(TimeoutError, StoreUnavailable):
                async with asyncio.timeout(0.1):
                    await backend.log.head_position()
            # One of them holds the lock.
            most_found = max(most_found, processes(postmaster, database) - 1)
    assert 2 <= most_found <= 4
    assert await as_soon_as_it_answers(backend.log.head_position) == 0


async def test_a_statement_whose_process_was_killed_ends_after_the_timeout(
    server: Server, url: str, open_backend: OpenBackend, database: str
) -> None:
    """The server's own limits stand for a process that cannot cancel its statement any more."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
    observer = await asyncpg.connect(server.url())
    backend = await open_backend(f"{url}?timeout=2")
    async with backend.log._reading.connection(monotonic() + 2) as connection:  # type: ignore[attr-defined]
        limits = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
        assert tuple(await connection.fetchrow(limits)) == ("2s", "2s")
        async with locked(url):
            lost = asyncio.ensure_future(connection.fetch("SELECT FROM eventcore.events"))
            async with asyncio.timeout(2):
                while not await observer.fetchval(waiting, database):
                    await asyncio.sleep(0.01)
            connection.terminate()
            await asyncio.gather(lost, return_exceptions=True)
            async with asyncio.timeout(4):
                while await observer.fetchval(waiting, database):
                    await asyncio.sleep(0.01)
    await observer.close()


async def test_the_statements_of_a_handler_may_take_longer_than_a_call(url: str, open_backend: OpenBackend) -> None:
    backend = await open_backend(f"{url}?timeout=0.4")
    lease = await backend.ledger.acquire_lease("slow", "me", 30)
    assert lease is not None
    await backend.ledger.commit_checkpoint(
        lease, START, START, apply=lambda transaction: transaction.execute("SELECT pg_sleep(1)")
    )
    async with backend.log._reading.connection(monotonic() + 1) as connection:  # type: ignore[attr-defined]
        assert await connection.fetchval("SELECT current_setting('statement_timeout')") == "400ms"


async def test_the_server_knows_the_connections_by_the_name_and_options_of_the_url(url: str) -> None:
    observer = await asyncpg.connect(url)
    named = f"{url}?application_name=order%20service&options=-c%20work_mem%3D7MB%20-c%20statement_timeout%3D5s"
    async with open_store(named, exporters=[]) as store:
        await store.execute(Deposit(account=account(1)))
        names = await observer.fetch(
            "SELECT DISTINCT application_name FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert [tuple(name) for name in names] == [("order service",)]
        async with store._backend.log._log._reading.connection(monotonic() + 5) as connection:  # type: ignore[attr-defined]
            settings = (
                "SELECT current_setting('work_mem'), current_setting('statement_timeout'), current_setting('lock_timeout')"
            )
            assert tuple(await connection.fetchrow(settings)) == ("7MB", "5s", "10s")
    await observer.close()


async def test_a_wait_for_new_events_polls_when_no_connection_can_listen(
    start_postgres: Callable[..., Any], open_backend: OpenBackend
) -> None:
    server = start_postgres(max_connections="9", superuser_reserved_connections="0", max_wal_senders="0")
    url = server.url(server.new_database())
    backend = await open_backend(f"{url}?timeout=2")
    await backend.log.append([request({"a": 0}, "a")])
    assert await backend.log.head_position() == 1
    async with AsyncExitStack() as taken:
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                connection = await asyncpg.connect(url)
                taken.push_async_callback(connection.close)
        for position in range(3):
            assert await backend.log.wait_beyond(position, 0.3) == position + 1
            await backend.log.append([request({"a": position + 1}, "a")])
        assert await backend.log.wait_beyond(99, 0.3) == 4


async def test_a_command_takes_no_longer_than_one_timeout_however_its_calls_share_it(url: str) -> None:
    async with Proxy.before(url) as proxy, open_store(f"{proxy.url}?timeout=2", exporters=[]) as store:
        await store.execute(Deposit(account=account(1)))

        def fall_silent() -> bool:
            proxy.silent = True
            return False

        proxy.mark, proxy.cut_request = b"bank.Deposited", fall_silent
        async with locked(url):
            # The stream is not in the cache, so the command first waits to read it, and then for the answer of its append.
            begun = monotonic()
            command = asyncio.create_task(store.execute(Deposit(account=account(2))))
            await asyncio.sleep(1.5)
        with pytest.raises(StoreUnavailable) as failure:
            await command
        assert monotonic() - begun < 2.6
        assert failure.value.may_have_committed


async def test_the_error_after_a_held_lock_says_where_to_look(url: str, open_backend: OpenBackend) -> None:
    backend = await open_backend(f"{url}?timeout=0.5")
    async with locked(url):
        with pytest.raises(StoreUnavailable, match="holds a lock that the statement needs") as failure:
            await backend.log.follow(START, 1, EventFilter())
    assert type(failure.value) is StoreUnavailable
    assert not failure.value.may_have_committed, "it was a read"


async def test_a_cancelled_statement_says_who_may_have_cancelled_it(
    server: Server, url: str, open_backend: OpenBackend, database: str
) -> None:
    backend = await open_backend(f"{url}?options=-c%20statement_timeout%3D300")
    async with locked(url):
        with pytest.raises(StoreUnavailable, match=r"cancelled the statement: it took longer than statement_timeout"):
            await backend.log.head_position()
    backend, observer = await open_backend(url), await asyncpg.connect(server.url())
    async with locked(url):
        reading = asyncio.create_task(backend.log.head_position())
        cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
        async with asyncio.timeout(5):
            while not await observer.fetchval(cancel, database):
                await asyncio.sleep(0.01)
        with pytest.raises(StoreUnavailable, match="or an administrator ended it"):
            await reading
    await observer.close()
    assert await backend.log.head_position() == 0


async def test_both_ends_of_a_connection_find_out_that_the_other_one_has_vanished(url: str, open_backend: OpenBackend) -> None:
    backend = await open_backend(f"{url}?timeout=6")
    async with backend.log._reading.connection(monotonic() + 5) as connection:  # type: ignore[attr-defined]
        names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
        assert [await connection.fetchval("SELECT current_setting($1)", name) for name in names] == ["6", "2", "3"]
        end = connection._transport.get_extra_info("socket")
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert [end.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [6, 2, 3, 12_000]


async def test_a_session_that_does_not_confirm_its_end_is_terminated(
    server: Server, url: str, open_backend: OpenBackend, database: str, sessions: Sessions
) -> None:
    """Connections that exist are broken in a way that the server does not notice; new ones work."""
    observer = await asyncpg.connect(server.url())
    numbers = "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = $1"
    async with Proxy.before(url) as proxy:
        backend = await open_backend(f"{proxy.url}?timeout=2&pool=1")
        await backend.log.head_position()
        broken = await observer.fetchval(numbers, database)
        assert len(broken) == 3
        proxy.freeze_all()
        watching = asyncio.create_task(most(sessions, 4))
        assert await backend.log.head_position() == 0
        assert await backend.log.append([request({"a": 0}, "a")]) == [1]
        assert await watching <= 4
        # Those that were used have ended; the third may be there, since it was not.
        assert len(set(broken) & set(await observer.fetchval(numbers, database))) <= 1
    await observer.close()


async def test_the_append_lock_is_free_before_the_answer_of_an_append_arrives(url: str, open_backend: OpenBackend) -> None:
    """Nothing that happens to a process after it has sent its append, such as SIGSTOP, keeps the lock."""
    async with Proxy.before(url) as proxy:
        stopped = await open_backend(f"{proxy.url}?statement_cache=off&listen=off&timeout=20")
        await stopped.log.append([request({"a": 0}, "a")])
        other = await asyncpg.connect(url)
        proxy.mark, proxy.hold_answer = b"bank.Deposited", lambda: 3.0
        append = asyncio.create_task(stopped.log.append([request({"b": 0}, "b")]))
        async with asyncio.timeout(2):
            while await other.fetchval("SELECT max(position) FROM eventcore.events") < 2:
                await asyncio.sleep(0.01)
            await other.execute(f"SELECT pg_advisory_lock({lock_key('eventcore')})")
        assert not append.done()
        await other.close()
        proxy.hold_answer = lambda: 0.0
        assert await append == [2]


# As a process of its own: connections that are collected after their event loop is closed warn, which tests do not allow.
_LEFT_OPEN = """
import asyncio, sys
from eventcore import open_store
from tests.store.bank import Deposit, account

async def leave_open():
    store = await open_store(sys.argv[1], exporters=[]).__aenter__()
    await store.execute(Deposit(account=account("a")))
    # A connection that is being made when the loop is closed cannot be reached: wait for those of the first health check.
    await store.health()
    while store._monitor._store._backend.counters.connections_used:
        await asyncio.sleep(0.01)
    return store

loop = asyncio.new_event_loop()
store = loop.run_until_complete(leave_open())
loop.close()
print("left open", flush=True)
sys.stdin.readline()
for _ in range(2):
    asyncio.run(store.close(5))
print("closed", flush=True)
sys.stdin.readline()
"""


@pytest.mark.once
async def test_closing_a_store_whose_event_loop_is_closed_ends_its_sessions_at_once(
    server: Server, database: str, sessions: Sessions
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LEFT_OPEN, server.url(database)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(40):
            assert await process.stdout.readline() == b"left open\n"
            assert await sessions() > 0
            process.stdin.write(b"\n")
            assert await process.stdout.readline() == b"closed\n"
        # The process still has the store.
        async with asyncio.timeout(10):
            while await sessions():
                await asyncio.sleep(0.02)
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
