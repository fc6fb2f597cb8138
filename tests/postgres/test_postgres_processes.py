"""Processes that write one store at once, and one that is killed while it writes."""

from __future__ import annotations

import asyncio

from tests.store.test_processes import check_books, everything, fill, start_writer


async def test_two_processes_on_one_server_keep_the_books_right(url: str) -> None:
    await fill(url)
    writers = [await start_writer(url, seed, 25) for seed in (1, 2)]
    told: list[str] = []
    for writer in writers:
        output, errors = await asyncio.wait_for(writer.communicate(), 50)
        assert (writer.returncode, errors) == (0, b"")
        told += output.decode().split()
    events = await everything(url)
    check_books(events)
    assert sorted(told) == sorted(event.event_id for event in events[8:])


async def test_a_killed_process_leaves_every_acknowledged_event_and_no_half_command(url: str) -> None:
    await fill(url)
    writer = await start_writer(url, 3, 1_000_000)
    assert writer.stdout is not None
    told = [await asyncio.wait_for(writer.stdout.readline(), 30) for _ in range(300)]
    writer.kill()
    rest, _ = await asyncio.wait_for(writer.communicate(), 30)
    # The last line may be cut off.
    told += rest.split(b"\n")[:-1]
    events = await everything(url)
    check_books(events)
    acknowledged = {event_id for line in told for event_id in line.decode().split()}
    assert len(acknowledged) >= 600
    assert acknowledged <= {event.event_id for event in events}
