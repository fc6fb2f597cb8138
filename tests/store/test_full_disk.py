"""A full disk under an SQLite file: stored states and redactions fail as a whole, and go on when there is room again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import pytest

from eventcore import Command, Event, EventStore, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.errors import StoreUnavailable
from eventcore.events import StreamState
from eventcore.stores import SqliteBackend
from eventcore.stores.urls import backend_from_url
from tests.store.bank import Deposit, account
from tests.store.conftest import Measured

A, B = account("a"), account("b")


class Renamed(Event):
    event_type = "full.Renamed"
    name: str


class Name(StreamState, version=1, snapshot_every=2):
    """A state of many pages, whose events are small."""

    name: str = ""
    padding: str = ""

    def apply(self, event: RecordedEvent) -> None:
        self.name = event.data.name if isinstance(event.data, Renamed) else self.name
        self.padding = self.name * 50_000


class Rename(Command[Mapping[StreamId, Name]]):
    account: Annotated[StreamId, Name]
    name: str

    def handle(self, state: Mapping[StreamId, Name]) -> Iterator[tuple[StreamId, Event]]:
        assert state[self.account].padding == state[self.account].name * 50_000
        yield self.account, Renamed(name=self.name)


class Disk:
    """Bounds the pages of the file, as a full disk does."""

    def __init__(self, backend: SqliteBackend) -> None:
        self._backend = backend

    async def fill(self) -> None:
        await self._pragma("max_page_count = 1")  # SQLite takes the number of pages that the file has

    async def make_room(self) -> None:
        await self._pragma("max_page_count = 100000")

    async def _pragma(self, pragma: str) -> None:
        await self._backend.log._writer.run(lambda connection: connection.execute(f"PRAGMA {pragma}").fetchone())


@pytest.fixture
def backend(sqlite_url: str) -> SqliteBackend:
    backend = backend_from_url(sqlite_url)
    assert isinstance(backend, SqliteBackend)
    return backend


async def until(measured: Measured, result: str, count: int) -> None:
    async with asyncio.timeout(10):
        while (measured("snapshots.writes", result=result) or 0) < count:
            await asyncio.sleep(0.01)


def ask(sqlite_url: str, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(Path(sqlite_url.removeprefix("sqlite:///")))) as database:
        return database.execute(sql).fetchall()


async def names(store: EventStore) -> list[str]:
    return [event.data.name async for event in store.read(A) if isinstance(event.data, Renamed)]


async def test_a_state_that_cannot_be_stored_disturbs_no_command_and_is_stored_later(
    backend: SqliteBackend, sqlite_url: str, telemetry: Telemetry, measured: Measured, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(backend, telemetry=telemetry) as store:
        disk = Disk(backend)
        await store.execute(Rename(account=A, name="n"))
        await disk.fill()
        for name in ("o", "p", "q"):
            # An event of some bytes still fits into the last page.
            await store.execute(Rename(account=A, name=name))
        await until(measured, "error", 1)
        assert "states of streams were not stored: " in caplog.text
        assert "the disk is full: free some space" in caplog.text
        assert ask(sqlite_url, "SELECT * FROM snapshots") == []
        await disk.make_room()
        for name in ("r", "s", "t"):
            await store.execute(Rename(account=A, name=name))
        await until(measured, "hit", 1)
        assert await names(store) == ["n", "o", "p", "q", "r", "s", "t"]
    async with open_store(sqlite_url, telemetry=telemetry, name="again") as store:
        await store.execute(Rename(account=A, name="u"))
    assert ask(sqlite_url, "PRAGMA integrity_check") == [("ok",)]


async def test_a_redaction_on_a_full_disk_is_refused_as_a_whole(
    backend: SqliteBackend, sqlite_url: str, telemetry: Telemetry, measured: Measured
) -> None:
    async with open_store(backend, telemetry=telemetry) as store:
        disk = Disk(backend)
        for name in ("n", "o", "p"):
            await store.execute(Rename(account=A, name=name))
        await until(measured, "hit", 1)
        [first, *_] = [event async for event in store.read(A)]
        before = ask(sqlite_url, "SELECT * FROM events"), ask(sqlite_url, "SELECT * FROM snapshots")
        await disk.fill()
        # Two of them: the first must not leave a transaction open.
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="the disk is full: free some space"):
                await store.redact(first.event_id, data=Renamed(name="x" * 900_000), reason="why")
        assert (ask(sqlite_url, "SELECT * FROM events"), ask(sqlite_url, "SELECT * FROM snapshots")) == before
        assert ask(sqlite_url, "SELECT * FROM redactions") == []
        await store.execute(Rename(account=A, name="q"))
        await disk.make_room()
        await store.redact(first.event_id, data=Renamed(name="x" * 900), reason="why")
        assert await names(store) == ["x" * 900, "o", "p", "q"]
        assert ask(sqlite_url, "SELECT position, reason FROM redactions") == [(1, "why")]
        assert (await store.execute(Deposit(account=B))).position == 5
    assert ask(sqlite_url, "PRAGMA integrity_check") == [("ok",)]
