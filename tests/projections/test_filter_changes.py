"""A filter may become narrower under the same name and version. One that becomes wider is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from eventcore import EventStore, Projection, RecordedEvent
from eventcore.errors import InvalidProjection
from tests.projections.models import deposit


class Filtered(Projection):
    name = "filtered"

    def __init__(self, pattern: str | None = None, event_types: Sequence[str] | None = None, version: int = 1) -> None:
        self.pattern, self.event_types, self.version = pattern, event_types, version
        self.seen: list[int] = []

    def handle(self, event: RecordedEvent) -> None:
        self.seen.append(event.position)


ONE = ("bank.Deposited",)
TWO = ("bank.Deposited", "bank.Withdrawn")


async def ran(store: EventStore, projection: Projection) -> None:
    running = asyncio.create_task(store.run(projection))
    await store.wait_for(projection, await store.head_position(), timeout=10)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"event_types": ONE}, {"event_types": TWO}, id="one more type"),
        pytest.param({"event_types": ONE}, {}, id="every type"),
        pytest.param({"pattern": "account-[ab]"}, {}, id="every stream"),
        pytest.param({"pattern": "account-[ab]"}, {"pattern": "account-*"}, id="another pattern"),
    ],
)
async def test_a_filter_that_gets_more_is_refused_with_advice(
    store: EventStore, before: dict[str, Any], after: dict[str, Any]
) -> None:
    await deposit(store, 2)
    await ran(store, Filtered(**before))
    with pytest.raises(InvalidProjection, match=r"would now get more.* give the class a new version"):
        async with asyncio.timeout(10):
            await store.run(Filtered(**after))
    [record] = await store.projections()
    assert record.owner == "", "the lease is free again"
    fresh = Filtered(**after, version=2)
    await ran(store, fresh)
    assert fresh.seen == [1, 2]
    await store.reset_projection("filtered")
    again = Filtered(**after)
    await ran(store, again)
    assert again.seen == [1, 2]


async def test_a_filter_may_become_narrower_and_then_no_wider_again(store: EventStore) -> None:
    await deposit(store, 1)
    await ran(store, Filtered(event_types=TWO))
    narrower = Filtered(pattern="account-*", event_types=ONE)
    await deposit(store, 1)
    await ran(store, narrower)
    assert narrower.seen == [2]
    with pytest.raises(InvalidProjection, match="would now get more"):
        await store.run(Filtered(event_types=TWO))
