from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventcore import Event, EventStore, open_store
from eventcore.errors import InvalidInput, InvalidPattern, InvalidStreamId, ProjectionTimeout
from tests.projections.models import Seen
from tests.store.bank import Deposit, Deposited, Withdrawn, account


async def test_wrong_arguments_are_refused(store: EventStore) -> None:
    with pytest.raises(InvalidPattern):
        [event async for event in store.read_all(pattern="[")]
    with pytest.raises(InvalidStreamId):
        [event async for event in store.read("a b")]  # type: ignore[call-overload]  # that is the point


@pytest.mark.parametrize("value", [-1, 2**63, 2**64, -(2**63), "1", 1.0, None])
async def test_positions_and_numbers_that_no_store_can_have_are_refused_alike(store: EventStore, value: Any) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "after": lambda: anext(store.read_all(after=value)),
        "after_version": lambda: anext(store.read(account("a"), after_version=value)),
        "position": lambda: store.wait_for("projection", value, timeout=0.01),
    }
    if value is not None:
        calls["limit"] = lambda: anext(store.read_all(limit=value))
        calls[" limit"] = lambda: anext(store.read(account("a"), limit=value))
    calls["  limit"] = lambda: store.dead_letters("projection", limit=value)
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name.strip()}={value!r}; expected an int from 0 to 9223372036854775807"):
            await call()


async def test_the_largest_position_is_a_position_on_every_store(store: EventStore) -> None:
    await store.execute(Deposit(account=account("a")))
    largest = 2**63 - 1
    assert [event async for event in store.read_all(after=largest)] == []
    assert [event async for event in store.read(account("a"), after_version=largest)] == []
    assert len([event async for event in store.read_all(limit=largest)]) == 1
    assert len([event async for event in store.read(account("a"), limit=largest)]) == 1
    assert list(await store.dead_letters(Seen(), limit=largest)) == []
    with pytest.raises(ProjectionTimeout):
        await store.wait_for("projection", largest, timeout=0)


class NoEvent:
    event_type = "bank.Deposited"


@pytest.mark.parametrize("kinds", ["bank.Deposited", Deposited, 7, [7], [None], [""], [Event], [int], [NoEvent], ["a b"]])
async def test_event_types_are_a_collection_of_classes_or_texts(store: EventStore, kinds: Any) -> None:
    with pytest.raises(ValueError, match=r"event_types .*; expected .*event classes or stored types"):
        [event async for event in store.read_all(event_types=kinds)]


async def test_event_types_may_be_any_collection(store: EventStore) -> None:
    await store.execute(Deposit(account=account("a")))
    collections: list[Any] = [{"bank.Deposited"}, (Deposited,), iter([Withdrawn, Deposited]), {Deposited: 1}]
    for kinds in collections:
        assert len([event async for event in store.read_all(event_types=kinds)]) == 1


async def test_a_type_that_no_class_has_is_refused_with_the_nearest_one(store: EventStore) -> None:
    await store.execute(Deposit(account=account("a")))
    with pytest.raises(InvalidInput, match=r"'bank\.Deposit'.* no event class .*; did you mean 'bank\.Deposited'\?") as caught:
        [event async for event in store.read_all(event_types=[Deposited, "bank.Deposit"])]
    assert 'unknown="raw"' in str(caught.value)
    # Such an event may come: it is given as plain values.
    assert [event async for event in store.read_all(event_types=["bank.Deposit"], unknown="raw")] == []


@pytest.mark.parametrize("pattern", ["account 7", "account-*\n", "a\0", "\ud800*"])
async def test_a_pattern_with_a_character_that_no_stream_id_has_is_refused(store: EventStore, pattern: str) -> None:
    with pytest.raises(InvalidPattern, match="no stream id has"):
        [event async for event in store.read_all(pattern=pattern)]


@pytest.mark.parametrize("timeout", [-1, 0, -0.0, float("nan"), float("-inf"), "5"])
async def test_a_timeout_is_a_number_of_seconds_above_0(store: EventStore, timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout=.*; expected seconds, more than 0"):
        await store.execute(Deposit(account=account("a")), timeout=timeout)
    with pytest.raises(ValueError, match=r"timeout=.*; expected seconds, more than 0"):
        open_store("memory:", timeout=timeout)
    if timeout != 0:
        with pytest.raises(ValueError, match=r"timeout=.*; expected seconds, 0 or more"):
            await store.wait_for("projection", 1, timeout=timeout)
    assert await store.head_position() == 0
