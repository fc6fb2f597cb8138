"""A projection gets every event that its filter selects once, in order, from its checkpoint on, and then new events."""

from __future__ import annotations

import asyncio
import time

import pytest

from eventcore import EventStore, Projection, RecordedEvent, open_store
from eventcore.errors import LeadershipLost, ProjectionTimeout, StoreClosed
from tests.projections.conftest import Run
from tests.projections.models import Seen, SeenAsync, SeenTogether, SeenTogetherAsync, deposit, until
from tests.store.bank import Deposit, Deposited, Link, Transfer, account
from tests.store.conftest import Measured


async def test_existing_and_new_events_come_in_order(store: EventStore, run: Run) -> None:
    await deposit(store, 5)
    seen = Seen()
    run(store, seen)
    await store.wait_for(seen, 5)
    head = await deposit(store, 20)
    await store.wait_for("seen", head)
    assert seen.positions == list(range(1, 26))


@pytest.mark.parametrize("kind", [SeenAsync, SeenTogether, SeenTogetherAsync])
async def test_every_form_of_handler_gets_every_event(
    store: EventStore, run: Run, kind: type[SeenAsync | SeenTogether]
) -> None:
    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(1200)))
    seen = kind()
    run(store, seen)
    await store.wait_for(seen, 1200)
    head = await deposit(store, 3)
    await store.wait_for(seen, head)
    assert seen.inner.positions == list(range(1, 1204))


async def test_a_stopped_projection_continues_behind_its_last_event(store: EventStore, run: Run) -> None:
    first, second = Seen(), Seen()
    head = await deposit(store, 4)
    task = run(store, first)
    await store.wait_for(first, head)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    head = await deposit(store, 3)
    run(store, second)
    await store.wait_for(second, head)
    assert (first.positions, second.positions) == ([1, 2, 3, 4], [5, 6, 7])


async def test_a_filter_selects_events_and_the_position_includes_the_others(store: EventStore, run: Run) -> None:
    class Deposits(Seen):
        name = "deposits"
        pattern = "account-[ab]"
        event_types = (Deposited,)

    deposits = Deposits()
    run(store, deposits)
    await deposit(store, 2, "a")
    await deposit(store, 2, "c")
    await store.execute(Link(account=account("b"), to=account("c")))
    await store.execute(Transfer(source=account("a"), target=account("b"), amount=1))
    head = await deposit(store, 2, "c")
    await store.wait_for(deposits, head)
    assert deposits.positions == [1, 2, 7]
    record = await checkpoint(store, "deposits", head)
    assert record == head


async def checkpoint(store: EventStore, name: str, position: int) -> int:
    """Wait until the checkpoint in the store is at least ``position``, and return it."""
    found = -1
    deadline = time.monotonic() + 5
    while found < position and time.monotonic() < deadline:
        [found] = [record.checkpoint.position for record in await store.projections() if record.name == name]
        await asyncio.sleep(0.01)
    return found


async def test_a_filter_that_matches_nothing_reaches_the_end_of_a_long_log(store: EventStore, run: Run) -> None:
    class Nothing(Seen):
        name = "nothing"
        pattern = "nobody-*"

    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(15_000)))
    nothing = Nothing()
    run(store, nothing)
    await store.wait_for(nothing, 15_000)
    assert nothing.positions == []
    assert await checkpoint(store, "nothing", 15_000) == 15_000


async def test_a_new_version_is_built_from_the_first_event_beside_the_old_one(store: EventStore, run: Run) -> None:
    class Newer(Seen):
        version = 2

    old, new = Seen(), Newer()
    run(store, old)
    await store.wait_for(old, await deposit(store, 4))
    run(store, new)
    head = await deposit(store, 2)
    await store.wait_for(new, head)
    await store.wait_for("seen@2", head)
    await store.wait_for(old, head)
    assert (old.positions, new.positions) == (list(range(1, 7)), list(range(1, 7)))
    assert [record.name for record in await store.projections()] == ["seen", "seen@2"]


async def test_a_projection_begins_again_after_a_reset(store: EventStore, run: Run) -> None:
    first, again = Seen(), Seen()
    head = await deposit(store, 3)
    task = run(store, first)
    await store.wait_for(first, head)
    task.cancel()
    await asyncio.wait([task])
    await store.reset_projection(first)
    run(store, again)
    await store.wait_for(again, head)
    assert again.positions == [1, 2, 3]


async def test_a_running_projection_cannot_be_reset(store: EventStore, run: Run) -> None:
    seen = Seen()
    run(store, seen)
    await store.wait_for(seen, 0)
    with pytest.raises(LeadershipLost, match="projection 'seen' is running"):
        await store.reset_projection("seen")


# Waiting


async def test_after_wait_for_the_read_model_has_the_callers_event(store: EventStore, run: Run) -> None:
    seen = Seen()
    run(store, seen)
    for _ in range(50):
        result = await store.execute(Deposit(account=account("a")))
        await store.wait_for(seen, result.position)
        assert seen.positions[-1] == result.position


async def test_a_projection_that_another_store_runs_can_be_waited_for(sqlite_url: str, run: Run) -> None:
    async with open_store(sqlite_url, exporters=[]) as writer, open_store(sqlite_url, exporters=[]) as reader:
        seen = Seen()
        run(reader, seen)
        for _ in range(5):
            head = await deposit(writer, 2)
            await writer.wait_for("seen", head, timeout=5)
            assert seen.positions[-1] == head


async def test_a_timeout_of_wait_for_says_how_far_the_projection_is(store: EventStore, run: Run) -> None:
    with pytest.raises(ProjectionTimeout, match=r"'seen' has not reached position 1 within 0\.05 s: it has never run"):
        await store.wait_for("seen", 1, timeout=0.05)
    seen = Seen()
    run(store, seen)
    await store.wait_for(seen, await deposit(store, 3))
    with pytest.raises(TimeoutError, match=r"has not reached position 4 within 0\.05 s: it is at 3"):
        await store.wait_for(seen, 4, timeout=0.05)


# Stopping


async def test_closing_the_store_ends_its_projections_without_an_error(url: str) -> None:
    seen = Seen()
    async with open_store(url, exporters=[]) as store:
        running = asyncio.create_task(store.run(seen))
        await store.wait_for(seen, await deposit(store, 3))
    await asyncio.wait_for(running, 5)
    with pytest.raises(StoreClosed):
        await store.run(seen)


async def test_events_applied_before_a_clean_stop_are_not_applied_again(sqlite_url: str) -> None:
    first, second = Seen(), Seen()
    for seen in (first, second):
        async with open_store(sqlite_url, exporters=[]) as store:
            running = asyncio.create_task(store.run(seen))
            await store.wait_for(seen, await deposit(store, 7))
        await running
    assert (first.positions, second.positions) == (list(range(1, 8)), list(range(8, 15)))


# The event loop


async def test_other_tasks_run_between_the_calls_of_a_slow_handler(store: EventStore, run: Run) -> None:
    class Slow(Seen):
        name = "slow"

        def handle(self, event: RecordedEvent) -> None:
            super().handle(event)
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass

    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(300)))
    slow = Slow()
    run(store, slow)
    turns = 0
    while len(slow.positions) < 300:
        turns += 1
        await asyncio.sleep(0)
    assert turns > 100


async def test_a_slow_batch_commits_before_its_end(store: EventStore, run: Run, measured: Measured) -> None:
    class Slow(Projection):
        name = "slow"

        def __init__(self) -> None:
            self.go_on = asyncio.Event()

        async def handle(self, event: RecordedEvent) -> None:
            if event.position == 2:
                await asyncio.sleep(1.1)
            if event.position == 3:
                await self.go_on.wait()

    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(50)))
    slow = Slow()
    run(store, slow)
    await store.wait_for(slow, 2)
    await until(lambda: measured("projections.position", projection="slow") == 2)
    slow.go_on.set()
    await store.wait_for(slow, 50)


@pytest.mark.parametrize("turns", range(4))
async def test_a_runner_that_is_stopped_when_a_timeout_expires_ends_at_once(
    turns: int, store: EventStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = store._backend.log
    wait_beyond, raced = log.wait_beyond, asyncio.Event()

    async def racing(position: int, timeout: float) -> int:
        if not raced.is_set():
            raced.set()
            running.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            try:
                # An expired timeout cancels its own task for a moment.
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                pass
        return await wait_beyond(position, timeout)

    monkeypatch.setattr(log, "wait_beyond", racing)
    running = asyncio.create_task(store.run(Seen()))
    await asyncio.wait([running], timeout=30)
    assert raced.is_set()
    assert running.cancelled()
    assert "left alone" not in caplog.text
