"""Appending: the requests of a call are checked in order, each by itself, and an accepted one is stored as a whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Final

import pytest

from eventcore.events import StreamId
from eventcore.stores import CONFLICT, AppendRequest, Backend
from eventcore.testing.contract.accounts import account
from eventcore.testing.contract.fixtures import (
    EVERYTHING,
    ContractFixtures,
    MakeBackend,
    everything,
    fill,
    log,
    new_event,
    positions,
    request,
)

A: Final = account("a")
B: Final = account("b")
C: Final = account("c")
_NONE: Final[Mapping[StreamId, int]] = {A: 0, B: 0, C: 0}


class AppendContract(ContractFixtures):
    """Tests of ``Backend.append``."""

    async def test_requests_that_do_not_conflict_are_all_accepted(self, backend: Backend) -> None:
        verdicts = await backend.log.append([request({A: 0}, A, A), request({B: 0, C: 0}, B), request({C: 0}, C)])
        assert verdicts == [1, 3, 4], "the verdict of an accepted request is the position of its first event"
        assert await log(backend) == [(1, A, 1), (2, A, 2), (3, B, 1), (4, C, 1)], (
            "events are stored in the order of the requests"
        )
        assert await backend.log.head_position() == 4

    async def test_one_request_may_write_several_streams_and_each_several_times(self, backend: Backend) -> None:
        assert await backend.log.append([request({A: 0, B: 0, C: 0}, B, A, B, C)]) == [1]
        assert await log(backend) == [(1, B, 1), (2, A, 1), (3, B, 2), (4, C, 1)], (
            "events are stored in the order of the request"
        )

    async def test_a_chain_is_accepted_in_order(self, backend: Backend) -> None:
        chain = [
            request({A: 0}, A),
            request({A: 0}, A, expected={A: 1}),
            request({A: 0, B: 0}, B, A, expected={A: 2, B: 0}),
        ]
        assert await backend.log.append(chain) == [1, 2, 3], "a request may build on the events of those before it in the call"
        assert await log(backend) == [(1, A, 1), (2, A, 2), (3, B, 1), (4, A, 3)]

    async def test_one_conflict_refuses_one_request_and_leaves_no_gap(self, backend: Backend) -> None:
        await fill(backend, A)
        verdicts = await backend.log.append([request({B: 0}, B), request({A: 0, C: 0}, C), request({A: 1}, A)])
        assert verdicts == [2, CONFLICT, 3], "a conflict must not affect the other requests of the call"
        assert await log(backend) == [(1, A, 1), (2, B, 1), (3, A, 2)], "a refused request takes no position"

    async def test_a_request_is_appended_whole_or_not_at_all(self, backend: Backend) -> None:
        await fill(backend, B)
        assert await backend.log.append([request(_NONE, A, C, B)]) == [CONFLICT]
        assert await log(backend) == [(1, B, 1)], "no event of a request is stored when one of its streams has changed"

    async def test_a_stream_that_is_only_read_is_checked(self, backend: Backend) -> None:
        await fill(backend, A)
        stale, fresh = request({A: 0, B: 0}, B), request({A: 1, B: 0}, B)
        assert await backend.log.append([stale]) == [CONFLICT], (
            "a stream that is read and not written must not have changed either"
        )
        assert await backend.log.append([fresh]) == [2]

    async def test_a_version_that_the_stream_has_not_reached_is_a_conflict(self, backend: Backend) -> None:
        await fill(backend, A)
        assert await backend.log.append([request({A: 2}, A), request({A: 2, B: 0}, B)]) == [CONFLICT, CONFLICT]
        assert await log(backend) == [(1, A, 1)], "versions have no gaps"

    async def test_a_refused_predecessor_refuses_the_chain_that_builds_on_it(self, backend: Backend) -> None:
        await fill(backend, B)
        verdicts = await backend.log.append(
            [
                request({A: 0, B: 0}, A),
                request({A: 0}, A, expected={A: 1}),
                request({A: 0}, A, expected={A: 2}),
                request({C: 0}, C),
            ]
        )
        assert verdicts == [CONFLICT, CONFLICT, CONFLICT, 2], (
            "a request that builds on events of a refused request is refused, too"
        )

    async def test_an_event_of_another_process_does_not_replace_that_of_a_refused_request(self, backend: Backend) -> None:
        await fill(backend, A)
        # The second request expects version 1. The stream has it, but with another event than that of the first request.
        verdicts = await backend.log.append([request({A: 0}, A), request({A: 0}, A, expected={A: 1})])
        assert verdicts == [CONFLICT, CONFLICT], (
            "a request is accepted only if its streams had the versions `base` when the call began"
        )
        assert await backend.log.append([request({A: 0}, A, expected={A: 1}), request({A: 1}, A)]) == [CONFLICT, 2]

    async def test_a_request_that_ignores_its_predecessor_is_refused(self, backend: Backend) -> None:
        verdicts = await backend.log.append([request({A: 0}, A), request({A: 0}, A), request({A: 0})])
        assert verdicts == [1, CONFLICT, CONFLICT], (
            "a request is accepted only if its streams have the versions `expected` when it is checked"
        )

    @pytest.mark.parametrize("version", [0, 1, 2])
    async def test_a_request_without_events_is_only_checked(self, backend: Backend, version: int) -> None:
        await fill(backend, A)
        verdict = 0 if version == 1 else CONFLICT
        assert await backend.log.append([request({A: version})]) == [verdict], (
            "the verdict 0 means that the check succeeded and there was no event"
        )
        checked = [request({A: version}), request({B: 0}, B), request({B: 0}, expected={B: 1})]
        assert await backend.log.append(checked) == [verdict, 2, 0]
        assert await backend.log.append([request({A: 1}), request({A: version, B: 1})]) == [0, verdict]
        assert await backend.log.head_position() == 2

    async def test_any_mixture_of_requests_keeps_positions_and_versions_without_gaps(self, backend: Backend) -> None:
        choice = random.Random(11)
        versions = dict(_NONE)
        expected_log: list[tuple[StreamId, int]] = []
        for _ in range(100):
            began = dict(versions)
            requests: list[AppendRequest] = []
            accepted: list[bool] = []
            for _ in range(choice.randint(1, 6)):
                streams = choice.sample([A, B, C], choice.randint(1, 3))
                wrong = choice.random() < 0.3
                base = {stream: began[stream] + (choice.choice([-1, 0, 1]) if wrong else 0) for stream in streams}
                written = choice.sample(streams, choice.randint(0, len(streams)))
                requests.append(request(base, *written, expected={stream: versions[stream] for stream in streams}))
                accepted.append(all(base[stream] == began[stream] for stream in streams))
                if accepted[-1]:
                    for stream in written:
                        versions[stream] += 1
                        expected_log.append((stream, versions[stream]))
            verdicts = await backend.log.append(requests)
            assert [verdict != CONFLICT for verdict in verdicts] == accepted, f"the verdicts of {requests}"
        assert await log(backend) == [(position, *event) for position, event in enumerate(expected_log, 1)]

    async def test_five_hundred_requests_of_one_call_get_a_verdict_each(self, backend: Backend) -> None:
        streams = [account(number) for number in range(512)]
        await fill(backend, *streams[::2])
        verdicts = await backend.log.append([request({stream: 0}, stream, stream) for stream in streams])
        assert verdicts[::2] == [CONFLICT] * 256
        assert verdicts[1::2] == list(range(257, 769, 2)), "positions follow the order of requests"
        assert positions(await everything(backend)) == list(range(1, 769))

    async def test_of_two_backends_that_append_at_once_one_wins_each_version(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        won: list[tuple[int, int]] = []

        async def write(one: Backend) -> None:
            for version in range(40):
                [verdict] = await one.log.append([request({A: version}, A)])
                if verdict != CONFLICT:
                    won.append((verdict, version + 1))

        async with asyncio.timeout(30):
            await asyncio.gather(write(backend), write(another_backend))
        assert sorted(won) == [(number, number) for number in range(1, 41)], "of two appends behind the same version, one wins"
        assert await log(another_backend) == [(number, A, number) for number in range(1, 41)]

    async def test_backends_that_name_streams_in_opposite_orders_do_not_block_each_other(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        streams = [account(number) for number in range(20)]

        async def write(one: Backend, order: list[StreamId]) -> int:
            won = version = 0
            while version < 15:
                [verdict] = await one.log.append([request(dict.fromkeys(order, version), *order)])
                won += verdict != CONFLICT
                page = await one.log.read_streams({streams[0]: 0})
                version = len(page.rows[streams[0]])
            return won

        async with asyncio.timeout(30):
            wins = await asyncio.gather(write(backend, streams), write(another_backend, streams[::-1]))
        assert sum(wins) == 15
        assert await backend.log.head_position() == 15 * 20

    async def test_a_reader_that_has_seen_a_position_never_finds_a_lower_one_later(
        self, backend: Backend, another_backend: Backend, make_backend: MakeBackend
    ) -> None:
        writing = [
            asyncio.create_task(self._write(one, account(number), 40))
            for number, one in enumerate([backend, another_backend, backend, another_backend])
        ]
        reader = make_backend()
        await reader.open()
        try:
            seen: list[int] = []
            async with asyncio.timeout(30):
                while len(seen) < 4 * 40 * 3:
                    found = positions(await reader.log.scan(len(seen), 1 << 40, 7, EVERYTHING))
                    assert found == list(range(len(seen) + 1, len(seen) + 1 + len(found))), (
                        "positions follow the order of commits, without gaps: no event becomes visible below one that was read"
                    )
                    seen += found
                    await asyncio.sleep(0)
                await asyncio.gather(*writing)
        finally:
            await reader.close(5.0)

    @staticmethod
    async def _write(backend: Backend, stream: StreamId, count: int) -> None:
        for number in range(count):
            assert await backend.log.append([request({stream: number * 3}, stream, stream, stream)]) != [CONFLICT]

    async def test_a_cancelled_append_is_stored_as_a_whole_or_not_at_all(self, backend: Backend) -> None:
        for turn in range(20):
            stream = account(f"given-up-{turn}")
            call = asyncio.ensure_future(backend.log.append([request({stream: 0, A: 0}, *[stream] * 5)]))
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call], timeout=10)
            assert call.done(), "a cancelled append ends"
        head = await backend.log.head_position()
        # The next append is checked after the cancelled ones are stored or dropped.
        assert await backend.log.append([request({A: 0}, A)]) != [CONFLICT], "a store works on after a call was cancelled"
        by_stream: dict[str, int] = {}
        for _, stream_id, _ in await log(backend):
            by_stream[stream_id] = by_stream.get(stream_id, 0) + 1
        assert by_stream.pop(A) == 1
        assert set(by_stream.values()) <= {5}, "an append is never stored in part"
        assert await backend.log.head_position() >= head
        assert positions(await everything(backend)) == list(range(1, sum(by_stream.values()) + 2))

    async def test_what_was_acknowledged_is_there_when_the_store_is_opened_again(
        self, backend: Backend, make_backend: MakeBackend
    ) -> None:
        await backend.log.append([request({A: 0}, A, A), request({B: 0}, B)])
        before = await everything(backend)
        await backend.close(5.0)
        again = make_backend()
        await again.open()
        try:
            assert await everything(again) == before, "acknowledged events are durable"
            assert await again.log.append([request({A: 2}, A)]) == [4], "positions continue where they ended"
        finally:
            await again.close(5.0)

    async def test_a_backend_that_is_closed_is_closed_again_at_once(self, backend: Backend) -> None:
        await backend.close(30.0)
        async with asyncio.timeout(10.0):
            await backend.close(30.0)

    async def test_data_without_an_event_class_is_kept_as_it_is(self, backend: Backend) -> None:
        new = new_event(A, 1, data=b'{"any":["thing",1]}', event_type="of.another.program", metadata=b'{"command_type":"X"}')
        await backend.log.append([AppendRequest({A: 0}, {A: 0}, [new])])
        [row] = await everything(backend)
        assert (row.event_id, row.event_type) == (new.recorded.event_id, "of.another.program")
        assert (row.data, row.metadata) == (new.data.decode(), new.metadata.decode()), "a backend keeps JSON as it was written"
        assert row.recorded_at_ns == new.recorded.recorded_at_ns, "times are kept to the nanosecond"
