"""A handler outside of the store's transaction gets the token of the lease, and no event after the lease's end."""

from __future__ import annotations

import asyncio
import time

import pytest

from eventcore import EventStore, OnError, Projection, RecordedEvent
from tests.projections.conftest import Run
from tests.projections.models import Seen, deposit


class Fenced(Projection):
    name = "seen"
    on_error = OnError(retries=0, then="dead_letter")

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.poison = 0

    def handle(self, event: RecordedEvent, fence: int) -> None:
        if event.position == self.poison:
            raise ValueError("poison")
        self.seen.append((event.position, fence))


async def test_a_handler_gets_the_token_of_each_lease_as_its_fence(store: EventStore) -> None:
    fenced = Fenced()
    for turn in range(1, 3):
        running = asyncio.create_task(store.run(fenced))
        await store.wait_for(fenced, await deposit(store, 2))
        [record] = await store.projections()
        assert [fence for _, fence in fenced.seen[-2:]] == [record.token] * 2
        running.cancel()
        await asyncio.wait([running])
        assert len(fenced.seen) == turn * 2
    assert fenced.seen[0][1] < fenced.seen[-1][1]


async def test_a_dead_letter_is_retried_with_the_newest_token(store: EventStore) -> None:
    fenced = Fenced()
    fenced.poison = 1
    running = asyncio.create_task(store.run(fenced))
    await store.wait_for(fenced, await deposit(store, 2))
    running.cancel()
    await asyncio.wait([running])
    fenced.poison = 0
    assert len((await store.retry_dead_letters(fenced)).applied) == 1
    assert fenced.seen[-1] == (1, fenced.seen[0][1])


@pytest.mark.timing
async def test_no_event_is_begun_after_the_lease_is_over_by_the_local_clock(store: EventStore, run: Run) -> None:
    class Blocking(Seen):
        """Blocks the event loop for longer than its lease lasts, as a process does that is stopped."""

        def handle(self, event: RecordedEvent) -> None:
            super().handle(event)
            if len(self.positions) == 1:
                time.sleep(0.4)

    await deposit(store, 5)
    blocking = Blocking()
    run(store, blocking, lease=0.2)
    await store.wait_for(blocking, 5)
    # The second term begins at the first event again or behind it: nothing after it was begun in the first term.
    assert blocking.positions in ([1, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert (await store.projections())[0].token >= 2
