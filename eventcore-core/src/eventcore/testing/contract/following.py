"""Following the global order page by page from a checkpoint: without gaps, and with an error if the store went back in time."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from eventcore.errors import HistoryDiverged
from eventcore.stores import CONFLICT, START, Backend, Checkpoint
from eventcore.testing.contract.accounts import account
from eventcore.testing.contract.fixtures import (
    EVERYTHING,
    ContractFixtures,
    check_size,
    everything,
    fill,
    fill_large,
    log,
    matching,
    positions,
    request,
)

A: Final = account("a")
B: Final = account("b")


class FollowContract(ContractFixtures):
    """Tests of ``Backend.follow`` and ``Backend.wait_beyond``."""

    async def test_following_an_empty_store_stays_at_the_start(self, backend: Backend) -> None:
        for wanted in (EVERYTHING, matching("*")):
            page = await backend.log.follow(START, 10, wanted)
            assert (list(page.rows), page.end, page.head) == ([], START, 0)

    async def test_each_event_comes_once_and_a_page_says_where_the_next_one_begins(self, backend: Backend) -> None:
        await fill(backend, A, B, A, B, B)
        ids = [row.event_id for row in await everything(backend)]
        page = await backend.log.follow(START, 2, EVERYTHING)
        assert (positions(page.rows), page.end, page.head) == ([1, 2], Checkpoint(2, ids[1]), 5)
        page = await backend.log.follow(page.end, 10, EVERYTHING)
        assert (positions(page.rows), page.end, page.head) == ([3, 4, 5], Checkpoint(5, ids[4]), 5)
        page = await backend.log.follow(page.end, 10, EVERYTHING)
        assert (list(page.rows), page.end, page.head) == ([], Checkpoint(5, ids[4]), 5), (
            "at the head, the end of the page stays the same"
        )

    async def test_a_page_ends_behind_the_events_that_the_filter_left_out(self, backend: Backend) -> None:
        await fill(backend, A, B, A, B, B)
        ids = [row.event_id for row in await everything(backend)]
        page = await backend.log.follow(START, 10, matching(A))
        assert (positions(page.rows), page.end) == ([1, 3], Checkpoint(5, ids[4])), (
            "events that do not match belong to the page, too"
        )
        page = await backend.log.follow(START, 1, matching(A))
        assert (positions(page.rows), page.end) == ([1], Checkpoint(1, ids[0])), "a full page ends at its last event"

    async def test_a_filter_that_matches_few_events_advances_in_bounded_steps(self, backend: Backend) -> None:
        for start in range(0, 12_000, 4000):
            await backend.log.append([request({B: start}, *[B] * 4000)])
        await backend.log.append([request({A: 0}, A)])
        at, found, calls = START, list[int](), 0
        while at.position < 12_001:
            page = await backend.log.follow(at, 10, matching(A))
            assert page.end.position > at.position, "every call must advance, also when nothing matches"
            assert page.head == 12_001
            found += positions(page.rows)
            at, calls = page.end, calls + 1
        assert found == [12_001]
        assert calls < 1000

    @pytest.mark.parametrize("pattern", [None, "account-b"])
    async def test_pages_of_large_events_are_bounded_in_bytes_and_miss_nothing(
        self, backend: Backend, pattern: str | None
    ) -> None:
        await fill_large(backend, (A, B), 9, 1_000_000)
        await fill_large(backend, (account("c"),), 30, 100)
        at, found = START, list[int]()
        while at.position < 48:
            page = await backend.log.follow(at, 100, matching(pattern))
            check_size(page.rows)
            assert page.end.position > at.position
            found += positions(page.rows)
            at = page.end
        assert found == (list(range(1, 49)) if pattern is None else list(range(2, 19, 2)))

    async def test_a_checkpoint_is_resumed_on_another_backend(self, backend: Backend, another_backend: Backend) -> None:
        await fill(backend, *[A, B] * 300)
        at, found, backends = START, list[int](), (backend, another_backend)
        while at.position < 600:
            page = await backends[len(found) % 2].log.follow(at, 37, EVERYTHING)
            assert 0 < len(page.rows) <= 37
            found += positions(page.rows)
            at = page.end
        assert found == list(range(1, 601)), "a checkpoint is valid in every process"

    async def test_a_reader_that_follows_two_writers_misses_nothing_and_gets_nothing_twice(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        async def write(one: Backend, name: str) -> None:
            for number in range(60):
                stream = account(f"{name}-{number % 5}")
                assert await one.log.append([request({stream: number // 5 * 2}, stream, stream)]) != [CONFLICT]

        writing = [asyncio.create_task(write(one, name)) for one, name in ((backend, "x"), (another_backend, "y"))]
        at, found = START, list[tuple[int, str, int]]()
        async with asyncio.timeout(30):
            while len(found) < 240:
                await another_backend.log.wait_beyond(at.position, 5.0)
                page = await another_backend.log.follow(at, 11, EVERYTHING)
                found += [(row.position, row.stream_id, row.version) for row in page.rows]
                at = page.end
        await asyncio.gather(*writing)
        assert [position for position, _, _ in found] == list(range(1, 241))
        assert found == await log(backend)

    @pytest.mark.parametrize("pattern", [None, "account-b", "nothing-like-it"])
    async def test_a_checkpoint_whose_event_is_gone_raises_history_diverged(
        self, backend: Backend, pattern: str | None
    ) -> None:
        await fill(backend, A, B)
        wanted = matching(pattern)
        with pytest.raises(HistoryDiverged, match=r"the event f{32}, which was read at position 2, is no longer there"):
            await backend.log.follow(Checkpoint(2, "f" * 32), 10, wanted)
        with pytest.raises(HistoryDiverged, match=r"at position 9, .*\(now: no event\)"):
            await backend.log.follow(Checkpoint(9, "f" * 32), 10, wanted)
        [_, second] = await everything(backend)
        with pytest.raises(HistoryDiverged):
            await backend.log.follow(Checkpoint(1, second.event_id), 10, wanted)
        assert (await backend.log.follow(Checkpoint(2, second.event_id), 10, wanted)).head == 2

    async def test_waiting_beyond_an_earlier_position_returns_at_once(self, backend: Backend) -> None:
        await fill(backend, A, B)
        async with asyncio.timeout(10):
            assert await backend.log.wait_beyond(0, 60.0) == 2
            assert await backend.log.wait_beyond(1, 60.0) == 2

    async def test_waiting_without_new_events_returns_the_head_after_the_timeout(self, backend: Backend) -> None:
        assert await backend.log.wait_beyond(0, 0.01) == 0
        await fill(backend, A)
        assert await backend.log.wait_beyond(5, 0.01) == 1

    async def test_a_wait_without_time_returns_the_head_of_a_backend_that_has_read_nothing_yet(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        await fill(backend, A, B)
        assert await another_backend.log.wait_beyond(5, 0.0) == 2, "the head position is read before the first answer"

    async def test_an_append_wakes_waiting_readers_in_this_and_in_another_process(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        waiting = [asyncio.create_task(one.log.wait_beyond(0, 60.0)) for one in [backend, another_backend] * 3]
        for _ in range(20):
            await asyncio.sleep(0)
        await fill(another_backend, A)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*waiting) == [1] * 6, "an append ends the wait before its timeout"

    async def test_a_cancelled_wait_does_not_end_other_waits(self, backend: Backend) -> None:
        first, second = (asyncio.create_task(backend.log.wait_beyond(0, 60.0)) for _ in range(2))
        for _ in range(20):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first], timeout=10)
        assert first.cancelled()
        await fill(backend, A)
        async with asyncio.timeout(10):
            assert await second == 1
