"""Stores that version 2 of the schema has made: they migrate with all their data, while processes of that version go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from eventcore import StreamId, open_store
from eventcore.errors import AccessDenied, IncompatibleStore
from eventcore.stores import SCHEMA_VERSION, START, EventFilter, EventsRedacted, Snapshot, StateKey
from eventcore.stores.urls import backend_from_url
from tests.postgres.backends import OpenBackend, Server, everything, request
from tests.postgres.test_postgres_opening import refusal, signed_in
from tests.store.bank import Deposit, Deposited, Transfer, account

# Made by eventcore of version 2 on PostgreSQL 15, by three deposits, a transfer, a projection and a redaction.
DUMP: Final = Path(__file__).parent / "data" / "version_2.sql"
# What a process of version 2 sends: to append one event to a stream, to read streams, and to follow the global order.
APPEND: Final = """
    SELECT head, verdicts, waited FROM "eventcore".append_events(
        false, 1000, $1, $2, true, '{1}', '{1}', $2, $2, '{1}', '{1}', $1, $3, $4, 'bank.Deposited', '{"amount":1}', '{}',
        '{1}', $5, $6
    )
"""
READ: Final = 'SELECT * FROM "eventcore".read_streams($1, $2, $3, $4, $5, $6)'
FOLLOW: Final = 'SELECT * FROM "eventcore".follow_events($1, $2, $3, $4, $5)'
KEY: Final = StateKey("Account", 1)


@pytest.fixture
def old_database(server: Server) -> str:
    """A database with a store of version 2."""
    name = server.new_database()
    server.sql(DUMP.read_text("utf-8"), name)
    return name


async def append(old: asyncpg.Connection, stream: str, version: int, known: tuple[int, str] = (0, "")) -> Any:
    return await old.fetchrow(
        APPEND, stream, f"{{{version}}}", f"{{{version + 1}}}", f"{stream}-{version + 1}".ljust(32, "0"), *known
    )


async def test_a_store_of_version_2_migrates_with_all_its_data(server: Server, old_database: str) -> None:
    url = server.url(old_database)
    error = await refusal(url, migrate=False)
    assert isinstance(error, IncompatibleStore)
    assert f"has version 2, this eventcore needs version {SCHEMA_VERSION}" in str(error)
    async with open_store(url, exporters=[]) as store:
        events = [event async for event in store.read_all()]
        assert [event.data for event in events][:3] == [Deposited(amount=amount) for amount in (10, 20, 30)]
        assert events[0].metadata.headers == {"name": "Ada"}
        [projection] = await store.projections()
        assert (projection.name, projection.checkpoint.position) == ("balances", 5)
        assert (await store.execute(Transfer(source=account(1), target=account(2), amount=15))).position == 7
        trace = await store.redact(events[0].event_id, data=Deposited(amount=0), reason="asked by the customer")
        assert trace.number == 2, "the redactions of version 2 count"


async def test_processes_of_version_2_go_on_while_and_after_a_store_migrates(server: Server, old_database: str) -> None:
    url = server.url(old_database)
    old = await asyncpg.connect(url)
    migrated = asyncio.Event()
    appended = 0

    async def go_on() -> None:
        nonlocal appended
        while not migrated.is_set():
            assert (await append(old, "account-9", appended))["verdicts"] is None
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
                assert result.events[0].version == appended + 1
                assert [event.position async for event in store.read_all()] == list(range(1, appended + 7))
        assert (await append(old, "account-9", appended))["verdicts"] == [-1], "it sees what the new version has appended"
        head, *rows = await old.fetch(READ, ["account-9"], [appended], 2**62, 500, 0, "")
        assert (head[0], [row["version"] for row in rows]) == (appended + 6, [appended + 1])
        _, *rows = await old.fetch(FOLLOW, 0, 500, 500, None, None)
        assert [row["position"] for row in rows] == list(range(1, appended + 7))
    finally:
        await old.close()


async def test_a_redaction_of_version_2_is_noticed_by_new_processes(
    server: Server, old_database: str, open_backend: OpenBackend
) -> None:
    url = server.url(old_database)
    backend = await open_backend(url)
    stream = StreamId("account-3")
    page = await backend.log.read_streams({stream: 0})
    state = Snapshot(KEY, 1, page.rows[stream][0].event_id, page.redactions, b"30")
    await backend.log.save_snapshots({stream: state})
    old = await asyncpg.connect(url)
    try:
        async with old.transaction():
            await old.execute("""SELECT eventcore.redact_event(3, '{"amount": 1}', 'asked by the customer')""")
            async with asyncio.timeout(10):
                await backend.log.save_snapshots({stream: state})
                assert await backend.log.append([request({"other": 0}, "other")]) == [6], "an open redaction stops no append"
        assert await old.fetchval("SELECT count(*) FROM eventcore.snapshots") == 0
    finally:
        await old.close()
    with pytest.raises(EventsRedacted):
        await backend.log.append([request({"account-3": 2}, "account-3")])
    page = await backend.log.read_streams({stream: 0}, snapshots={stream: KEY})
    assert (dict(page.snapshots), page.redactions, page.rows[stream][0].data) == ({}, 2, '{"amount": 1}')


async def test_redactions_are_numbered_in_the_order_of_their_commits(server: Server, old_database: str) -> None:
    url = server.url(old_database)
    backend = backend_from_url(url)
    await backend.open()
    first, second = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        transaction = first.transaction()
        await transaction.start()
        await first.execute("""SELECT eventcore.redact_event(1, '{"amount": 1}', 'first')""")
        waiting = asyncio.create_task(second.execute("""SELECT eventcore.redact_event(3, '{"amount": 1}', 'second')"""))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done(), "a later redaction with a smaller number could be missed"
        await transaction.commit()
        await asyncio.wait_for(waiting, 10)
        assert [row[0] for row in await first.fetch("SELECT reason FROM eventcore.redactions ORDER BY redaction")] == [
            "asked by the customer",
            "first",
            "second",
        ]
    finally:
        await first.close()
        await second.close()
        await backend.close(5)


async def test_who_could_append_before_the_migration_can_afterwards(
    server: Server, old_database: str, open_backend: OpenBackend
) -> None:
    writer, guest = f"{old_database}_writer", f"{old_database}_guest"
    server.sql(
        f"CREATE ROLE {writer} LOGIN PASSWORD 'writer'; CREATE ROLE {guest} LOGIN PASSWORD 'guest'; "
        f"GRANT USAGE ON SCHEMA eventcore TO {writer}, {guest}; "
        f"GRANT SELECT ON eventcore.events, eventcore.schema_version TO {writer}, {guest}; "
        f"GRANT INSERT ON eventcore.events TO {writer}",
        old_database,
    )
    url = server.url(old_database)
    await open_backend(url)
    backend = await open_backend(signed_in(url, writer, "writer"))
    assert await backend.log.append([request({"other": 0}, "other")]) == [6]
    page = await backend.log.read_streams({StreamId("other"): 0}, snapshots={StreamId("other"): KEY})
    row = page.rows[StreamId("other")][0]
    await backend.log.save_snapshots({StreamId("other"): Snapshot(KEY, 1, row.event_id, page.redactions, b"1")})
    reading = await open_backend(signed_in(url, guest, "guest"))
    page = await reading.log.read_streams({StreamId("other"): 0}, snapshots={StreamId("other"): KEY})
    assert page.snapshots.keys() == {"other"}
    with pytest.raises(AccessDenied):
        await reading.log.redact(row.event_id, b"{}", "why")


async def test_a_column_that_an_operator_has_added_changes_nothing(
    server: Server, old_database: str, open_backend: OpenBackend
) -> None:
    backend = await open_backend(server.url(old_database))
    assert await backend.log.append([request({"other": 0}, "other")]) == [6]
    server.sql("ALTER TABLE eventcore.events ADD COLUMN tenant text DEFAULT 'x'", old_database)
    for opened in (backend, await open_backend(server.url(old_database))):
        rows = await everything(opened)
        version = len(rows) - 5
        assert await opened.log.append([request({"other": version}, "other")]) == [len(rows) + 1]
        page = await opened.log.read_streams({StreamId("other"): 0}, snapshots={StreamId("other"): KEY})
        assert [row.version for row in page.rows[StreamId("other")]] == list(range(1, version + 2))
        followed = await opened.log.follow(START, 100, EventFilter(event_types=("bank.Deposited",)))
        assert [row.event_type for row in followed.rows] == ["bank.Deposited"] * (len(rows))
        assert (await opened.log.follow(START, 100, EventFilter())).end.position == len(rows) + 1
        assert await opened.log.redact(rows[0].event_id, b'{"amount":1}', "why") is not None
