"""Stores that version 2 of the schema has made: they migrate with all their data, while processes of that version go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from eventcore import open_store
from eventcore.errors import IncompatibleStore
from eventcore.stores import SCHEMA_VERSION, SqliteBackend
from tests.store.bank import Deposit, Deposited, Transfer, account

# Made by eventcore of version 2, by three deposits, a transfer and a projection.
DUMP: Final = Path(__file__).parent / "data" / "version_2.sql"
# What a process of version 2 sends to append, to read and to keep a lease.
APPEND: Final = """
    INSERT INTO events
    SELECT head.position + 1 + new.key,
        json_extract(new.value, '$[0]'), json_extract(new.value, '$[1]'), json_extract(new.value, '$[2]'),
        json_extract(new.value, '$[3]'), json_extract(new.value, '$[4]'), json_extract(new.value, '$[5]'),
        json_extract(new.value, '$[6]')
    FROM (SELECT coalesce(max(position), 0) AS position FROM events) AS head, json_each(:new) AS new
    WHERE NOT EXISTS (
        SELECT 1 FROM json_each(:base) AS wanted
        WHERE coalesce((SELECT max(version) FROM events WHERE stream_id = wanted.key), 0) <> wanted.value
    )
"""
READ: Final = """
    SELECT '{"head":' || (SELECT coalesce(max(position), 0) FROM events) || ',"rows":[' || coalesce(group_concat((
        SELECT '[' || coalesce(group_concat(found), '') || ']' FROM (
            SELECT json_array(position, version, CAST(data AS TEXT)) AS found FROM events
            WHERE stream_id = asked.key AND version > asked.value AND position <= :up_to
            ORDER BY version LIMIT :limit
        )
    )), '') || ']}' FROM json_each(:after) AS asked
"""
ROW: Final = '["account-9",%d,"%032x","bank.Deposited","{\\"amount\\":%d}","{}",1]'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bank.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(DUMP.read_text("utf-8"))
        database.execute("PRAGMA journal_mode = WAL")
    return path


async def test_a_file_of_version_2_migrates_with_all_its_data(path: Path) -> None:
    async with open_store(f"sqlite:///{path}", exporters=[]) as store:
        events = [event async for event in store.read_all()]
        assert [event.data for event in events][:3] == [Deposited(amount=amount) for amount in (10, 20, 30)]
        assert events[0].metadata.headers == {"name": "Ada"}
        [projection] = await store.projections()
        assert (projection.name, projection.checkpoint.position) == ("balances", 5)
        assert (await store.execute(Transfer(source=account(1), target=account(2), amount=15))).position == 7
        await store.redact(events[1].event_id, data=Deposited(amount=0), reason="asked by the customer")
        assert [event.data.amount async for event in store.read(account(2)) if isinstance(event.data, Deposited)] == [0, 15]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


async def test_a_process_of_version_2_goes_on_beside_a_migrated_store(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA synchronous = full")
        assert old.execute(APPEND, {"new": f"[{ROW % (1, 1, 5)}]", "base": '{"account-9":0}'}).rowcount == 1
        async with open_store(f"sqlite:///{path}", exporters=[]) as store:
            for number in range(5):
                version = number * 2 + 2
                assert (await store.execute(Deposit(account=account(9), amount=1))).events[0].version == version
                stale, row = f'{{"account-9":{version - 1}}}', f"[{ROW % (version + 1, version + 1, 1)}]"
                assert old.execute(APPEND, {"new": row, "base": stale}).rowcount == 0
                assert old.execute(APPEND, {"new": row, "base": f'{{"account-9":{version}}}'}).rowcount == 1
            positions = [event.position async for event in store.read_all()]
            assert positions == list(range(1, 17))
            page = old.execute(READ, {"after": '{"account-9":9}', "up_to": 99, "limit": 9}).fetchone()[0]
            assert page == '{"head":16,"rows":[[[15,10,"{\\"amount\\":1}"],[16,11,"{\\"amount\\":1}"]]]}'
            with old:
                old.execute("UPDATE projections SET position = 16, token = token + 1 WHERE name = 'balances'")


async def test_a_process_of_version_2_notices_no_redaction_but_does_not_spoil_it(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        assert old.execute(READ, {"after": '{"account-2":0}', "up_to": 99, "limit": 9}).fetchone()
        async with open_store(f"sqlite:///{path}", exporters=[]) as store:
            second = await anext(store.read(account(2)))
            await store.redact(second.event_id, data=Deposited(amount=0), reason="asked by the customer")
        assert old.execute(APPEND, {"new": f"[{ROW % (1, 1, 5)}]", "base": '{"account-9":0}'}).rowcount == 1
        with pytest.raises(sqlite3.IntegrityError, match="what has happened stays"):
            old.execute("UPDATE events SET data = '{\"amount\":20}' WHERE position = 2")


async def test_a_file_of_a_later_version_says_which_process_to_upgrade(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    backend = SqliteBackend(str(path))
    with pytest.raises(IncompatibleStore, match=f"has schema version {SCHEMA_VERSION + 1}, .* or upgrade"):
        await backend.open()


async def test_a_column_that_an_operator_has_added_changes_nothing(path: Path) -> None:
    async with open_store(f"sqlite:///{path}", exporters=[]) as store:
        await store.execute(Deposit(account=account(1)))
        with closing(sqlite3.connect(path)) as database:
            database.execute("ALTER TABLE events ADD COLUMN tenant TEXT DEFAULT 'x'")
            database.commit()
        await store.execute(Deposit(account=account(1)))
        [first, *_] = [event async for event in store.read_all()]
        await store.redact(first.event_id, data=Deposited(amount=0), reason="why")
    async with open_store(f"sqlite:///{path}", exporters=[]) as store:
        assert (await store.execute(Deposit(account=account(1)))).position == 8
        assert [event.position async for event in store.read(account(1))] == [1, 5, 6, 7, 8]
        assert len([event async for event in store.read_all(pattern="account-*")]) == 8
