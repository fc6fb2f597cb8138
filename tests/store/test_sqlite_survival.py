"""What SQLite promises beside a good day: older files, several processes, a full disk, and figures of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from asyncio.subprocess import PIPE
from contextlib import closing
from pathlib import Path

import pytest

from eventcore import Telemetry, open_store
from eventcore.errors import StoreUnavailable
from eventcore.stores import SCHEMA_VERSION, START, SqliteBackend, backend_from_url
from tests.store.bank import Deposit, account
from tests.store.conftest import Measured
from tests.store.test_processes import ROOT, everything


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.db"


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        return database.execute(sql).fetchall()


async def make_older(url: str, path: Path) -> None:
    """Leave a store of schema version 1 with two events."""
    async with open_store(url, exporters=[]) as store:
        for _ in range(2):
            await store.execute(Deposit(account=account("a")))
    later = ask(path, "SELECT type, name FROM sqlite_master WHERE type <> 'index' OR sql IS NOT NULL")
    for kind, name in sorted(later, key=lambda one: one[0] == "table"):
        if name not in ("events", "events_by_stream", "events_are_kept"):
            ask(path, f"DROP {kind} IF EXISTS {name}")
    ask(path, "PRAGMA user_version = 1")


# Schema versions


async def test_an_older_store_is_brought_up_to_date_with_all_its_events(sqlite_url: str, path: Path) -> None:
    await make_older(sqlite_url, path)
    async with open_store(sqlite_url, exporters=[]) as store:
        assert [event.position async for event in store.read_all()] == [1, 2]
        assert await store.projections() == []
        assert (await store.execute(Deposit(account=account("a")))).position == 3
    assert ask(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


async def test_an_older_store_can_be_opened_by_many_at_once(sqlite_url: str, path: Path) -> None:
    await make_older(sqlite_url, path)

    async def use(number: int) -> int:
        async with open_store(sqlite_url, exporters=[]) as store:
            return (await store.execute(Deposit(account=account(number)))).position

    assert sorted(await asyncio.gather(*(use(number) for number in range(6)))) == [3, 4, 5, 6, 7, 8]
    assert ask(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


# Leases and the clock


async def test_a_lease_survives_a_clock_that_is_set_back_and_a_dead_one_ends_all_the_same(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_from_url(sqlite_url)
    await backend.open()
    first = await backend.ledger.acquire_lease("p", "one", 5)
    assert first is not None
    now = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: now)
    assert await backend.ledger.acquire_lease("p", "two", 5) is None
    assert await backend.ledger.renew_lease(first, 5), "its holder goes on"
    now -= 3600
    assert await backend.ledger.acquire_lease("p", "two", 5) is None
    now += 5.1
    lease = await backend.ledger.acquire_lease("p", "two", 5)
    assert lease is not None
    assert (lease.token, lease.checkpoint, lease.abandoned) == (2, START, True)
    await backend.close(5)


# Waiting for the next event


async def test_an_append_of_this_process_wakes_those_who_wait_at_once(sqlite_url: str) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        await store.execute(Deposit(account=account("a")))
        waiting = asyncio.create_task(store._backend.log.wait_beyond(1, 10.0))
        await asyncio.sleep(0)
        await store.execute(Deposit(account=account("a")))
        assert await asyncio.wait_for(waiting, 5) == 2


async def test_an_append_of_another_store_on_the_file_is_noticed(sqlite_url: str) -> None:
    async with open_store(sqlite_url, exporters=[]) as store, open_store(sqlite_url, exporters=[]) as other:
        waiting = asyncio.create_task(store._backend.log.wait_beyond(0, 10.0))
        await asyncio.sleep(0)
        await other.execute(Deposit(account=account("a")))
        assert await asyncio.wait_for(waiting, 5) == 1


# A full disk

_FILLER = """
import asyncio, resource, sys
from eventcore import open_store
from eventcore.errors import StoreUnavailable
from tests.store.bank import Deposit, account

async def main(url):
    async with open_store(url, exporters=[]) as store:
        await store.execute(Deposit(account=account("a")))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        try:
            for number in range(100_000):
                result = await store.execute(Deposit(account=account(number)))
                print(result.position, flush=True)
        except StoreUnavailable as error:
            print("unavailable:", error, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print("then", (await store.execute(Deposit(account=account("b")))).position, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_file_that_cannot_grow_is_reported_and_not_damaged(sqlite_url: str, path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FILLER, sqlite_url, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, errors) == (0, b"")
    *acknowledged, refusal, then = output.decode().splitlines()
    assert refusal.startswith("unavailable: ")
    assert "cannot be read or written: check the disk" in refusal or "the disk is full: free some space" in refusal
    assert then == f"then {int(acknowledged[-1]) + 1}"
    assert [event.position for event in await everything(sqlite_url)] == list(range(1, int(acknowledged[-1]) + 2))
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


# Figures


async def eventually(measured: Measured, name: str, wanted: float, **labels: str) -> None:
    deadline = time.monotonic() + 10
    while measured(name, **labels) != wanted:
        assert time.monotonic() < deadline, f"{name} is {measured(name, **labels)}, not {wanted}"
        await asyncio.sleep(0.01)


async def test_a_store_tells_its_head_its_size_and_when_it_was_last_written(
    sqlite_url: str, path: Path, telemetry: Telemetry, measured: Measured
) -> None:
    async with open_store(sqlite_url, exporters=[]) as other:
        await other.execute(Deposit(account=account("a")))
    async with open_store(sqlite_url, telemetry=telemetry) as store:
        await eventually(measured, "store.head.position", 1, store="default", db_system_name="sqlite")
        assert measured("store.size") >= len(await asyncio.to_thread(path.read_bytes)) >= 4096
        assert 0 < measured("store.last.append.age") < 60
        age = measured("store.last.append.age")
        await store.execute(Deposit(account=account("a")))
        assert measured("store.last.append.age") < age
        assert measured("store.head.position") == 2
        assert measured("store.io", direction="write") > 100
        assert measured("store.io", direction="read") > 10
    names = {data.name for data in telemetry.collect()}
    assert not names & {f"eventcore.store.{name}" for name in ("head.position", "size", "last.append.age", "io")}


async def test_an_empty_store_has_no_age_and_memory_no_size(telemetry: Telemetry, measured: Measured) -> None:
    async with open_store("memory:", telemetry=telemetry) as store:
        await store.execute(Deposit(account=account("a")))
        await eventually(measured, "store.head.position", 1)
        names = {data.name.removeprefix("eventcore.store.") for data in telemetry.collect()}
        assert "last.append.age" in names
        assert not names & {"size", "io", "pool.connections"}


async def test_what_cannot_be_asked_is_absent(sqlite_url: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_from_url(sqlite_url)
    assert isinstance(backend, SqliteBackend)
    asked = asyncio.Event()

    async def sample() -> object:
        asked.set()
        raise StoreUnavailable("gone fishing")

    monkeypatch.setattr(backend, "sample", sample)
    async with open_store(backend, telemetry=telemetry):
        await asyncio.wait_for(asked.wait(), 5)
        names = {data.name for data in telemetry.collect()}
        assert not names & {f"eventcore.store.{name}" for name in ("head.position", "size", "last.append.age")}


async def test_waits_for_the_write_lock_are_measured(
    sqlite_url: str, path: Path, telemetry: Telemetry, measured: Measured
) -> None:
    async with open_store(sqlite_url, telemetry=telemetry) as store:
        before = measured("store.lock.wait", lock="write", db_system_name="sqlite")
        await store._backend.ledger.acquire_lease("p", "one", 5)
        assert measured("store.lock.wait", lock="write", db_system_name="sqlite") == before + 1
