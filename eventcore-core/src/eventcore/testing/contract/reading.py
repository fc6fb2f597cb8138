"""Reading: pages of one snapshot, ranges of positions, filters that look before the limit counts."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from eventcore.errors import CorruptEvent, InvalidEvent, UnknownEventType
from eventcore.events import StreamId
from eventcore.store import EventStore
from eventcore.stores import CONFLICT, AppendRequest, Backend, NewEvent
from eventcore.testing.contract.accounts import Deposit, Deposited, Link, Linked, Look, account
from eventcore.testing.contract.fixtures import ContractFixtures, MakeBackend, opened_store
from eventcore.testing.contract.requests import EVERYTHING, fill, matching, new_event, positions, request

A: Final = account("a")
B: Final = account("b")
C: Final = account("c")

# Among them characters that are special in the patterns of SQL, of shells and in regular expressions.
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
    """``Backend.read_streams``, ``scan`` and ``head_position``, and what of a stored event cannot be read."""

    async def test_an_empty_store_has_no_events_and_the_head_0(self, backend: Backend) -> None:
        page = await backend.log.read_streams({A: 0})
        assert (dict(page.rows), page.head) == ({A: []}, 0), "a stream without events is an empty one"
        assert await backend.log.head_position() == 0
        assert list(await backend.log.scan(0, 100, 10, EVERYTHING)) == []

    async def test_a_page_begins_behind_the_versions_asked_for_and_says_of_which_snapshot_it_is(self, backend: Backend) -> None:
        await fill(backend, A, B, A, B, A)
        page = await backend.log.read_streams({A: 1, B: 0, C: 0})
        assert {stream: [row.version for row in rows] for stream, rows in page.rows.items()} == {A: [2, 3], B: [1, 2], C: []}
        assert page.head == 5, "a page says which position was the last when it was made"
        page = await backend.log.read_streams({A: 0, B: 0}, up_to=3)
        assert {stream: positions(rows) for stream, rows in page.rows.items()} == {A: [1, 3], B: [2]}, (
            "up_to leaves out what was committed later"
        )

    async def test_a_long_stream_comes_in_pages(self, backend: Backend) -> None:
        await fill(backend, *[A] * 1234)
        versions: list[int] = []
        while True:
            page = await backend.log.read_streams({A: len(versions), B: 0})
            rows = page.rows[A]
            assert len(rows) <= page.limit <= 500, "no page holds more than it says, nor more than 500 rows of a stream"
            versions += [row.version for row in rows]
            if len(rows) < page.limit:
                break
        assert versions == list(range(1, 1235))

    async def test_a_thousand_streams_are_read_at_once(self, backend: Backend) -> None:
        streams = [account(number) for number in range(1000)]
        await fill(backend, *streams[::2])
        page = await backend.log.read_streams(dict.fromkeys(streams, 0))
        assert [len(page.rows[stream]) for stream in streams] == [1, 0] * 500, "every stream that was asked for is answered"

    async def test_all_streams_of_a_page_are_of_one_moment(self, backend: Backend, another_backend: Backend) -> None:
        async def write() -> None:
            for version in range(60):
                assert await another_backend.log.append([request({A: version, B: version}, A, B)]) != [CONFLICT]

        writing = asyncio.create_task(write())
        seen: list[tuple[int, int]] = []
        async with asyncio.timeout(30):
            while not writing.done():
                page = await backend.log.read_streams({B: 0, A: 0})
                seen.append((len(page.rows[A]), len(page.rows[B])))
                assert page.head == 2 * seen[-1][0], "the head is of the same snapshot as the rows"
                await asyncio.sleep(0)
        await writing
        assert [a - b for a, b in seen] == [0] * len(seen), "what was appended together is seen together, or not at all"

    async def test_a_range_of_positions_is_read_in_order(self, backend: Backend) -> None:
        await fill(backend, A, B, A, C, A)
        assert positions(await backend.log.scan(0, 5, 10, EVERYTHING)) == [1, 2, 3, 4, 5]
        assert positions(await backend.log.scan(1, 4, 10, EVERYTHING)) == [2, 3, 4], "after is left out, up_to is not"
        assert positions(await backend.log.scan(1, 5, 2, EVERYTHING)) == [2, 3]
        assert positions(await backend.log.scan(4, 99, 10, EVERYTHING)) == [5]
        assert positions(await backend.log.scan(5, 99, 10, EVERYTHING)) == []

    async def test_a_pattern_matches_whole_stream_ids_and_case_counts(self, backend: Backend) -> None:
        await fill(backend, *_IDS)
        found = {
            pattern: {row.stream_id for row in await backend.log.scan(0, 100, 100, matching(pattern))} for pattern in _PATTERNS
        }
        assert found == _PATTERNS, "'*' is any characters, '?' one, '[0-9]' one of a set, '[!0-9]' one outside it"

    async def test_a_filter_looks_before_the_limit_counts(self, backend: Backend) -> None:
        await fill(backend, *[B] * 50, A, B, A, A)
        assert positions(await backend.log.scan(0, 54, 2, matching(A))) == [51, 53], "the limit counts what matches"
        assert positions(await backend.log.scan(51, 54, 2, matching(A))) == [53, 54]

    async def test_event_types_are_chosen_exactly(self, backend: Backend) -> None:
        kinds = ["kind", "Kind", "kind.2", "other"]
        new = [new_event(A, version, event_type=kind) for version, kind in enumerate(kinds, 1)]
        await backend.log.append([AppendRequest({A: 0}, {A: 0}, new)])
        assert positions(await backend.log.scan(0, 9, 9, matching(None, "kind"))) == [1], "case counts"
        assert positions(await backend.log.scan(0, 9, 9, matching(None, "other", "kind"))) == [1, 4]
        assert positions(await backend.log.scan(0, 9, 9, matching("account-?", "Kind", "none"))) == [2]
        assert positions(await backend.log.scan(0, 9, 9, matching(B, "Kind"))) == [], "pattern and type hold together"
        assert positions(await backend.log.scan(0, 9, 9, matching(None, "nothing-like-it"))) == []

    async def test_a_read_whose_caller_gives_up_harms_no_other(self, backend: Backend) -> None:
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

    # As an application reads

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

    async def test_everything_is_read_from_a_position_and_to_a_limit(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A, times=1200))
        assert [event.position async for event in store.read_all()] == list(range(1, 1201))
        assert [event.position async for event in store.read_all(after=1197)] == [1198, 1199, 1200]
        assert [event.position async for event in store.read_all(after=600, limit=2)] == [601, 602]
        assert [event async for event in store.read_all(after=1200)] == []

    async def test_a_filter_and_a_limit_hold_together_over_many_events(self, store: EventStore) -> None:
        for number in range(5):
            await store.execute(Deposit(account=account(f"long-{number % 2}"), times=900))
            await store.execute(Link(account=account(f"long-{number % 2}"), to=A))
        links = [event.position async for event in store.read_all(event_types=[Linked])]
        assert links == [901 * number for number in range(1, 6)]
        by_name = [event.position async for event in store.read_all(event_types=[Linked.event_type], pattern="*-1")]
        assert by_name == [901 * 2, 901 * 4]
        assert [event.position async for event in store.read_all(after=901, event_types=[Linked], limit=2)] == links[1:3]
        assert [event async for event in store.read_all(event_types=[])] == []

    async def test_reading_all_ends_at_the_head_of_its_beginning(self, store: EventStore) -> None:
        await store.execute(Deposit(account=A))
        found: list[int] = []
        async for event in store.read_all():
            found.append(event.position)
            await store.execute(Deposit(account=A))
        assert found == [1], "a reader that writes comes to an end"
        assert await store.head_position() == 2

    async def test_an_event_with_a_field_of_the_wrong_type_is_refused_before_it_is_appended(self, store: EventStore) -> None:
        with pytest.raises(InvalidEvent, match="Expected `int`, got `str`"):
            await store.execute(Deposit(account=A, amount="5"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - that is the point
        assert await store.head_position() == 0

    async def test_a_stored_event_of_an_unknown_type_fails_those_who_read_it(self, make_backend: MakeBackend) -> None:
        unknown = new_event(A, 1, data=b"{}", event_type="eventcore.testing.NobodyKnows")
        await self._fails_its_readers_only(make_backend, unknown, UnknownEventType)

    async def test_a_stored_event_that_is_not_what_its_type_says_fails_those_who_read_it(
        self, make_backend: MakeBackend
    ) -> None:
        await self._fails_its_readers_only(make_backend, new_event(A, 1, data=b'{"amount":"5"}'), CorruptEvent)

    @staticmethod
    async def _fails_its_readers_only(make_backend: MakeBackend, new: NewEvent, error: type[Exception]) -> None:
        backend = make_backend()
        await backend.open()
        await backend.log.append([AppendRequest({A: 0}, {A: 0}, [new])])
        await backend.close(5.0)
        async with opened_store(make_backend()) as store:
            where = f"stream '{A}', version 1, position 1"
            with pytest.raises(error, match=where):
                [event async for event in store.read(A)]
            with pytest.raises(error, match=where):
                [event async for event in store.read_all()]
            with pytest.raises(error, match=where):
                await store.execute(Look(accounts=(B, A)))
            good, bad = await asyncio.gather(
                store.execute(Deposit(account=B)), store.execute(Deposit(account=A)), return_exceptions=True
            )
            assert isinstance(bad, error)
            assert not isinstance(good, BaseException), "an event that cannot be read fails only those who read it"
            assert [event.data async for event in store.read(B)] == [Deposited(amount=1)]
