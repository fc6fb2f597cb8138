"""The rules that an SQLite file enforces itself: whoever opens it, an event is changed by a redaction only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eventcore import open_store
from tests.store.bank import Deposit, Deposited, account

REDACT = "INSERT INTO redactions (position, reason, redacted_at_ns, new_data) VALUES (1, 'why', 1, '{\"amount\":0}')"
CHANGED = """
    SELECT position, stream_id, version, event_id, event_type, '{"amount":0}', metadata, recorded_at_ns FROM events
"""


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "bank.db"
    async with open_store(f"sqlite:///{path}", exporters=[]) as store:
        for amount in (10, 20):
            await store.execute(Deposit(account=account(1), amount=amount))
    return path


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in sql.split(";")[:-1]:
            database.execute(statement)
        return database.execute(sql.rsplit(";", maxsplit=1)[-1]).fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET data = '{}'",
        "UPDATE events SET metadata = '{}' WHERE position = 1",
        "UPDATE events SET version = 7 WHERE position = 2",
        f"{REDACT};UPDATE events SET data = '{{\"amount\":0}}'",
        f"{REDACT};UPDATE redactions SET reason = 'another'",
        f"{REDACT};UPDATE redactions SET new_data = '{{}}'",
        f"{REDACT};DELETE FROM redactions",
        "INSERT INTO redactions (position, reason, redacted_at_ns) VALUES (1, 'why', 1)",
        "INSERT INTO redactions (position, reason, redacted_at_ns, new_data) VALUES (9, 'why', 1, '{}')",
        "INSERT INTO redactions (position, reason, redacted_at_ns, new_data) VALUES (1, '', 1, '{}')",
        "DELETE FROM events",
        f"REPLACE INTO events {CHANGED} WHERE position = 1",
        f"REPLACE INTO events {CHANGED} WHERE position = 2",
        f"INSERT OR REPLACE INTO events {CHANGED.replace('position', 'position + 2', 1)} WHERE position = 1",
        f"INSERT OR REPLACE INTO events {CHANGED.replace('position', 'NULL', 1)} WHERE position = 1",
        f"INSERT INTO events {CHANGED} WHERE position = 1 ON CONFLICT DO UPDATE SET data = excluded.data",
    ],
)
async def test_an_event_is_never_changed_without_a_trace(path: Path, sql: str) -> None:
    *before, last = sql.split(";")
    for statement in before:
        ask(path, statement)
    events, traces = ask(path, "SELECT * FROM events"), ask(path, "SELECT * FROM redactions")
    with pytest.raises(sqlite3.IntegrityError, match=r"what has happened stays|a redaction needs|never deleted|CHECK"):
        ask(path, last)
    assert (ask(path, "SELECT * FROM events"), ask(path, "SELECT * FROM redactions")) == (events, traces)


async def test_an_operator_can_redact_with_sql(path: Path) -> None:
    ask(path, REDACT)
    assert ask(path, "SELECT redaction, position, reason, new_data FROM redactions") == [(1, 1, "why", None)]
    async with open_store(f"sqlite:///{path}", exporters=[]) as store:
        assert [event.data async for event in store.read_all()] == [Deposited(amount=0), Deposited(amount=20)]


async def test_an_event_that_was_redacted_can_be_redacted_again(path: Path) -> None:
    async with open_store(f"sqlite:///{path}", exporters=[]) as store:
        [first, _] = [event async for event in store.read_all()]
        for amount in (0, 1):
            await store.redact(first.event_id, data=Deposited(amount=amount), reason="why")
        assert [event.data async for event in store.read_all()] == [Deposited(amount=1), Deposited(amount=20)]
    assert ask(path, "SELECT redaction, position FROM redactions") == [(1, 1), (2, 1)]


async def test_a_file_of_an_earlier_eventcore_refuses_replace_once_it_was_opened(path: Path) -> None:
    replace = f"REPLACE INTO events {CHANGED} WHERE position = 1"
    ask(path, "DROP TRIGGER events_are_not_replaced")
    ask(path, replace)
    async with open_store(f"sqlite:///{path}", exporters=[]) as store:
        with pytest.raises(sqlite3.IntegrityError, match="what has happened stays"):
            ask(path, replace)
        assert (await store.execute(Deposit(account=account(1), amount=1))).position == 3
