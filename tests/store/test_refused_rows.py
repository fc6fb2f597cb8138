"""What an append says of the requests that it refuses: the versions of their streams, and few and small rows."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping

import pytest

from eventcore import StreamId
from eventcore.stores import AppendRequest, Backend, MemoryBackend, Refused, Snapshot, StateKey, Verdicts, backend_from_url
from eventcore.stores.judging import base_versions, judge
from eventcore.stores.paging import REFUSED_BYTES, REFUSED_ROWS
from eventcore.testing.contract.fixtures import everything, new_event, request

A, B, C, D = (StreamId(name) for name in "abcd")


@pytest.fixture
async def backends(url: str) -> AsyncIterator[tuple[Backend, Backend]]:
    """Two backends of one store, as two processes have them."""
    if url == "memory:":
        memory = MemoryBackend()
        yield memory, memory.another()
        return
    both = backend_from_url(url), backend_from_url(url)
    for backend in both:
        await backend.open()
    yield both
    for backend in both:
        await backend.close(5)


async def appended(backend: Backend, *requests: AppendRequest) -> tuple[list[int], Refused | None]:
    verdicts = await backend.log.append(requests)
    assert isinstance(verdicts, Verdicts)
    return list(verdicts), verdicts.refused


def several(stream: StreamId, version: int, count: int, data: bytes | None = None) -> AppendRequest:
    new = [new_event(stream, version + number, data=data) for number in range(1, count + 1)]
    return AppendRequest({stream: version}, {stream: version}, new)


async def test_a_refusal_brings_the_rows_of_streams_that_were_behind(backends: tuple[Backend, Backend]) -> None:
    one, other = backends
    assert await appended(one, several(A, 0, 3), several(B, 0, 2)) == ([1, 4], None)
    verdicts, refused = await appended(
        other,
        request({A: 1, C: 0}, A),
        request({B: 2}, B),
        request({D: 0}, D),
        request({StreamId("e"): 1}),
    )
    assert verdicts == [-1, 6, 7, -1]
    assert refused is not None
    assert (dict(refused.versions), refused.head) == ({A: 3, B: 2, C: 0, D: 0, "e": 0}, 5)
    rows = await everything(one)
    assert {stream: list(found) for stream, found in refused.rows.items()} == {A: rows[1:3]}


async def test_a_refusal_in_a_chain_says_what_the_streams_held_before_the_call(backends: tuple[Backend, Backend]) -> None:
    one, other = backends
    await appended(one, several(A, 0, 2))
    wrong, right = request({A: 0}, A), request({A: 2}, A)
    built_on_it = request({A: 0, B: 0}, A, expected={A: 1, B: 0})
    verdicts, refused = await appended(other, wrong, built_on_it, right)
    assert verdicts == [-1, -1, 3]
    assert refused is not None
    assert dict(refused.versions) == {A: 2, B: 0}
    assert [row.version for row in refused.rows[A]] == [1, 2]


async def test_more_rows_than_a_bound_are_left_out(backends: tuple[Backend, Backend]) -> None:
    one, other = backends
    large = b'{"amount":1,"note":"' + b"x" * (REFUSED_BYTES // 2) + b'"}'
    await appended(one, several(A, 0, REFUSED_ROWS + 1), several(B, 0, 3, large), several(C, 0, 2), several(D, 0, 1, large))
    _, refused = await appended(other, *(request({stream: 0}, stream) for stream in (A, B, C)))
    assert refused is not None
    assert dict(refused.versions) == {A: REFUSED_ROWS + 1, B: 3, C: 2}
    assert refused.rows.keys() <= {C}
    _, refused = await appended(other, *(request({stream: 0}, stream) for stream in (A, C, D)))
    assert refused is not None
    assert {stream: len(rows) for stream, rows in refused.rows.items()} == {C: 2, D: 1}


async def test_a_stream_with_a_stored_state_is_left_out_unless_its_first_events_are_known(
    backends: tuple[Backend, Backend],
) -> None:
    one, other = backends
    await appended(one, several(A, 0, 3))
    row = (await everything(one))[1]
    await one.log.save_snapshots({A: Snapshot(StateKey("State", 1), 2, row.event_id, 0, b"{}")})
    _, refused = await appended(other, request({A: 0}, A))
    assert refused is not None
    assert (dict(refused.versions), dict(refused.rows)) == ({A: 3}, {})
    _, refused = await appended(other, request({A: 2}, A))
    assert refused is not None
    assert [row.version for row in refused.rows[A]] == [3]


async def test_independent_requests_are_judged_as_one_after_the_other(backends: tuple[Backend, Backend]) -> None:
    one, other = backends
    choose = random.Random(5)
    now: dict[StreamId, int] = {}
    position = 0
    for _ in range(25):
        requests: list[AppendRequest] = []
        streams = [StreamId(f"s-{number}") for number in range(24)]
        choose.shuffle(streams)
        while streams:
            mine = [streams.pop() for _ in range(min(len(streams), choose.randint(1, 3)))]
            read: Mapping[StreamId, int] = {stream: now.get(stream, 0) + (choose.random() < 0.15) for stream in mine}
            requests.append(request(read, *choose.choices(mine, k=choose.randint(0, 3))))
        began = {stream: now.get(stream, 0) for stream in base_versions(requests)}
        accepted = judge(requests, began)
        expected = []
        for asked, wins in zip(requests, accepted, strict=True):
            expected.append((position + 1 if asked.events else 0) if wins else -1)
            for new in asked.events if wins else ():
                now[new.recorded.stream_id] = new.recorded.version
                position += 1
        verdicts, refused = await appended(choose.choice([one, other]), *requests)
        assert verdicts == expected
        assert (refused is None) == all(accepted)
        if refused is not None:
            assert dict(refused.versions) == began
    assert [row.position for row in await everything(one)] == list(range(1, position + 1))
