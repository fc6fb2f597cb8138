"""A process is killed and another takes over: the read model has the effect of every event exactly once."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import closing
from pathlib import Path

import pytest

from eventcore import EventStore, open_store
from tests.projections.projecting import LEASE
from tests.store.bank import Balances, balance_after
from tests.store.test_processes import ROOT, fill, start_writer


async def start_projector(url: str, hang_at: int = 0) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.projections.projecting", url, str(hang_at), cwd=ROOT, stdout=PIPE, stderr=PIPE
    )


async def kill(process: Process) -> None:
    process.kill()
    await asyncio.wait_for(process.communicate(), 30)


async def leader(store: EventStore, among: list[Process]) -> Process:
    """Wait until one of the processes holds the lease, and return it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for record in await store.projections():
            for process in among:
                if record.owner.split(":")[1:2] == [str(process.pid)]:
                    return process
        await asyncio.sleep(0.02)
    raise AssertionError("nobody leads")


async def check_balances(store: EventStore, url: str) -> None:
    """Check that the table equals the balances computed from all events."""
    balances: Balances = {}
    counts: dict[str, int] = {}
    async for event in store.read_all():
        balance_after(balances, event)
        counts[event.stream_id] = counts.get(event.stream_id, 0) + 1
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as database:
        found = database.execute("SELECT stream, amount, events FROM balances ORDER BY stream").fetchall()
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert found == [(stream, balances[stream], counts[stream]) for stream in sorted(balances)]


def check_agreement(url: str) -> None:
    """Check in one snapshot that the read model holds exactly the events up to the checkpoint."""
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as database:
        [(applied, position)] = database.execute(
            "SELECT (SELECT sum(events) FROM balances), position FROM projections WHERE name = 'balance-table'"
        ).fetchall()
    assert applied == position


async def test_a_transaction_of_a_killed_process_is_rolled_back(sqlite_url: str) -> None:
    await fill(sqlite_url)
    victim = await start_projector(sqlite_url, hang_at=6)
    assert victim.stdout is not None
    assert await asyncio.wait_for(victim.stdout.readline(), 30) == b"inside\n"
    await kill(victim)
    async with open_store(sqlite_url, exporters=[]) as store:
        [record] = await store.projections()
        assert record.checkpoint.position < 6
        successor = await start_projector(sqlite_url)
        try:
            await store.wait_for("balance-table", 8, timeout=LEASE + 20)
            await check_balances(store, sqlite_url)
        finally:
            await kill(successor)


@pytest.mark.timeout(150)
async def test_after_each_of_several_kills_another_process_takes_over_within_seconds(sqlite_url: str) -> None:
    await fill(sqlite_url)
    writer = await start_writer(sqlite_url, 7, 1_000_000, DEVNULL)
    projectors = [await start_projector(sqlite_url) for _ in range(2)]
    try:
        async with open_store(sqlite_url, exporters=[]) as store:
            for _ in range(3):
                victim = await leader(store, projectors)
                await store.wait_for("balance-table", await store.head_position() + 20, timeout=20)
                for _ in range(20):
                    check_agreement(sqlite_url)
                await kill(victim)
                check_agreement(sqlite_url)
                projectors.remove(victim)
                killed = time.monotonic()
                successor = await leader(store, projectors)
                # The rest of the lease, at most a second of standing by, and some time for a busy machine.
                assert time.monotonic() - killed < LEASE + 5
                assert successor is not victim
                projectors.append(await start_projector(sqlite_url))
            await kill(writer)
            await store.wait_for("balance-table", await store.head_position(), timeout=30)
            await check_balances(store, sqlite_url)
    finally:
        for process in (writer, *projectors):
            if process.returncode is None:
                await kill(process)
