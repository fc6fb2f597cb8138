"""What every backend must do: judge the requests of a call in order, keep positions dense, read one snapshot."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping

import pytest

from eventcore import StreamId
from eventcore.codec import Codec
from eventcore.events import EventMetadata, RecordedEvent
from eventcore.stores import CONFLICT, AppendRequest, Backend, EventFilter, NewEvent, backend_from_url
from tests.store.bank import Deposited, account

A, B, C = account("a"), account("b"), account("c")


def new(stream: StreamId, version: int, amount: int = 1) -> NewEvent:
    data, event = Codec().encode(Deposited(amount=amount))
    recorded = RecordedEvent(stream, version, 0, event, EventMetadata(), f"{version:032x}", "bank.Deposited", 1)
    return NewEvent(recorded, data, b"{}")


def request(base: Mapping[StreamId, int], *streams: StreamId, expected: Mapping[StreamId, int] | None = None) -> AppendRequest:
    """Appends one event to each of ``streams``."""
    versions = dict(expected or base)
    before = dict(versions)
    events = []
    for stream in streams:
        versions[stream] += 1
        events.append(new(stream, versions[stream]))
    return AppendRequest(base, before, events)


@pytest.fixture
async def backend(url: str) -> AsyncIterator[Backend]:
    backend = backend_from_url(url)
    await backend.open()
    yield backend
    await backend.close(5.0)


async def stored(backend: Backend) -> list[tuple[int, str, int]]:
    rows = await backend.scan(0, 10_000, 10_000, EventFilter())
    return [(row.position, row.stream_id, row.version) for row in rows]


async def test_requests_that_do_not_meet_are_all_accepted(backend: Backend) -> None:
    verdicts = await backend.append([request({A: 0}, A, A), request({B: 0, C: 0}, B), request({C: 0}, C)])
    assert verdicts == [1, 3, 4]
    assert await stored(backend) == [(1, A, 1), (2, A, 2), (3, B, 1), (4, C, 1)]
    assert await backend.head_position() == 4


async def test_a_chain_is_accepted_in_order(backend: Backend) -> None:
    chain = [request({A: 0}, A), request({A: 0}, A, expected={A: 1}), request({A: 0, B: 0}, B, A, expected={A: 2, B: 0})]
    assert await backend.append(chain) == [1, 2, 3]
    assert await stored(backend) == [(1, A, 1), (2, A, 2), (3, B, 1), (4, A, 3)]


async def test_one_conflict_refuses_one_request_and_leaves_no_gap(backend: Backend) -> None:
    await backend.append([request({A: 0}, A)])
    verdicts = await backend.append([request({B: 0}, B), request({A: 0, C: 0}, C), request({A: 1}, A)])
    assert verdicts == [2, CONFLICT, 3]
    assert await stored(backend) == [(1, A, 1), (2, B, 1), (3, A, 2)]


async def test_a_stream_that_is_only_read_is_checked(backend: Backend) -> None:
    await backend.append([request({A: 0}, A)])
    assert await backend.append([request({A: 0, B: 0}, B)]) == [CONFLICT]
    assert await backend.append([request({A: 1, B: 0}, B)]) == [2]


async def test_a_refused_predecessor_refuses_the_chain_that_builds_on_it(backend: Backend) -> None:
    await backend.append([request({B: 0}, B)])
    verdicts = await backend.append(
        [request({A: 0, B: 0}, A), request({A: 0}, A, expected={A: 1}), request({A: 0}, A, expected={A: 2}), request({C: 0}, C)]
    )
    assert verdicts == [CONFLICT, CONFLICT, CONFLICT, 2]


async def test_an_event_of_elsewhere_does_not_stand_in_for_a_refused_predecessor(backend: Backend) -> None:
    await backend.append([request({A: 0}, A)])
    # The second expects version 1, which is there; but it is not the event that it has seen.
    assert await backend.append([request({A: 0}, A), request({A: 0}, A, expected={A: 1})]) == [CONFLICT, CONFLICT]
    assert await backend.append([request({A: 0}, A, expected={A: 1}), request({A: 1}, A)]) == [CONFLICT, 2]


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_a_request_without_events_is_only_checked(backend: Backend, version: int) -> None:
    await backend.append([request({A: 0}, A)])
    verdict = 0 if version == 1 else CONFLICT
    assert await backend.append([request({A: version})]) == [verdict]
    assert await backend.append([request({A: version}), request({B: 0}, B), request({B: 0}, expected={B: 1})]) == [
        verdict,
        2,
        0,
    ]
    assert await backend.append([request({A: 1}), request({A: version, B: 1})]) == [0, verdict]
    assert await backend.head_position() == 2


async def test_any_mixture_of_requests_keeps_positions_dense_and_versions_whole(backend: Backend) -> None:
    choice = random.Random(11)
    versions = dict.fromkeys((A, B, C), 0)
    expected_log: list[tuple[str, int]] = []
    for _ in range(150):
        began, requests, verdicts = dict(versions), [], []
        for _ in range(choice.randint(1, 6)):
            streams = choice.sample([A, B, C], choice.randint(1, 3))
            wrong = choice.random() < 0.3
            base = {stream: began[stream] + (choice.choice([-1, 0, 1]) if wrong else 0) for stream in streams}
            expected = {stream: versions[stream] for stream in streams}
            written = choice.sample(streams, choice.randint(0, len(streams)))
            requests.append(request(base, *written, expected=expected))
            verdicts.append(all(base[stream] == began[stream] for stream in streams))
            if verdicts[-1]:
                for stream in written:
                    versions[stream] += 1
                    expected_log.append((stream, versions[stream]))
        answered = await backend.append(requests)
        assert [verdict != CONFLICT for verdict in answered] == verdicts
    assert await stored(backend) == [(position, *event) for position, event in enumerate(expected_log, 1)]
    assert len(expected_log) > 200


async def test_a_page_is_of_one_snapshot_and_says_which(backend: Backend) -> None:
    await backend.append([request({A: 0, B: 0}, A, B, A, B, A)])
    page = await backend.read_streams({A: 1, B: 0, C: 0})
    assert {stream: [row.version for row in rows] for stream, rows in page.rows.items()} == {A: [2, 3], B: [1, 2], C: []}
    assert page.head == 5
    page = await backend.read_streams({A: 0, B: 0}, up_to=3)
    assert {stream: [row.position for row in rows] for stream, rows in page.rows.items()} == {A: [1, 3], B: [2]}


async def test_a_long_stream_comes_in_pages(backend: Backend) -> None:
    await backend.append([request({A: 0}, *[A] * 1234)])
    versions: list[int] = []
    while True:
        page = await backend.read_streams({A: len(versions)})
        versions += [row.version for row in page.rows[A]]
        assert len(page.rows[A]) <= page.limit <= 500
        if len(page.rows[A]) < page.limit:
            break
    assert versions == list(range(1, 1235))
