"""Processes that are killed: another takes over, and the read model is what a fold over all events says, exactly once."""

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
    """The process that holds the lease, once one of them does."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for record in await store.projections():
            for process in among:
                if record.owner.split(":")[1:2] == [str(process.pid)]:
                    return process
        await asyncio.sleep(0.02)
    raise AssertionError("nobody leads")


async def check_balances(store: EventStore, url: str) -> None:
    """The table is the fold."""
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
    """In any one snapshot the read model holds as many events as the checkpoint says."""
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as database:
        [(applied, position)] = database.execute(
            "SELECT (SELECT sum(events) FROM balances), position FROM projections WHERE name = 'balance-table'"
        ).fetchall()
    assert applied == position


async def test_a_projector_that_is_killed_within_its_transaction_leaves_nothing_of_it(sqlite_url: str) -> None:
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
async def test_projectors_that_are_killed_one_after_another_are_followed_by_others_within_seconds(sqlite_url: str) -> None:
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
                # The lease, a second at most between two looks, and a machine that has other things to do.
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
