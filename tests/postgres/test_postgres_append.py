"""What one call of the append function decides, alone and beside others."""

from __future__ import annotations

import asyncio

import asyncpg
import msgspec
import pytest

from eventcore.errors import StoreError, StoreUnavailable
from eventcore.stores import CONFLICT, Backend, NewEvent
from tests.postgres.backends import OpenBackend, Server, log, new_event, request


async def test_positions_have_no_gaps_and_follow_the_order_of_requests(backend: Backend) -> None:
    first = await backend.log.append([request({"a": 0}, "a"), request({"b": 0, "c": 0}, "b", "c", "b"), request({"d": 0})])
    second = await backend.log.append([request({"a": 1}, "a")])
    assert (first, second) == ([1, 2, 0], [5])
    assert await log(backend) == [(1, "a", 1), (2, "b", 1), (3, "c", 1), (4, "b", 2), (5, "a", 2)]


async def test_one_that_conflicts_fails_alone(backend: Backend) -> None:
    await backend.log.append([request({"a": 0}, "a", "a")])
    verdicts = await backend.log.append(
        [request({"b": 0}, "b"), request({"a": 1}, "a"), request({"c": 0}, "c", "c"), request({"a": 1})]
    )
    assert verdicts == [3, CONFLICT, 4, CONFLICT]
    assert await log(backend) == [(1, "a", 1), (2, "a", 2), (3, "b", 1), (4, "c", 1), (5, "c", 2)]


async def test_a_stream_that_is_only_read_is_checked(backend: Backend) -> None:
    await backend.log.append([request({"a": 0}, "a")])
    assert await backend.log.append([request({"a": 0, "b": 0}, "b"), request({"a": 1, "b": 0}, "b")]) == [CONFLICT, 2]


async def test_a_chain_is_accepted_when_its_base_holds(backend: Backend) -> None:
    chain = [request({"hot": version}, "hot", base={"hot": 0}) for version in range(5)]
    assert await backend.log.append(chain) == [1, 2, 3, 4, 5]


async def test_a_chain_is_refused_from_the_link_that_fails(backend: Backend) -> None:
    chain = [
        request({"hot": 0, "other": 0}, "hot", base={"hot": 0, "other": 0}),
        request({"hot": 1, "other": 1}, "hot", base={"hot": 0, "other": 1}),
        request({"hot": 2, "other": 0}, "hot", base={"hot": 0, "other": 0}),
        request({"hot": 1, "other": 0}, "other", base={"hot": 0, "other": 0}),
    ]
    assert await backend.log.append(chain) == [1, CONFLICT, CONFLICT, 2]


async def test_another_writers_event_does_not_pass_for_that_of_a_refused_predecessor(backend: Backend) -> None:
    await backend.log.append([request({"a": 0}, "a")])
    assert await backend.log.append([request({"a": 0}, "a"), request({"a": 1}, "a", base={"a": 0})]) == [CONFLICT, CONFLICT]


async def test_one_that_ignores_its_predecessor_is_refused(backend: Backend) -> None:
    assert await backend.log.append([request({"a": 0}, "a"), request({"a": 0}, "a"), request({"a": 0})]) == [
        1,
        CONFLICT,
        CONFLICT,
    ]


async def test_requests_that_disagree_on_the_base_are_judged_singly(backend: Backend) -> None:
    await backend.log.append([request({"a": 0}, "a")])
    assert await backend.log.append([request({"a": 0}, "a"), request({"a": 1}, "a"), request({"b": 0}, "b")]) == [
        CONFLICT,
        2,
        3,
    ]


async def test_a_stream_that_was_not_read_can_be_written_at_its_next_version(backend: Backend) -> None:
    assert await backend.log.append([request({"a": 0}, events=[new_event("b", 1)])]) == [1]
    with pytest.raises(StoreError, match="events_by_stream"):
        await backend.log.append([request({"a": 0}, events=[new_event("b", 1)]), request({"a": 0, "c": 1})])
    assert await log(backend) == [(1, "b", 1)]


async def test_five_hundred_requests_of_one_call_get_a_verdict_each(backend: Backend) -> None:
    await backend.log.append([request({f"s-{number}": 0}, f"s-{number}") for number in range(0, 512, 2)])
    verdicts = await backend.log.append([request({f"s-{number}": 0}, f"s-{number}", f"s-{number}") for number in range(512)])
    accepted = [verdict for verdict in verdicts if verdict != CONFLICT]
    assert verdicts[0::2] == [CONFLICT] * 256
    assert accepted == list(range(257, 769, 2))
    assert [position for position, _, _ in await log(backend)] == list(range(1, 769))


async def test_of_two_backends_that_append_at_once_one_wins_each_version(
    backend: Backend, url: str, open_backend: OpenBackend
) -> None:
    other = await open_backend(url)
    wins = 0

    async def write(one: Backend) -> None:
        nonlocal wins
        for version in range(60):
            [verdict] = await one.log.append([request({"hot": version}, "hot")])
            wins += verdict != CONFLICT

    await asyncio.gather(write(backend), write(other))
    assert wins == 60
    assert await log(backend) == [(version, "hot", version) for version in range(1, 61)]


async def test_what_cannot_be_written_is_refused_at_once_and_has_not_happened(backend: Backend) -> None:
    new = new_event("a", 1)
    broken = NewEvent(msgspec.structs.replace(new.recorded, recorded_at_ns=1 << 70), new.data, new.metadata)
    with pytest.raises(StoreError, match="cannot be written") as refusal:
        await backend.log.append([request({"b": 0}, "b"), request({"a": 0}, events=[broken])])
    assert not isinstance(refusal.value, StoreUnavailable)
    assert await log(backend) == []


async def test_appending_under_another_isolation_level_is_refused(url: str, backend: Backend) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            empty = ", '{}'" * 13
            with pytest.raises(asyncpg.InvalidTransactionStateError, match="must not be called under repeatable read"):
                await connection.fetch(f"SELECT eventcore.append_events(false, 1, '{{}}', '{{}}', true{empty}, 0, '')")
    finally:
        await connection.close()


async def test_the_functions_go_by_the_indexes_whatever_the_statistics_say(
    server: Server, backend: Backend, database: str
) -> None:
    await backend.log.append([request({"a": 0}, "a")])
    server.sql("VACUUM ANALYZE eventcore.events", database)
    server.sql("SELECT pg_stat_reset()", database)
    for turn in range(3):
        await backend.log.append([request({f"s-{n}-{turn}": 0}, f"s-{n}-{turn}") for n in range(100)])
        await backend.log.read_streams({})
    await backend.close(5)
    server.sql("SELECT pg_stat_force_next_flush()", database)
    assert server.sql("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'events'", database) == "0"
