"""Several processes: two that write one file at the same time, and one that is killed while it writes."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from eventcore import RecordedEvent, open_store
from tests.store.bank import Balances, Deposit, account, balance_after

ROOT = Path(__file__).parents[2]


async def fill(url: str) -> None:
    async with open_store(url, exporters=[]) as store:
        await asyncio.gather(*(store.execute(Deposit(account=account(number), amount=50)) for number in range(8)))


async def start_writer(url: str, seed: int, count: int, stdout: int = PIPE) -> Process:
    """Pass ``DEVNULL`` for ``stdout`` if the test does not read it: a full pipe would block the writer."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.store.writer", url, str(seed), str(count), cwd=ROOT, stdout=stdout, stderr=PIPE
    )


async def everything(url: str) -> list[RecordedEvent]:
    async with open_store(url, exporters=[]) as store:
        return [event async for event in store.read_all()]


def check_books(events: list[RecordedEvent]) -> None:
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    balances: Balances = {}
    for event in events:
        balance_after(balances, event)
        assert balances[event.stream_id] >= 0
    assert sum(balances.values()) == 400
    for stream in balances:
        versions = [event.version for event in events if event.stream_id == stream]
        assert versions == list(range(1, len(versions) + 1))


async def test_two_processes_on_one_file_keep_the_books_right(sqlite_url: str) -> None:
    await fill(sqlite_url)
    writers = [await start_writer(sqlite_url, seed, 25) for seed in (1, 2)]
    told: list[str] = []
    for writer in writers:
        output, errors = await asyncio.wait_for(writer.communicate(), 50)
        assert (writer.returncode, errors) == (0, b"")
        told += output.decode().split()
    events = await everything(sqlite_url)
    check_books(events)
    assert sorted(told) == sorted(event.event_id for event in events[8:])


async def test_a_killed_process_leaves_every_acknowledged_event_and_no_half_command(sqlite_url: str) -> None:
    await fill(sqlite_url)
    writer = await start_writer(sqlite_url, 3, 1_000_000)
    assert writer.stdout is not None
    told = [await asyncio.wait_for(writer.stdout.readline(), 30) for _ in range(300)]
    writer.kill()
    rest, _ = await asyncio.wait_for(writer.communicate(), 30)
    *more, last = rest.split(b"\n")
    told += more
    assert last == b"" or len(last.split()) <= 2
    events = await everything(sqlite_url)
    check_books(events)
    acknowledged = {event_id for line in told for event_id in line.decode().split()}
    assert len(acknowledged) >= 600
    assert acknowledged <= {event.event_id for event in events}
