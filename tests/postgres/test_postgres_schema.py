"""What the schema itself holds: nothing is deleted, nothing is changed but by redaction."""

from __future__ import annotations

import asyncpg
import pytest

from eventcore import RecordedEvent, open_store
from eventcore.stores import Backend
from tests.postgres.backends import everything, request
from tests.store.bank import Deposit, Deposited, account


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM eventcore.events",
        "DELETE FROM eventcore.events WHERE position = 1",
        "TRUNCATE eventcore.events CASCADE",
        "UPDATE eventcore.events SET data = ''",
        "UPDATE eventcore.events SET version = 7",
        "INSERT INTO eventcore.redactions (position, reason) VALUES (1, 'x'); UPDATE eventcore.events SET event_type = 'other'",
        "SELECT eventcore.redact_event(1, '{}', 'x'); DELETE FROM eventcore.redactions",
        "SELECT eventcore.redact_event(1, '{}', 'x'); UPDATE eventcore.redactions SET reason = 'y'",
    ],
)
async def test_what_has_happened_stays(url: str, backend: Backend, statement: str) -> None:
    await backend.log.append([request({"a": 0}, "a")])
    before = await everything(backend)
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(asyncpg.RestrictViolationError, match=r"stays"):
            await connection.execute(statement)
    finally:
        await connection.close()
    assert await everything(backend) == before


async def test_a_redaction_changes_what_an_event_says_and_leaves_a_trace(url: str) -> None:
    async with open_store(url, exporters=[]) as store:
        for amount in (10, 20):
            await store.execute(Deposit(account=account(1), amount=amount), headers={"name": "Ada"})
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("""SELECT eventcore.redact_event(2, '{"amount": 0}', 'asked by the customer', '{}')""")
        trace = await connection.fetchrow("SELECT position, reason, redacted_by FROM eventcore.redactions")
        readable = await connection.fetch("SELECT data ->> 'amount' AS amount FROM eventcore.readable_events ORDER BY position")
    finally:
        await connection.close()
    assert tuple(trace) == (2, "asked by the customer", "postgres")
    assert [row["amount"] for row in readable] == ["10", "0"]
    async with open_store(url, exporters=[]) as store:
        events: list[RecordedEvent] = [event async for event in store.read(account(1))]
    assert [event.data for event in events] == [Deposited(amount=10), Deposited(amount=0)]
    assert [event.metadata.headers for event in events] == [{"name": "Ada"}, {}]


async def test_a_redaction_names_its_event_and_its_reason(url: str, backend: Backend) -> None:
    await backend.log.append([request({"a": 0}, "a")])
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("SELECT eventcore.redact_event(2, '{}', 'reason')")
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("SELECT eventcore.redact_event(1, '{}', '')")
    finally:
        await connection.close()
