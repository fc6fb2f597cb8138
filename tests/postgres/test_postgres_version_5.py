"""Stores that version 5 of the schema has made: they migrate, and processes of that version go on beside new ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from eventcore import StreamId, open_store
from eventcore.stores.postgres.arguments import append_arguments, key_arguments
from eventcore.stores.values import AppendRequest, CommandKey
from tests.postgres.backends import OpenBackend, Server, everything, request
from tests.store.bank import Deposit, Deposited, account

# Made by eventcore of version 5 on PostgreSQL 15, by three deposits with idempotency keys and a transfer.
DUMP: Final = Path(__file__).parent / "data" / "version_5.sql"
_16: Final = ", ".join(f"${number}" for number in range(3, 19))
# What a process of version 5 sends to append, without and with idempotency keys.
APPEND: Final = f'SELECT head, verdicts FROM "eventcore".append_batch($1, $2, {_16}, $19, $20, $21)'
APPEND_ONCE: Final = (
    f'SELECT head, verdicts, known FROM "eventcore".append_events_once($1, $2, {_16}, $19, $20, $21, $22, $23, $24, $25, $26)'
)
_ANY: Final = 2**62


@pytest.fixture
def old_database(server: Server) -> str:
    """A database with a store of version 5."""
    name = server.new_database()
    server.sql(DUMP.read_text("utf-8"), name)
    return name


async def append(old: asyncpg.Connection, *requests: AppendRequest) -> Any:
    arguments = append_arguments(requests)[:16]
    if any(request.key for request in requests):
        return await old.fetchrow(APPEND_ONCE, False, 1000, *arguments, _ANY, 0, "", *key_arguments(requests))
    return await old.fetchrow(APPEND, False, 1000, *arguments, _ANY, 0, "")


def keyed(stream: str, version: int, key: str) -> AppendRequest:
    made = request({stream: version}, stream)
    return AppendRequest(made.base, made.expected, made.events, None, CommandKey(key, "0" * 32, 1, 60.0))


async def test_processes_of_version_5_go_on_while_and_after_a_store_migrates(
    server: Server, old_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTCORE_SPECULATION", "on")
    url = server.url(old_database)
    old = await asyncpg.connect(url)
    migrated = asyncio.Event()
    appended = 0

    async def go_on() -> None:
        nonlocal appended
        while not migrated.is_set():
            assert (await append(old, request({"account-9": appended}, "account-9")))["verdicts"] is None
            appended += 1

    try:
        going_on = asyncio.create_task(go_on())
        async with asyncio.timeout(30):
            while appended < 3:
                await asyncio.sleep(0)
            async with open_store(url, exporters=[]) as store:
                before = appended
                while appended < before + 3:
                    await asyncio.sleep(0)
                migrated.set()
                await going_on
                result = await store.execute(Deposit(account=account(9)))
                assert (result.attempts, result.events[0].version) == (1, appended + 1), "it guessed, and was told"
                events = [event async for event in store.read_all()]
                assert [event.position for event in events] == list(range(1, appended + 7))
                assert [event.data for event in events][:3] == [Deposited(amount=amount) for amount in (10, 20, 30)]
                stale = request({"account-9": appended}, "account-9")
                assert (await append(old, stale, request({"account-8": 0}, "account-8")))["verdicts"] == [-1, appended + 7]
    finally:
        await old.close()


async def test_both_versions_know_each_others_idempotency_keys(
    server: Server, old_database: str, open_backend: OpenBackend
) -> None:
    url = server.url(old_database)
    backend = await open_backend(url)
    old = await asyncpg.connect(url)
    try:
        assert await backend.log.append([keyed("new", 0, "of-new")]) == [6]
        assert (await append(old, keyed("old", 0, "of-new")))["known"] == ["of-new"]
        assert (await append(old, keyed("old", 0, "of-old")))["verdicts"] is None
        assert await backend.log.append([keyed("new", 1, "of-old"), keyed("new", 1, "other")]) == [-2, 8]
        assert set(await backend.log.find_keys(["of-new", "of-old", "other"])) == {"of-new", "of-old", "other"}
    finally:
        await old.close()
    assert [row.stream_id for row in await everything(backend)][5:] == [StreamId("new"), StreamId("old"), StreamId("new")]
