"""Reading: pages of one snapshot, ranges of positions, filters, and events that cannot be decoded."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from eventcore.errors import CorruptEvent, InvalidEvent, UnknownEventType
from eventcore.events import RawEvent, RecordedEvent, StreamId
from eventcore.store import EventStore
from eventcore.stores import CONFLICT, START, AppendRequest, Backend, NewEvent
from eventcore.testing.contract.accounts import Deposit, Deposited, Link, Linked, Look, account
from eventcore.testing.contract.fixtures import (
    EVERYTHING,
    ContractFixtures,
    MakeBackend,
    check_size,
    everything,
    fill,
    fill_large,
    matching,
    new_event,
    opened_store,
    positions,
    request,
)

A: Final = account("a")
B: Final = account("b")
C: Final = account("c")

# They contain the special characters of SQL patterns, shell patterns and regular expressions.
_IDS: Final = (
    *map(StreamId, ["order-1", "order-12", "order-7-a", "order_1", "order.1", "Order-2", "order-", "order"]),
    *map(StreamId, ["a\\b", "a^b$", "a{2}", "(a)", "a+|b", "%a", "é-1", "日本-2", "🚀-3", "ä"]),
)
_PATTERNS: Final = {
    "*": set(_IDS),
    "order-*": {"order-1", "order-12", "order-7-a", "order-"},
    "order*": {"order-1", "order-12", "order-7-a", "order_1", "order.1", "order-", "order"},
    "order": {"order"},
    "order-1": {"order-1"},
    "order_1": {"order_1"},
    "order.1": {"order.1"},
    "order?1": {"order-1", "order_1", "order.1"},
    "order-?": {"order-1"},
    "order-??": {"order-12"},
    "order-[0-9]": {"order-1"},
    "order-[0-9]*": {"order-1", "order-12", "order-7-a"},
    "order-[!1]*": {"order-7-a"},
    "[Oo]rder-[0-9]": {"order-1", "Order-2"},
    "[!a-z]*": {"Order-2", "(a)", "%a", "é-1", "日本-2", "🚀-3", "ä"},
    "??-[0-9]": {"日本-2"},
    "?-[0-9]": {"é-1", "🚀-3"},
    "[é🚀]*": {"é-1", "🚀-3"},
    "?": {"ä"},
    "a\\b": {"a\\b"},
    "a^b$": {"a^b$"},
    "a{2}": {"a{2}"},
    "(a)": {"(a)"},
    "a+|b": {"a+|b"},
    "%a": {"%a"},
    "*-[a-z]": {"order-7-a"},
    "*1*": {"order-1", "order-12", "order_1", "order.1", "é-1"},
    "nothing-like-it": set[str](),
}


class ReadContract(ContractFixtures):
    """Tests of ``Backend.read_streams``, ``scan`` and ``head_position``, and of ``EventStore.read`` and ``read_all``."""

    async def test_an_empty_store_has_no_events_and_head_position_0(self, backend: Backend) -> None:
        page = await backend.log.read_streams({A: 0})
        assert (dict(page.rows), page.head) == ({A: []}, 0), "a stream without events has an empty list"
        assert await backend.log.head_position() == 0
        assert list(await backend.log.scan(0, 100, 10, EVERYTHING)) == []

    async def test_a_page_begins_behind_the_requested_versions_and_has_the_head_of_its_snapshot(self, backend: Backend) -> None:
        await fill(backend, A, B, A, B, A)
        page = await backend.log.read_streams({A: 1, B: 0, C: 0})
        assert {stream: [row.version for row in rows] for stream, rows in page.rows.items()} == {A: [2, 3], B: [1, 2], C: []}
        assert page.head == 5, "`head` is the last position of the snapshot"
        page = await backend.log.read_streams({A: 0, B: 0}, up_to=3)
        assert {stream: positions(rows) for stream, rows in page.rows.items()} == {A: [1, 3], B: [2]}, (
            "`up_to` leaves out later events"
        )

    async def test_a_long_stream_comes_in_pages(self, backend: Backend) -> None:
        await fill(backend, *[A] * 1234)
        versions: list[int] = []
        while True:
            page = await backend.log.read_streams({A: len(versions), B: 0})
            rows = page.rows[A]
            assert len(rows) <= 500, "a page holds at most 500 rows of a stream"
            versions += [row.version for row in rows]
            if A not in page.more:
                break
        assert versions == list(range(1, 1235))

    @pytest.mark.parametrize("size", [3_000, 60_000, 1_000_000])
    async def test_pages_of_large_events_are_bounded_in_bytes(self, backend: Backend, size: int) -> None:
        await fill_large(backend, (A, B, C), 9, size)
        found: dict[StreamId, list[int]] = {A: [], B: [], C: [], account("none"): []}
        wanted, calls = set(found), 0
        while wanted:
            page = await backend.log.read_streams({stream: len(found[stream]) for stream in wanted})
            check_size([row for rows in page.rows.values() for row in rows])
            assert page.rows.keys() == wanted
            assert any(page.rows.values()) or not page.more, "each page holds at least one event while there are some"
            for stream, rows in page.rows.items():
                found[stream] += [row.version for row in rows]
                assert (len(found[stream]) < 9) == (stream in page.more) or stream == account("none"), (
                    "`more` names exactly the streams that have further events"
                )
            wanted = set(page.more)
            calls += 1
        assert list(found.values()) == [list(range(1, 10))] * 3 + [[]]
        assert calls > 3 or size < 1_000_000

    async def test_events_behind_the_highest_position_are_not_more(self, backend: Backend) -> None:
        await fill_large(backend, (A, B), 4, 3_000)
        for count in range(9):
            page = await backend.log.read_streams({A: 0, B: 0}, up_to=count)
            assert (len(page.rows[A]) + len(page.rows[B]), page.more) == (count, frozenset())
        await backend.log.append([request({C: 0}, *[C] * 600)])
        page = await backend.log.read_streams({C: 400}, up_to=508)
        assert (len(page.rows[C]), page.more) == (100, frozenset())

    async def test_an_event_larger_than_a_page_is_a_page_of_its_own(self, backend: Backend) -> None:
        await fill_large(backend, (A, B), 2, 9 << 20)
        page = await backend.log.read_streams({A: 0, B: 0})
        assert ([len(page.rows[A]), len(page.rows[B])], page.more) == ([1, 0], frozenset({A, B}))
        page = await backend.log.read_streams({A: 1, B: 1})
        assert ([len(page.rows[A]), len(page.rows[B])], page.more) == ([1, 0], frozenset({B}))
        assert positions(await backend.log.scan(0, 9, 9, EVERYTHING)) == [1]
        assert positions(await everything(backend)) == [1, 2, 3, 4]
        at = START
        for position in range(1, 5):
            followed = await backend.log.follow(at, 9, EVERYTHING)
            at = followed.end
            assert (positions(followed.rows), at.position) == ([position], position), "the page ends at its only event"

    @pytest.mark.parametrize("pattern", [None, "account-b"])
    async def test_ranges_of_large_events_come_in_pages_that_are_bounded_in_bytes(
        self, backend: Backend, pattern: str | None
    ) -> None:
        await fill_large(backend, (A, B), 12, 1_000_000)
        found: list[int] = []
        while rows := await backend.log.scan(found[-1] if found else 0, 24, 100, matching(pattern)):
            check_size(rows)
            found += positions(rows)
        assert found == (list(range(1, 25)) if pattern is None else list(range(2, 25, 2)))

    async def test_a_thousand_streams_are_read_at_once(self, backend: Backend) -> None:
        streams = [account(number) for number in range(1000)]
        await fill(backend, *streams[::2])
        page = await backend.log.read_streams(dict.fromkeys(streams, 0))
        assert [len(page.rows[stream]) for stream in streams] == [1, 0] * 500, "every requested stream is in the page"

    async def test_all_streams_of_a_page_come_from_one_snapshot(self, backend: Backend, another_backend: Backend) -> None:
        async def write() -> None:
            for version in range(60):
                assert await another_backend.log.append([request({A: version, B: version}, A, B)]) != [CONFLICT]

        writing = asyncio.create_task(write())
        seen: list[tuple[int, int]] = []
        async with asyncio.timeout(30):
            while not writing.done():
                page = await backend.log.read_streams({B: 0, A: 0})
                seen.append((len(page.rows[A]), len(page.rows[B])))
                assert page.head == 2 * seen[-1][0], "the head comes from the same snapshot as the rows"
                await asyncio.sleep(0)
        await writing
        assert [a - b for a, b in seen] == [0] * len(seen), "events of one append become visible together"

    async def test_a_range_of_positions_is_read_in_order(self, backend: Backend) -> None:
        await fill(backend, A, B, A, C, A)
        assert positions(await backend.log.scan(0, 5, 10, EVERYTHING)) == [1, 2, 3, 4, 5]
        assert positions(await backend.log.scan(1, 4, 10, EVERYTHING)) == [2, 3, 4], "`after` is excluded, `up_to` is included"
        assert positions(await backend.log.scan(1, 5, 2, EVERYTHING)) == [2, 3]
        assert positions(await backend.log.scan(4, 99, 10, EVERYTHING)) == [5]
        assert positions(await backend.log.scan(5, 99, 10, EVERYTHING)) == []

    async def test_a_pattern_matches_whole_stream_ids_and_case_counts(self, backend: Backend) -> None:
        await fill(backend, *_IDS)
        found = {
            pattern: {row.stream_id for row in await backend.log.scan(0, 100, 100, matching(pattern))} for pattern in _PATTERNS
        }
        assert found == _PATTERNS, "'*' is any characters, '?' one, '[0-9]' one of a set, '[!0-9]' one outside it"

    async def test_a_limit_counts_only_events_that_match_the_filter(self, backend: Backend) -> None:
        await fill(backend, *[B] * 50, A, B, A, A)
        assert positions(await backend.log.scan(0, 54, 2, matching(A))) == [51, 53], "the limit counts matching events only"
        assert positions(await backend.log.scan(51, 54, 2, matching(A))) == [53, 54]

    async def test_event_types_are_chosen_exactly(self, backend: Backend) -> None:
        kinds = ["kind", "Kind", "kind.2", "other"]
        new = [new_event(A, version, event_type=kind) for version, kind in enumerate(kinds, 1)]
        await backend.log.append([AppendRequest({A: 0}, {A: 0}, new)])
        assert positions(await backend.log.scan(0, 9, 9, matching(None, "kind"))) == [1], "case counts"
        assert positions(await backend.log.scan(0, 9, 9, matching(None, "other", "kind"))) == [1, 4]
        assert positions(await backend.log.scan(0, 9, 9, matching("account-?", "Kind", "none"))) == [2]
        assert positions(await backend.log.scan(0, 9, 9, matching(B, "Kind"))) == [], (
            "an event must match both pattern and type"
        )
        assert positions(await backend.log.scan(0, 9, 9, matching(None, "nothing-like-it"))) == []

    async def test_a_cancelled_read_affects_no_other(self, backend: Backend) -> None:
        await fill(backend, *[A] * 300)
        for turn in range(12):
            calls = [
                asyncio.ensure_future(backend.log.read_streams({A: 0})),
                asyncio.ensure_future(backend.log.scan(0, 300, 300, EVERYTHING)),
                asyncio.ensure_future(backend.log.head_position()),
            ]
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls, timeout=10)
            assert await backend.log.head_position() == 300
        assert len(await backend.log.scan(0, 300, 300, EVERYTHING)) == 300

    # Through an EventStore

    async def test_a_stream_is_read_in_order_of_version(self, store: EventStore) -> None:
        await store.execute(Deposit(account=B))
        await store.execute(Deposit(account=A, times=1200))
        await store.execute(Deposit(account=B))
        assert [(event.version, event.position) async for event in store.read(A)] == [(n, n + 1) for n in range(1, 1201)]
        assert [event.version async for event in store.read(A, after_version=1190, limit=4)] == [1191, 1192, 1193, 1194]
        assert [event.version async for event in store.read(A, after_version=1198)] == [1199, 1200]
        assert [event async for event in store.read(A, after_version=1200)] == []
        assert [event async for event in store.read(A, limit=0)] == []
        assert [event async for event in store.read(C)] == []

    async def test_large_events_are_all_read(self, store: EventStore) -> None:
        for note in ("x" * 1_000_000, "y" * 3_000):
            for stream in (A, B):
                await store.execute(Deposit(account=stream, note=note, times=6))
        assert [event.version async for event in store.read(A)] == list(range(1, 13))
        assert [event.position async for event in store.read_all()] == list(range(1, 25))
        assert [event.position async for event in store.read_all(pattern=str(B), limit=9)] == [7, 8, 9, 10, 11, 12, 19, 20, 21]
        assert (await store.execute(Look(accounts=(A, B)))).position == 24

    async def test_positions_and_versions_beyond_64_bits_are_refused(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A))
        assert [event async for event in store.read(A, after_version=2**63 - 1)] == []
        assert [event async for event in store.read_all(after=2**63 - 1)] == []
        for number in (2**63, 2**64, 10**30):
            with pytest.raises(ValueError, match=f"expected an int from 0 to {2**63 - 1}"):
                await anext(store.read(A, after_version=number))
            with pytest.raises(ValueError, match="expected an int from 0 to"):
                await anext(store.read_all(after=number))
            with pytest.raises(ValueError, match="expected an int from 0 to"):
                await store.wait_for("projection", number)

    async def test_all_events_are_read_from_a_position_up_to_a_limit(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A, times=1200))
        assert [event.position async for event in store.read_all()] == list(range(1, 1201))
        assert [event.position async for event in store.read_all(after=1197)] == [1198, 1199, 1200]
        assert [event.position async for event in store.read_all(after=600, limit=2)] == [601, 602]
        assert [event async for event in store.read_all(after=1200)] == []

    async def test_a_filter_and_a_limit_apply_together_over_many_events(self, store: EventStore) -> None:
        for number in range(5):
            await store.execute(Deposit(account=account(f"long-{number % 2}"), times=900))
            await store.execute(Link(account=account(f"long-{number % 2}"), to=A))
        links = [event.position async for event in store.read_all(event_types=[Linked])]
        assert links == [901 * number for number in range(1, 6)]
        by_name = [event.position async for event in store.read_all(event_types=[Linked.event_type], pattern="*-1")]
        assert by_name == [901 * 2, 901 * 4]
        assert [event.position async for event in store.read_all(after=901, event_types=[Linked], limit=2)] == links[1:3]
        assert [event async for event in store.read_all(event_types=[])] == []

    async def test_read_all_ends_at_the_head_at_its_beginning(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A))
        found: list[int] = []
        async for event in store.read_all():
            found.append(event.position)
            await store.execute(Deposit(account=A))
        assert found == [1], "a reader that also writes must end"
        assert await store.head_position() == 2

    async def test_an_event_with_a_field_of_the_wrong_type_is_refused_before_it_is_appended(self, store: EventStore) -> None:
        with pytest.raises(InvalidEvent, match="Expected `int`, got `str`"):
            await store.execute(Deposit(account=A, amount="5"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the test needs it
        assert await store.head_position() == 0

    async def test_a_stored_event_of_an_unknown_type_fails_only_calls_that_read_it(self, make_backend: MakeBackend) -> None:
        unknown = new_event(A, 1, data=b"{}", event_type="eventcore.testing.NobodyKnows")
        await self._fails_only_calls_that_read_it(make_backend, unknown, UnknownEventType)

    async def test_a_stored_event_of_an_unknown_type_can_be_read_as_plain_values(self, make_backend: MakeBackend) -> None:
        backend = make_backend()
        await backend.open()
        unknown = new_event(A, 1, event_type="eventcore.testing.unknown", data=b'{"a":[1,null,{"b":"\xc3\xa9"}]}')
        await backend.log.append([AppendRequest({A: 0}, {A: 0}, [unknown])])
        await backend.close(5.0)
        async with opened_store(make_backend()) as store:
            await store.execute(Deposit(account=B))
            in_stream = [event async for event in store.read(A, unknown="raw")]
            in_all = [event async for event in store.read_all(unknown="raw")]
        [raw, known] = in_all
        assert in_stream == [raw], "both calls give the same event"
        assert isinstance(raw, RawEvent), "an event whose type no class has is a RawEvent"
        assert (raw.stream_id, raw.version, raw.position) == (A, 1, 1)
        assert (raw.event_type, raw.event_id) == ("eventcore.testing.unknown", unknown.recorded.event_id)
        assert raw.data == {"a": [1, None, {"b": "\u00e9"}]}
        assert raw.recorded_at_ns == unknown.recorded.recorded_at_ns
        assert isinstance(known, RecordedEvent), "all other events are what they always are"
        assert known.data == Deposited(amount=1)

    async def test_a_stored_event_that_does_not_fit_its_class_fails_only_calls_that_read_it(
        self, make_backend: MakeBackend
    ) -> None:
        await self._fails_only_calls_that_read_it(make_backend, new_event(A, 1, data=b'{"amount":"5"}'), CorruptEvent)

    @staticmethod
    async def _fails_only_calls_that_read_it(make_backend: MakeBackend, new: NewEvent, error: type[Exception]) -> None:
        backend = make_backend()
        await backend.open()
        await backend.log.append([AppendRequest({A: 0}, {A: 0}, [new])])
        await backend.close(5.0)
        async with opened_store(make_backend()) as store:
            where = f"stream '{A}', version 1, position 1"
            with pytest.raises(error, match=where) as raised:
                [event async for event in store.read(A)]
            assert isinstance(raised.value, (UnknownEventType, CorruptEvent))
            assert (raised.value.stream_id, raised.value.version, raised.value.position) == (A, 1, 1)
            with pytest.raises(error, match=where):
                [event async for event in store.read_all()]
            with pytest.raises(error, match=where):
                await store.execute(Look(accounts=(B, A)))
            good, bad = await asyncio.gather(
                store.execute(Deposit(account=B)), store.execute(Deposit(account=A)), return_exceptions=True
            )
            assert isinstance(bad, error)
            assert not isinstance(good, BaseException), "an event that cannot be decoded fails only calls that read it"
            assert [event.data async for event in store.read(B)] == [Deposited(amount=1)]
