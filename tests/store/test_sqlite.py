"""What is SQLite's own: the file, its durability, what can be wrong with it, and other processes that use it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from eventcore import Command, Event, RetryPolicy, StreamId, Telemetry, open_store
from eventcore.errors import ConcurrencyConflict, CorruptEvent, IncompatibleStore, StoreUnavailable, UnknownEventType
from eventcore.stores import SCHEMA_VERSION, SqliteBackend, backend_from_url
from tests.store.bank import Deposit, Deposited, Transfer, account
from tests.store.conftest import Measured


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.db"


def change(path: Path, sql: str, *values: object) -> None:
    """Change the file by hand: also events, which a trigger protects."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TRIGGER IF EXISTS events_are_only_redacted")
        database.execute(sql, values)
        database.commit()


async def test_events_are_there_when_the_store_is_opened_again(sqlite_url: str) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        before = (await store.execute(Deposit(account=account("a"), amount=3), headers={"tenant": "x"})).events
    async with open_store(sqlite_url, exporters=[]) as store:
        assert tuple([event async for event in store.read_all()]) == before
        assert (await store.execute(Transfer(source=account("a"), target=account("b"), amount=3))).position == 3


async def test_a_relative_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("sqlite:///here.db", exporters=[]) as store:
        await store.execute(Deposit(account=account("a")))
    assert (tmp_path / "here.db").exists()


@pytest.mark.parametrize(("setting", "level"), [("", 2), ("?synchronous=normal", 1), ("?synchronous=extra", 3)])
async def test_commits_are_synchronous_unless_the_url_says_otherwise(sqlite_url: str, setting: str, level: int) -> None:
    backend = backend_from_url(sqlite_url + setting)
    assert isinstance(backend, SqliteBackend)
    await backend.open()
    try:
        pragmas = await backend.log._writer.run(
            lambda connection: [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
        )
        assert pragmas == [level, b"wal"]
    finally:
        await backend.close(5.0)


async def test_events_cannot_be_deleted(sqlite_url: str, path: Path) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        await store.execute(Deposit(account=account("a")))
    with pytest.raises(sqlite3.IntegrityError, match="events are never deleted"):
        change(path, "DELETE FROM events")


# What can be wrong with the file


async def test_a_file_that_is_no_database_is_refused(sqlite_url: str, path: Path) -> None:
    await asyncio.to_thread(path.write_bytes, b"no database, but long enough to be looked at" * 40)
    with pytest.raises(IncompatibleStore, match=r"bank.db is not an SQLite database; give the path of an eventcore store"):
        async with open_store(sqlite_url, exporters=[]):
            pass
    assert (await asyncio.to_thread(path.read_bytes)).startswith(b"no database")


async def test_a_database_of_something_else_is_refused_and_left_alone(sqlite_url: str, path: Path) -> None:
    change(path, "CREATE TABLE customers (name TEXT)")
    before = await asyncio.to_thread(path.read_bytes)
    with pytest.raises(IncompatibleStore, match="is a database of something else"):
        async with open_store(sqlite_url, exporters=[]):
            pass
    assert await asyncio.to_thread(path.read_bytes) == before


async def test_a_store_of_another_schema_version_is_refused(sqlite_url: str, path: Path) -> None:
    async with open_store(sqlite_url, exporters=[]):
        pass
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(IncompatibleStore, match=f"has schema version 99, this eventcore knows versions up to {SCHEMA_VERSION}"):
        async with open_store(sqlite_url, exporters=[]):
            pass


async def test_a_missing_directory_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened: check that its directory exists"):
        async with open_store(f"sqlite:///{tmp_path}/none/bank.db", exporters=[]):
            pass


async def test_a_lock_that_is_held_too_long_is_said_to_be_held(
    sqlite_url: str, path: Path, telemetry: Telemetry, measured: Measured
) -> None:
    async with open_store(f"{sqlite_url}?busy_timeout=0.05", telemetry=telemetry) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="is locked by another process; end its long transaction"):
                await store.execute(Deposit(account=account("a")))
            assert [event async for event in store.read_all()] == []
            other.execute("ROLLBACK")
        assert (await store.execute(Deposit(account=account("a")))).position == 1
    assert measured("store.errors", operation="append", error_type="StoreUnavailable") == 1
    assert measured("store.operation.duration", operation="append", outcome="error") == 1


async def test_a_full_disk_fails_the_command_and_nothing_else(sqlite_url: str, telemetry: Telemetry) -> None:
    backend = backend_from_url(sqlite_url)
    assert isinstance(backend, SqliteBackend)
    async with open_store(backend, telemetry=telemetry) as store:
        await store.execute(Deposit(account=account("a")))
        pages = await backend.log._writer.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        await backend.log._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        results = await asyncio.gather(
            *(store.execute(Deposit(account=account(number))) for number in range(500)), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        assert failures
        assert {type(failure) for failure in failures} == {StoreUnavailable}
        assert "the disk is full: free some space" in str(failures[0])
        await backend.log._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
        done = 500 - len(failures)
        assert (await store.execute(Deposit(account=account("b")))).position == done + 2


async def test_a_file_that_cannot_be_written_is_said_to_be_so(sqlite_url: str, telemetry: Telemetry) -> None:
    backend = backend_from_url(sqlite_url)
    assert isinstance(backend, SqliteBackend)
    async with open_store(backend, telemetry=telemetry) as store:
        # Permissions would not hold up every user.
        await backend.log._writer.run(lambda connection: connection.execute("PRAGMA query_only = ON").fetchone())
        with pytest.raises(StoreUnavailable, match="cannot be written: check the permissions of the file and its directory"):
            await store.execute(Deposit(account=account("a")))


# Rows that were changed by hand


@pytest.fixture
async def spoilt(sqlite_url: str, telemetry: Telemetry) -> str:
    async with open_store(sqlite_url, telemetry=telemetry) as store:
        for name in ("a", "b", "c"):
            await store.execute(Deposit(account=account(name)))
    return sqlite_url


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("{", id="no JSON"),
        pytest.param('{"amount":"1"}', id="wrong type"),
        pytest.param('"},[', id="JSON of the row broken out of"),
        pytest.param(b'{"amount":1}\xff', id="bytes that are no text"),
        pytest.param(b'{"amount\xc3":1}', id="half a character"),
        pytest.param(b"", id="an empty blob"),
        pytest.param(7, id="a number"),
    ],
)
async def test_a_corrupt_row_fails_those_only_who_read_it(spoilt: str, path: Path, data: object) -> None:
    change(path, "UPDATE events SET data = ? WHERE position = 2", data)
    async with open_store(spoilt, exporters=[]) as store:
        results = await asyncio.gather(
            *(store.execute(Deposit(account=account(name))) for name in ("a", "b", "c")), return_exceptions=True
        )
        assert isinstance(results[1], CorruptEvent)
        assert "stream 'account-b', version 1, position 2 cannot be read as bank.Deposited" in str(results[1])
        assert [result.position for result in (results[0], results[2]) if not isinstance(result, BaseException)] == [4, 5]
        reading = store.read_all()
        assert (await anext(reading)).position == 1
        with pytest.raises(CorruptEvent, match="position 2"):
            await anext(reading)
        assert [event.position async for event in store.read_all(after=2)] == [3, 4, 5]


async def test_a_blob_that_is_the_same_text_is_read_as_it(spoilt: str, path: Path) -> None:
    change(path, "UPDATE events SET data = CAST(data AS BLOB), metadata = CAST(metadata AS BLOB) WHERE position = 2")
    async with open_store(spoilt, exporters=[]) as store:
        assert [event.data async for event in store.read_all()] == [Deposited(amount=1)] * 3


async def test_corrupt_metadata_is_told(spoilt: str, path: Path) -> None:
    change(path, "UPDATE events SET metadata = '[' WHERE position = 2")
    async with open_store(spoilt, exporters=[]) as store:
        with pytest.raises(CorruptEvent, match="stream 'account-b', version 1, position 2: its metadata cannot be read"):
            await store.execute(Deposit(account=account("b")))


async def test_a_row_whose_numbers_are_none_is_told(spoilt: str, path: Path) -> None:
    change(path, "UPDATE events SET version = 'one' WHERE position = 2")
    async with open_store(spoilt, exporters=[]) as store:
        with pytest.raises(CorruptEvent, match="holds a row that cannot be read"):
            [event async for event in store.read_all()]


async def test_an_unknown_type_fails_those_only_who_read_it(
    spoilt: str, path: Path, telemetry: Telemetry, measured: Measured
) -> None:
    change(path, "UPDATE events SET event_type = 'bank.Renamed' WHERE position = 2")
    async with open_store(spoilt, telemetry=telemetry) as store:
        with pytest.raises(UnknownEventType, match=r"stream 'account-b', version 1, position 2: no class .* 'bank.Renamed'"):
            await store.execute(Deposit(account=account("b")))
        await store.execute(Deposit(account=account("a")))
    assert measured("codec.errors", direction="decode", event_type="bank.Renamed") == 1


# Several stores on one file


async def test_two_stores_on_one_file_never_both_win(sqlite_url: str) -> None:
    policy = RetryPolicy(attempts=200, base_delay=0.001, max_delay=0.01)
    async with open_store(sqlite_url, exporters=[]) as one, open_store(sqlite_url, exporters=[]) as other:
        calls = [store.execute(Deposit(account=account("a")), retry=policy) for _ in range(60) for store in (one, other)]
        results = await asyncio.gather(*calls)
        positions = [event.position for result in results for event in result.events]
        assert sorted(positions) == list(range(1, 121))
        assert [event.version async for event in one.read(account("a"))] == list(range(1, 121))
        assert [event async for event in one.read_all()] == [event async for event in other.read_all()]


async def test_money_is_conserved_by_two_stores_on_one_file(sqlite_url: str) -> None:
    a, b = account("a"), account("b")
    policy = RetryPolicy(attempts=200, base_delay=0.001, max_delay=0.01)
    async with open_store(sqlite_url, exporters=[]) as one, open_store(sqlite_url, exporters=[]) as other:
        await one.execute(Deposit(account=a, amount=20))
        transfers = [Transfer(source=source, target=target, amount=3) for source, target in ((a, b), (b, a)) * 20]
        await asyncio.gather(
            *(store.execute(transfer, retry=policy) for transfer in transfers for store in (one, other)), return_exceptions=True
        )
        balances = {a: 0, b: 0}
        async for event in one.read_all():
            change_ = getattr(event.data, "amount", 0)
            balances[event.stream_id] += change_ if isinstance(event.data, Deposited) else -change_
            assert balances[event.stream_id] >= 0
    assert sum(balances.values()) == 20


async def test_a_store_sees_what_another_one_wrote_though_it_knows_the_stream(sqlite_url: str) -> None:
    async with open_store(sqlite_url, exporters=[]) as one, open_store(sqlite_url, exporters=[]) as other:
        await one.execute(Deposit(account=account("a"), amount=5))
        await other.execute(Transfer(source=account("a"), target=account("b"), amount=5))
        result = await one.execute(Transfer(source=account("b"), target=account("a"), amount=5), retry=RetryPolicy(attempts=1))
        assert (result.attempts, result.position) == (1, 5)


async def test_one_attempt_against_a_busy_other_store_may_conflict_and_then_nothing_is_written(sqlite_url: str) -> None:
    once = RetryPolicy(attempts=1)
    async with open_store(sqlite_url, exporters=[]) as one, open_store(sqlite_url, exporters=[]) as other:
        conflicts = wins = 0
        while not conflicts:
            results = await asyncio.gather(
                *(store.execute(Deposit(account=account("a")), retry=once) for store in (one, other)), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    assert isinstance(result, ConcurrencyConflict)
                    conflicts += 1
                else:
                    wins += 1
        assert await one.head_position() == wins


class _Deposits(Command[None]):
    """Deposits several times, on two accounts in turns."""

    first: StreamId
    second: StreamId
    count: int

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        for number in range(self.count):
            yield (self.second if number % 2 else self.first), Deposited(amount=number)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 1023, 1024, 1025, 2049, 5000])
async def test_a_command_of_any_size_is_appended_whole_and_densely(sqlite_url: str, count: int) -> None:
    async with open_store(sqlite_url, exporters="none") as store, open_store(sqlite_url, exporters="none") as other:
        command = _Deposits(first=account("a"), second=account("b"), count=count)
        ends = []
        # The second time each store has to see first what the other one has written.
        for one in (store, other, store, other):
            events = (await one.execute(command)).events
            ends.append((events[0].position, events[-1].position, len(events)))
        assert ends == [(1 + turn * count, (turn + 1) * count, count) for turn in range(4)]
        found = [event async for event in store.read_all()]
    assert [event.position for event in found] == list(range(1, 4 * count + 1))
    assert [event.data for event in found] == [Deposited(amount=number) for number in range(count)] * 4
