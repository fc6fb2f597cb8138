"""Reading: pages and windows of one snapshot, patterns with their true meaning, readers that follow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventcore import StreamId, open_store
from eventcore.errors import CorruptEvent, HistoryDiverged, InvalidPattern
from eventcore.events import StreamPattern
from eventcore.stores import START, Backend, Checkpoint, EventFilter, Snapshot, StateKey
from eventcore.stores.postgres.arguments import regular_expression
from eventcore.stores.postgres.connections import Pool
from eventcore.stores.postgres.driver import Connection
from eventcore.stores.sampling import SupportsSampling
from tests.postgres.backends import OpenBackend, Server, everything, new_event, request
from tests.store.bank import account


def wanted(pattern: str) -> EventFilter:
    return EventFilter(StreamPattern.parse(pattern))


async def fill(backend: Backend, *streams: str) -> None:
    await backend.log.append([request(dict.fromkeys(streams, 0), *streams)])


async def test_several_streams_are_read_behind_their_versions_and_up_to_a_position(backend: Backend) -> None:
    await fill(backend, "a", "b", "a", "c", "a")
    page = await backend.log.read_streams({StreamId("a"): 1, StreamId("b"): 0, StreamId("none"): 0})
    assert {stream: [row.version for row in rows] for stream, rows in page.rows.items()} == {"a": [2, 3], "b": [1], "none": []}
    assert page.head == 5
    page = await backend.log.read_streams({StreamId("a"): 0}, up_to=3)
    assert [row.position for row in page.rows[StreamId("a")]] == [1, 3]


async def test_the_states_of_several_streams_and_the_rows_behind_them_come_in_one_statement(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(backend, "a", "b", "c", "a", "b", "a")
    a, b, c = map(StreamId, "abc")
    key = StateKey("Total", 1)
    stored = {}
    for stream, version in ((a, 2), (b, 1)):
        row = (await backend.log.read_streams({stream: 0})).rows[stream][version - 1]
        stored[stream] = Snapshot(key, version, row.event_id, 0, b'{"total":1}')
    await backend.log.save_snapshots(stored)
    statements: list[str] = []
    rows = Pool.rows

    async def noted(self: Pool, connection: Connection, sql: str, *arguments: Any) -> Sequence[Any]:
        statements.append(sql)
        return await rows(self, connection, sql, *arguments)

    monkeypatch.setattr(Pool, "rows", noted)
    page = await backend.log.read_streams(dict.fromkeys((a, b, c), 0), snapshots=dict.fromkeys((a, b, c), key))
    assert page.snapshots == stored
    assert {stream: [row.version for row in rows] for stream, rows in page.rows.items()} == {a: [3], b: [2], c: [1]}
    assert len(statements) == 1
    assert "load_streams" in statements[0]


async def test_an_empty_store_has_no_head(backend: Backend) -> None:
    assert await backend.log.head_position() == 0
    assert (await backend.log.read_streams({StreamId("a"): 0})).head == 0
    assert await backend.log.follow(START, 10, EventFilter()) == await backend.log.follow(START, 10, EventFilter())
    page = await backend.log.follow(START, 10, EventFilter())
    assert (page.rows, page.end, page.head) == ([], START, 0)


async def test_a_page_holds_at_most_500_rows_of_a_stream(backend: Backend) -> None:
    await fill(backend, *["long"] * 1200)
    page = await backend.log.read_streams({StreamId("long"): 0})
    assert (len(page.rows[StreamId("long")]), page.more) == (500, frozenset({StreamId("long")}))
    many = {StreamId(f"s-{number}"): 0 for number in range(63)} | {StreamId("long"): 0}
    page = await backend.log.read_streams(many)
    assert (len(page.rows[StreamId("long")]), page.more) == (64, frozenset({StreamId("long")}))


async def test_what_was_stored_comes_back_byte_for_byte(backend: Backend) -> None:
    stream = "Kørsel-π-🚀"
    new = new_event(stream, 1)
    await backend.log.append([request({stream: 0}, events=[new])])
    [row] = await everything(backend)
    event = new.recorded
    assert (row.stream_id, row.version, row.event_id, row.event_type) == (stream, 1, event.event_id, event.event_type)
    assert (row.data, row.metadata, row.recorded_at_ns) == (new.data.decode(), new.metadata.decode(), event.recorded_at_ns)


IDS = [
    "flight-7-EWR",
    "flight-77",
    "flight_7",
    "Flight-7",
    "fl.ght-7",
    "flight-",
    "a\\b",
    "a^b$",
    "a{2}",
    "(a)",
    "é-1",
    "日本-2",
    "a+|b",
]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("flight-*", ["flight-7-EWR", "flight-77", "flight-"]),
        ("flight-?", []),
        ("flight-??", ["flight-77"]),
        ("flight-[0-9]*", ["flight-7-EWR", "flight-77"]),
        ("flight[!-]*", []),
        ("fl.ght-7", ["fl.ght-7"]),
        ("[!a-z]*", ["Flight-7", "(a)", "é-1", "日本-2"]),
        ("??-[0-9]", ["日本-2"]),
        ("a\\b", ["a\\b"]),
        ("a[\\^$]b*", []),
        ("a^b$", ["a^b$"]),
        ("a{2}", ["a{2}"]),
        ("(a)", ["(a)"]),
        ("a+|b", ["a+|b"]),
        ("*", IDS),
    ],
)
async def test_patterns_mean_what_they_say(backend: Backend, pattern: str, matching: list[str]) -> None:
    await fill(backend, *IDS)
    try:
        found = [row.stream_id for row in await backend.log.scan(0, 100, 100, wanted(pattern))]
    except InvalidPattern:
        found = []
    assert found == matching


CHARACTERS = st.sampled_from("abzAZ019-_.:\\^$+(){}|/#&~é日🚀")
PIECES = st.one_of(
    CHARACTERS,
    st.sampled_from(["*", "?", "[0-9]", "[!0-9]", "[a-cx]", "[!a-z]", "[é日]", "[A-\\\\]", "[.-:]", "[:alpha:]"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, min_size=1, max_size=6), ids=st.lists(st.text(CHARACTERS, min_size=1, max_size=6), max_size=8))
def test_postgresql_reads_every_pattern_as_python_does(server: Server, pieces: list[str], ids: list[str]) -> None:
    try:
        pattern = StreamPattern.parse("".join(pieces))
    except InvalidPattern:
        return
    literals = ", ".join("'" + text.replace("'", "''") + "'" for text in ids) or "''"
    expression = regular_expression(pattern).replace("'", "''")
    answer = server.sql(f"SELECT text ~ '{expression}' FROM unnest(ARRAY[{literals}]) WITH ORDINALITY AS t(text, n) ORDER BY n")
    assert [line == "t" for line in answer.splitlines()] == [pattern.regex.fullmatch(text) is not None for text in ids or [""]]


async def test_a_filter_looks_before_the_limit_counts(backend: Backend) -> None:
    await fill(backend, *["other"] * 50, "a", "other", "a", "a")
    rows = await backend.log.scan(0, 54, 2, wanted("a"))
    assert [row.position for row in rows] == [51, 53]
    assert await backend.log.scan(0, 54, 2, EventFilter(event_types=("unknown",))) == []
    assert len(await backend.log.scan(0, 54, 2, EventFilter(event_types=("unknown", "bank.Deposited")))) == 2


async def test_a_reader_that_follows_sees_each_event_once_and_knows_how_far_it_has_looked(backend: Backend) -> None:
    await fill(backend, "a", "b", "a", "b", "b")
    page = await backend.log.follow(START, 2, EventFilter())
    assert ([row.position for row in page.rows], page.end.position, page.head) == ([1, 2], 2, 5)
    page = await backend.log.follow(page.end, 10, EventFilter())
    assert ([row.position for row in page.rows], page.end.position) == ([3, 4, 5], 5)
    rest = await backend.log.follow(page.end, 10, EventFilter())
    assert (rest.rows, rest.end, rest.head) == ([], page.end, 5)
    page = await backend.log.follow(START, 10, wanted("a"))
    rows = await everything(backend)
    assert [row.position for row in page.rows] == [1, 3]
    assert page.end == Checkpoint(5, rows[4].event_id)
    page = await backend.log.follow(START, 1, wanted("a"))
    assert page.end == Checkpoint(1, rows[0].event_id)


async def test_a_reader_whose_event_is_gone_stops(backend: Backend) -> None:
    await fill(backend, "a", "b")
    with pytest.raises(HistoryDiverged, match="position 2, is no longer there"):
        await backend.log.follow(Checkpoint(2, "f" * 32), 10, EventFilter())
    with pytest.raises(HistoryDiverged, match="now: no event"):
        await backend.log.follow(Checkpoint(3, "f" * 32), 10, wanted("b"))


async def test_a_reader_that_waits_is_woken_by_another_process(backend: Backend, url: str, open_backend: OpenBackend) -> None:
    other = await open_backend(url)
    assert await backend.log.wait_beyond(0, 0.2) == 0
    waiting = asyncio.create_task(backend.log.wait_beyond(0, 20))
    begun = monotonic()
    await fill(other, "a", "a")
    assert await waiting == 2
    assert monotonic() - begun < 5
    assert await backend.log.wait_beyond(1, 20) == 2


async def test_a_reader_that_cannot_listen_finds_new_events_by_asking(
    backend: Backend, url: str, open_backend: OpenBackend
) -> None:
    deaf = await open_backend(f"{url}?listen=off")
    waiting = asyncio.create_task(deaf.log.wait_beyond(0, 20))
    await fill(backend, "a")
    assert await waiting == 1


async def test_a_reader_finds_what_no_notification_told(server: Server, database: str, backend: Backend) -> None:
    assert await backend.log.wait_beyond(0, 0.2) == 0
    waiting = asyncio.create_task(backend.log.wait_beyond(0, 20))
    await asyncio.to_thread(
        server.sql,
        "INSERT INTO eventcore.events VALUES (1, 'a', 1, 'id', 'bank.Deposited', '{\"amount\":1}', '{}', 1)",
        database,
    )
    assert await waiting == 1


async def test_the_backend_tells_of_itself(backend: Backend) -> None:
    assert isinstance(backend, SupportsSampling)
    empty = await backend.sample()
    assert (empty.head, empty.last_append_ns) == (0, None)
    waits: list[tuple[str, str]] = []
    backend.counters.on_wait = lambda wait, lock, seconds: waits.append((wait, lock))
    await fill(backend, "a", "b")
    stats = await backend.sample()
    assert (stats.head, stats.last_append_ns) == (2, 1_700_000_000_000_000_000)
    assert stats.size is not None
    assert stats.size > 8192
    await everything(backend)
    counters = backend.counters
    assert counters.bytes_read == counters.bytes_written == 2 * len('{"amount":1}{}')
    assert (counters.connections_idle, counters.connections_used) == (3, 0)
    assert waits[:2] == [("pool", ""), ("lock", "append")]


async def test_a_row_that_was_damaged_fails_only_those_who_read_it(url: str, backend: Backend) -> None:
    await fill(backend, "account-1", "account-2")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            r"ALTER TABLE eventcore.events DISABLE TRIGGER ALL; UPDATE eventcore.events SET data = '\xff' WHERE position = 1; "
            "ALTER TABLE eventcore.events ENABLE TRIGGER ALL"
        )
    finally:
        await connection.close()
    async with open_store(url, exporters=[]) as store:
        assert len([event async for event in store.read(account(2))]) == 1
        with pytest.raises(CorruptEvent):
            [event async for event in store.read(account(1))]
