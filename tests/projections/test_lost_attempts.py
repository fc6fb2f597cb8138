"""Attempts at an event that never came back, since their process ended: counted before the handler runs, and given up."""

from __future__ import annotations

import pytest

from eventcore import EventStore, OnError, Telemetry
from eventcore.errors import ProjectionFailed, StoreUnavailable
from eventcore.stores import RunState
from tests.projections.conftest import Run
from tests.projections.models import Seen, deposit, until
from tests.store.backends import SteeredBackend
from tests.store.conftest import Measured

LOST = "the process ended while the handler ran, in each of 3 attempts"


async def abandon(store: EventStore, position: int, attempts: int) -> None:
    """Leave the store as processes do that have ended at the event at ``position``."""
    ledger = store._backend.ledger
    lease = await ledger.acquire_lease("seen", "elsewhere", 0.05)
    assert lease is not None
    await ledger.save_run_state(lease, RunState("", position, attempts))


async def state(store: EventStore) -> RunState:
    """The run state that is stored now. The lease must be free."""
    lease = await store._backend.ledger.acquire_lease("seen", "reader", 5)
    assert lease is not None
    await store._backend.ledger.release_lease(lease)
    return lease.state


async def test_an_event_that_has_ended_its_process_too_often_is_given_up_without_another_try(
    store: EventStore, run: Run
) -> None:
    await deposit(store, 4)
    await abandon(store, 2, 3)
    seen = Seen()
    seen.on_error = OnError(retries=0, then="dead_letter")
    run(store, seen, lease=0.5)
    await store.wait_for(seen, 4)
    assert seen.positions == [1, 3, 4]
    [letter] = await store.dead_letters(seen)
    assert (letter.position, letter.error_type, letter.error, letter.attempts) == (2, "ProcessEnded", LOST, 3)


async def test_lost_attempts_count_as_tries_and_an_event_that_succeeds_is_applied(store: EventStore, run: Run) -> None:
    await deposit(store, 3)
    await abandon(store, 2, 2)
    seen = Seen()
    seen.on_error = OnError(retries=3, base_delay=0, max_delay=0, then="dead_letter")
    seen.poison = {2}
    run(store, seen, lease=0.5)
    await store.wait_for(seen, 3)
    [letter] = await store.dead_letters(seen)
    assert letter.attempts == 4
    assert seen.tried == [1, 2, 2, 3], "two of the four tries were lost elsewhere"


async def test_an_attempt_is_stored_before_the_handler_runs(store: EventStore, run: Run) -> None:
    await deposit(store, 2)
    await abandon(store, 0, 0)
    seen = Seen()
    seen.on_error = OnError(retries=0, then="stop")
    seen.poison = {2}
    with pytest.raises(ProjectionFailed):
        await store.run(seen, lease=0.5)
    found = await state(store)
    assert (found.attempt_position, found.attempts) == (2, 1)


async def test_a_projection_that_was_stopped_for_lost_attempts_tries_again_when_it_is_started(store: EventStore) -> None:
    await deposit(store, 2)
    await abandon(store, 2, 3)
    seen = Seen()
    seen.on_error = OnError(retries=0, then="stop")
    with pytest.raises(ProjectionFailed, match=LOST):
        await store.run(seen, lease=0.5)
    assert seen.positions == [1]
    found = await state(store)
    assert (found.attempt_position, found.attempts) == (2, 0)


class Deaf(SteeredBackend):
    """Can never tell when events come."""

    async def wait_beyond(self, position: int, timeout: float) -> int:
        raise StoreUnavailable("no connection is free for notifications")


async def test_a_projection_polls_when_the_store_cannot_tell_that_events_come(
    telemetry: Telemetry, run: Run, measured: Measured
) -> None:
    deaf = Deaf()
    async with deaf.store(telemetry) as store:
        seen = Seen()
        run(store, seen)
        for _ in range(3):
            await store.wait_for(seen, await deposit(store, 1))
        await until(lambda: measured("projections.state", projection="seen", state="running") == 1)
        [record] = await store.projections()
    assert seen.positions == [1, 2, 3]
    assert record.token == 1, "its term has not ended"
