"""An event that cannot be applied is tried again, and then the policy decides."""

from __future__ import annotations

import asyncio
import sqlite3
import traceback
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path

import pytest

from eventcore import EventStore, OnError, Projection, RecordedEvent, Telemetry, open_store
from eventcore.errors import CorruptEvent, ProjectionFailed, UnknownEventType
from tests.projections.conftest import Run
from tests.projections.models import Seen, SeenTogether, Table, deposit
from tests.store.bank import Deposit, account
from tests.store.conftest import Measured


def policy(then: str, retries: int = 2) -> OnError:
    return OnError(retries=retries, base_delay=0.001, max_delay=0.002, then=then)  # type: ignore[arg-type]  # a parameter


async def test_an_event_that_succeeds_after_retries_is_applied_once(store: EventStore, run: Run, measured: Measured) -> None:
    class Moody(Seen):
        on_error = policy("stop", retries=5)

        def handle(self, event: RecordedEvent) -> None:
            if event.position == 2 and self.tried.count(2) == 3:
                self.poison.clear()
            super().handle(event)

    moody = Moody()
    moody.poison = {2}
    run(store, moody)
    await store.wait_for(moody, await deposit(store, 4))
    assert moody.positions == [1, 2, 3, 4]
    assert moody.tried.count(2) == 4
    assert measured("projections.retries", projection="seen", error_type="ValueError") == 3
    assert measured("projections.failures", projection="seen", error_type="ValueError") == 3
    assert measured("projections.events", projection="seen", outcome="applied") == 4


async def test_the_policy_stop_raises_with_the_cause_and_the_next_run_begins_at_the_event(
    store: EventStore, run: Run, measured: Measured
) -> None:
    head = await deposit(store, 4)
    seen = Seen()
    seen.poison = {3}
    with pytest.raises(ProjectionFailed, match=r"projection 'seen' cannot apply bank\.Deposited of stream 'account-a' at posi"):
        await store.run(seen)
    with pytest.raises(ProjectionFailed, match="position 3, tried 3 times: ValueError: poison at 3; fix the handler") as failed:
        await store.run(seen)
    assert isinstance(failed.value.__cause__, ValueError)
    assert measured("projections.state", projection="seen", state="failed") == 1
    assert measured("projections.state", projection="seen") == 1
    assert measured("projections.leader", projection="seen") == 0
    assert measured("projections.events", projection="seen", outcome="failed") == 2
    seen.poison.clear()
    run(store, seen)
    await store.wait_for(seen, head)
    assert seen.positions == [1, 2, 3, 4]


async def test_an_exception_that_cannot_be_shown_follows_the_policy_like_any_other(store: EventStore, run: Run) -> None:
    class UnshowableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    class Failing(Seen):
        on_error = policy("dead_letter", retries=0)

        def handle(self, event: RecordedEvent) -> None:
            if event.position == 2:
                raise UnshowableError
            super().handle(event)

    failing = Failing()
    run(store, failing)
    await store.wait_for(failing, await deposit(store, 4))
    assert failing.positions == [1, 3, 4]
    [letter] = await store.dead_letters("seen")
    assert "UnshowableError whose text raises RuntimeError" in letter.error


async def test_the_policy_skip_leaves_the_event_out(store: EventStore, run: Run, measured: Measured) -> None:
    class Skipping(Seen):
        on_error = policy("skip")

    seen = Skipping()
    seen.poison = {1, 3}
    head = await deposit(store, 4)
    run(store, seen)
    await store.wait_for(seen, head)
    assert seen.positions == [2, 4]
    assert measured("projections.events", projection="seen", outcome="skipped") == 2
    assert await store.dead_letters(seen) == []


async def test_dead_letters_are_kept_with_their_error_and_can_be_applied_later(
    store: EventStore, run: Run, measured: Measured
) -> None:
    class Keeping(Seen):
        on_error = policy("dead_letter")

    seen = Keeping()
    seen.poison = {2, 4}
    head = await deposit(store, 5)
    run(store, seen)
    await store.wait_for(seen, head)
    assert seen.positions == [1, 3, 5]
    letters = await store.dead_letters("seen")
    assert [(letter.position, letter.error_type, letter.error, letter.attempts) for letter in letters] == [
        (2, "ValueError", "poison at 2", 3),
        (4, "ValueError", "poison at 4", 3),
    ]
    events = [event async for event in store.read_all()]
    assert [letter.event_id for letter in letters] == [events[1].event_id, events[3].event_id]
    assert measured("projections.dead.letters", projection="seen") == 2
    assert measured("projections.events", projection="seen", outcome="failed") == 2
    [record] = await store.projections()
    assert record.dead_letters == 2
    seen.poison = {4}
    retried = await store.retry_dead_letters(seen)
    assert [letter.position for letter in retried.applied] == [2]
    assert [(letter.position, letter.attempts) for letter in retried.remaining] == [(4, 4)]
    assert seen.positions == [1, 3, 5, 2]
    assert [letter.position for letter in await store.dead_letters(seen)] == [4]
    assert await store.dead_letters(seen, limit=0) == []


async def test_in_a_batch_only_the_event_at_fault_becomes_a_dead_letter(store: EventStore, run: Run) -> None:
    class Keeping(SeenTogether):
        on_error = policy("dead_letter", retries=1)

    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(90)))
    seen = Keeping()
    seen.inner.poison = {17, 80}
    run(store, seen)
    await store.wait_for(seen, 90)
    assert seen.inner.positions == [position for position in range(1, 91) if position not in (17, 80)]
    assert [letter.position for letter in await store.dead_letters(seen)] == [17, 80]


@pytest.mark.parametrize("then", ["skip", "dead_letter"])
async def test_in_a_transaction_only_the_event_at_fault_is_left_out(sqlite_url: str, run: Run, then: str) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(40)))
        table = Table()
        table.on_error = policy(then, retries=1)
        table.poison = {1, 23}
        run(store, table)
        await store.wait_for(table, 40)
        assert [letter.position for letter in await store.dead_letters(table)] == ([1, 23] if then == "dead_letter" else [])
        table.poison = {23}
        if then == "dead_letter":
            assert [letter.position for letter in (await store.retry_dead_letters(table)).applied] == [1]
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
        found = [position for (position,) in database.execute("SELECT position FROM seen ORDER BY position")]
    missing = {23} if then == "dead_letter" else {1, 23}
    assert found == [position for position in range(1, 41) if position not in missing]


async def test_a_handler_that_raises_cancelled_error_by_itself_has_failed(store: EventStore) -> None:
    class Giving(Projection):
        name = "giving"
        on_error = policy("stop", retries=0)

        async def handle(self, event: RecordedEvent) -> None:
            raise asyncio.CancelledError

    await deposit(store, 1)
    with pytest.raises(ProjectionFailed, match="tried once: CancelledError"):
        await store.run(Giving())


async def cancelled_by_itself() -> None:
    task = asyncio.create_task(asyncio.sleep(10))
    await asyncio.sleep(0)
    task.cancel()
    await task


def raiser(error: BaseException) -> Callable[[], Coroutine[object, None, None]]:
    async def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("then", "fail"),
    [
        pytest.param("dead_letter", cancelled_by_itself, id="cancelled"),
        pytest.param("stop", cancelled_by_itself, id="cancelled-stop"),
        pytest.param("dead_letter", raiser(GeneratorExit()), id="generator-exit"),
        pytest.param("dead_letter", raiser(BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError()])), id="group"),
    ],
)
async def test_a_handler_with_a_transaction_that_raises_a_cancellation_by_itself_has_failed(
    store: EventStore, url: str, run: Run, then: str, fail: Callable[[], Coroutine[object, None, None]]
) -> None:
    seen: list[int] = []

    class Giving(Projection):
        name = "giving"
        on_error = policy(then, retries=0)

        async def handle(self, event: RecordedEvent, transaction: object) -> None:
            if event.position == 1:
                await fail()
            seen.append(event.position)

    class GivingInThread(Giving):
        def handle(self, event: RecordedEvent, transaction: object) -> None:  # type: ignore[override]  # either is allowed
            if event.position == 1:
                asyncio.run(fail())
            seen.append(event.position)

    giving = GivingInThread() if url.startswith("sqlite") else Giving()
    await deposit(store, 2)
    if then == "stop":
        with pytest.raises(ProjectionFailed, match="position 1, tried once: "):
            await store.run(giving)
        assert seen == []
    else:
        running = run(store, giving)
        await store.wait_for(giving, 2)
        assert not running.done()
        assert seen == [2]
        assert [letter.position for letter in await store.dead_letters(giving)] == [1]


async def test_a_handler_with_a_transaction_that_is_cancelled_from_outside_has_not_failed(store: EventStore, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("a handler in the writer thread cannot be cancelled")
    inside = asyncio.Event()

    class Waiting(Projection):
        name = "waiting"
        on_error = policy("dead_letter", retries=0)

        async def handle(self, event: RecordedEvent, transaction: object) -> None:
            inside.set()
            await asyncio.sleep(60)

    await deposit(store, 1)
    running = asyncio.create_task(store.run(Waiting()))
    await asyncio.wait_for(inside.wait(), 10)
    running.cancel()
    await asyncio.wait([running], timeout=10)
    assert running.cancelled()
    assert await store.dead_letters("waiting") == []


async def test_events_before_one_that_fails_are_not_applied_again(store: EventStore, run: Run) -> None:
    class Skipping(Seen):
        on_error = policy("skip")

    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(80)))
    seen = Skipping()
    seen.poison = {60}
    run(store, seen)
    await store.wait_for(seen, 80)
    assert [position for position in seen.tried if position != 60] == [n for n in range(1, 81) if n != 60]
    # Once in the batch, and two retries.
    assert seen.tried.count(60) == 3


# Events that cannot be decoded


def change(url: str, sql: str) -> None:
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as database:
        database.execute("DROP TRIGGER IF EXISTS events_are_only_redacted")
        database.execute(sql)
        database.commit()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [("event_type = 'bank.Renamed'", UnknownEventType), ("data = '{'", CorruptEvent), ("metadata = '['", CorruptEvent)],
)
async def test_an_event_that_cannot_be_decoded_is_treated_like_one_that_cannot_be_applied(
    sqlite_url: str, run: Run, telemetry: Telemetry, spoil: str, error: type[Exception]
) -> None:
    class Keeping(Seen):
        on_error = policy("dead_letter")

    async with open_store(sqlite_url, telemetry=telemetry) as store:
        await deposit(store, 5)
        change(sqlite_url, f"UPDATE events SET {spoil} WHERE position = 3")
        stopping, keeping = Seen(), Keeping()
        with pytest.raises(ProjectionFailed) as failed:
            await store.run(stopping)
        assert isinstance(failed.value.__cause__, error)
        run(store, keeping)
        await store.wait_for(keeping, 5)
        assert stopping.positions + keeping.positions == [1, 2, 4, 5]
        [letter] = await store.dead_letters(keeping)
        assert (letter.position, letter.error_type) == (3, error.__name__)
        assert "position 3" in letter.error


async def test_an_event_that_cannot_be_decoded_is_ignored_if_the_filter_leaves_it_out(sqlite_url: str, run: Run) -> None:
    class Deposits(Seen):
        event_types = ("bank.Deposited",)

    async with open_store(sqlite_url, exporters=[]) as store:
        await deposit(store, 5)
        change(sqlite_url, "UPDATE events SET event_type = 'bank.Renamed' WHERE position = 3")
        seen = Deposits()
        run(store, seen)
        await store.wait_for(seen, 5)
        assert seen.positions == [1, 2, 4, 5]


async def test_an_error_that_a_handler_raises_again_and_again_does_not_grow(store: EventStore, run: Run) -> None:
    class Constant(Seen):
        on_error = policy("skip", retries=0)
        error = ValueError("always the same")

        def handle(self, event: RecordedEvent) -> None:
            raise self.error

    head = await deposit(store, 30)
    run(store, constant := Constant())
    await store.wait_for(constant, head)
    assert len(list(traceback.walk_tb(constant.error.__traceback__))) < 10
