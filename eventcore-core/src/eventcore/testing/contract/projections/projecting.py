"""Running projections: every event in order, one runner at a time, continued after a stop, with dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, Final, cast

import msgspec
import pytest

from eventcore.errors import HistoryDiverged, ProjectionFailed
from eventcore.events import RawEvent, RecordedEvent
from eventcore.projections import OnError, Projection
from eventcore.store import EventStore
from eventcore.stores import AppendRequest, Backend, Checkpoint, Lease, ProjectionLedger
from eventcore.testing.contract.accounts import Deposit, Link, Linked, account
from eventcore.testing.contract.fixtures import ContractFixtures, MakeBackend, ReadModel, Run, new_event, opened_store

A: Final = account("a")
B: Final = account("b")
_UNKNOWN: Final = "eventcore.testing.unknown"
_AT_ONCE: Final = OnError(retries=1, base_delay=0, max_delay=0, then="dead_letter")


class Seen(Projection):
    """Keeps the positions of its events. Fails at those in ``poison``."""

    name = "contract-seen"
    on_error = _AT_ONCE

    def __init__(self, seen: list[int] | None = None) -> None:
        self.seen = [] if seen is None else seen
        self.poison: set[int] = set()

    def handle(self, event: RecordedEvent) -> None:
        if event.position in self.poison:
            raise ValueError(f"poison at {event.position}")
        self.seen.append(event.position)


class SeenLinks(Seen):
    name = "contract-links"
    pattern = "account-[ab]"
    event_types = (Linked,)


def writing(model: ReadModel, poison: set[int]) -> Projection:
    """A projection that writes its events to ``model``, with the kind of handler that the store needs: plain or async."""

    def check(event: RecordedEvent) -> None:
        if event.position in poison:
            raise ValueError(f"poison at {event.position}")

    class Writing(Projection):
        name = "contract-writing"
        on_error = _AT_ONCE

        def handle(self, event: RecordedEvent, transaction: Any) -> None:
            model.write(transaction, event.position)
            check(event)

    class WritingAsync(Projection):
        name = "contract-writing"
        on_error = _AT_ONCE

        async def handle(self, event: RecordedEvent, transaction: Any) -> None:
            written = model.write(transaction, event.position)
            if written is not None:
                await written
            check(event)

    return WritingAsync() if iscoroutinefunction(model.write) else Writing()


async def deposit(store: EventStore, count: int, name: str = "a") -> int:
    """Make ``count`` deposits, each in its own commit; the head position after the last one."""
    position = 0
    for _ in range(count):
        position = (await store.execute(Deposit(account=account(name)))).position
    return position


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110  # a store has no event to wait for
            await asyncio.sleep(0.01)


class _Raw(Seen):
    """Also takes events whose type no class has."""

    name = "contract-raw"
    unknown = "raw"

    def handle(self, event: RecordedEvent | RawEvent) -> None:
        assert isinstance(event, RawEvent) is (event.event_type == _UNKNOWN)
        if isinstance(event, RawEvent):
            assert event.data == {"amount": 1, "note": ""}
        self.seen.append(event.position)


class _OtherHistory:
    """A backend whose leases have the checkpoint of an event that the store has lost."""

    def __init__(self, backend: Backend, lost: Checkpoint) -> None:
        self._backend = backend
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    @property
    def ledger(self) -> Any:
        return _LostCheckpoint(self._backend.ledger, self._lost)


class _LostCheckpoint:
    def __init__(self, ledger: ProjectionLedger, lost: Checkpoint) -> None:
        self._ledger = ledger
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        lease = await self._ledger.acquire_lease(projection, owner, seconds)
        return None if lease is None else msgspec.structs.replace(lease, checkpoint=self._lost)


class ProjectContract(ContractFixtures):
    """Tests of ``EventStore.run``, ``wait_for``, ``retry_dead_letters`` and ``reset_projection``."""

    async def test_a_projection_may_take_events_of_unknown_types(self, make_backend: MakeBackend, run: Run) -> None:
        backend = make_backend()
        await backend.open()
        await backend.log.append([AppendRequest({A: 0}, {A: 0}, [new_event(A, 1, event_type=_UNKNOWN)])])
        await backend.close(5.0)
        raw, strict = _Raw(), Seen()
        async with opened_store(make_backend()) as store:
            await deposit(store, 1, "b")
            run(store, raw)
            run(store, strict)
            await store.wait_for(raw, 2)
            await store.wait_for(strict, 2)
            [letter] = await store.dead_letters(strict)
        assert raw.seen == [1, 2]
        assert strict.seen == [2], "without unknown='raw' such an event cannot be applied"
        assert (letter.position, letter.error_type) == (1, "UnknownEventType")

    async def test_a_projection_gets_every_event_in_order_and_then_new_ones(self, store: EventStore, run: Run) -> None:
        await store.execute(Deposit(account=A, times=1500))
        seen = Seen()
        run(store, seen)
        await store.wait_for(seen, await deposit(store, 10), timeout=20)
        assert seen.seen == list(range(1, 1511)), "while one runner leads, each event comes once"

    async def test_a_projection_with_a_filter_gets_matching_events_and_reaches_the_head(
        self, store: EventStore, run: Run
    ) -> None:
        for name in ("a", "b", "c"):
            await store.execute(Deposit(account=account(name), times=300))
            await store.execute(Link(account=account(name), to=A))
        links = SeenLinks()
        run(store, links)
        await store.wait_for(links, await store.head_position(), timeout=20)
        assert links.seen == [301, 602]
        await store.wait_for(links, await deposit(store, 1), timeout=20)

    async def test_a_stopped_projection_continues_behind_its_last_event(
        self, store: EventStore, another_store: EventStore, run: Run
    ) -> None:
        seen: list[int] = []
        for turn, one in enumerate((store, another_store, store)):
            running = run(one, Seen(seen))
            await one.wait_for("contract-seen", await deposit(store, 20), timeout=20)
            running.cancel()
            await asyncio.wait([running])
            assert seen == list(range(1, (turn + 1) * 20 + 1)), "after a clean stop, each event comes once"

    async def test_of_two_runners_one_leads_and_the_other_takes_over(
        self, store: EventStore, another_store: EventStore, run: Run
    ) -> None:
        first, second = Seen(), Seen()
        leading = run(store, first, lease=1.0)
        await store.wait_for(first, await deposit(store, 3), timeout=20)
        run(another_store, second, lease=1.0)
        head = await deposit(another_store, 3)
        await another_store.wait_for(second, head, timeout=20)
        assert (first.seen, second.seen) == ([1, 2, 3, 4, 5, 6], []), "one of several runners leads"
        leading.cancel()
        await asyncio.wait([leading])
        await another_store.wait_for(second, await deposit(store, 3), timeout=20)
        assert second.seen == [7, 8, 9], "the other continues behind the last event of the first"
        assert len(first.seen) == 6

    async def test_a_runner_that_is_stopped_while_it_starts_releases_its_lease(self, store: EventStore) -> None:
        for turn in range(20):
            running = asyncio.create_task(store.run(Seen(), lease=600.0))
            for _ in range(turn):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])
            assert [record.owner for record in await store.projections()] in ([], [""]), (
                "a stopped runner must not hold the lease"
            )

    async def test_a_runner_takes_over_when_the_lease_of_another_expires(self, make_backend: MakeBackend, run: Run) -> None:
        backend = make_backend()
        await backend.open()
        silent = await backend.ledger.acquire_lease("contract-seen", "elsewhere", 0.5)
        assert silent is not None
        async with opened_store(make_backend()) as store:
            seen = Seen()
            running = run(store, seen, lease=1.0)
            await store.wait_for(seen, await deposit(store, 2), timeout=20)
            running.cancel()
            await asyncio.wait([running])
        await backend.close(5.0)

    async def test_an_event_that_cannot_be_applied_becomes_a_dead_letter_and_can_be_retried(
        self, store: EventStore, run: Run
    ) -> None:
        seen = Seen()
        seen.poison = {2, 4}
        await deposit(store, 5)
        run(store, seen)
        await store.wait_for(seen, 5, timeout=20)
        assert seen.seen == [1, 3, 5], "the events behind it are applied"

        async def stored_both() -> bool:
            return len(await store.dead_letters(seen)) == 2

        await until(stored_both)
        letters = await store.dead_letters(seen)
        stored = [event async for event in store.read_all()]
        assert [(letter.position, letter.event_id) for letter in letters] == [(n, stored[n - 1].event_id) for n in (2, 4)]
        assert {(letter.error_type, letter.error, letter.attempts) for letter in letters} == {
            ("ValueError", "poison at 2", 2),
            ("ValueError", "poison at 4", 2),
        }
        seen.poison = {4}
        retried = await store.retry_dead_letters(seen)
        assert [letter.position for letter in retried.applied] == [2]
        assert [letter.position for letter in retried.remaining] == [4]
        assert [letter.position for letter in await store.dead_letters(seen)] == [4]
        assert seen.seen == [1, 3, 5, 2]

    async def test_a_projection_with_the_policy_stop_ends_at_the_event_and_begins_there_again(self, store: EventStore) -> None:
        seen = Seen()
        seen.on_error = OnError(retries=0)
        seen.poison = {3}
        await deposit(store, 4)
        with pytest.raises(ProjectionFailed, match="at position 3"):
            async with asyncio.timeout(20):
                await store.run(seen)
        [record] = await store.projections()
        assert (record.checkpoint.position, record.owner) == (2, ""), "it releases its lease"
        seen.poison = set()
        running = asyncio.create_task(store.run(seen))
        await store.wait_for(seen, 4, timeout=20)
        running.cancel()
        await asyncio.wait([running])
        assert seen.seen == [1, 2, 3, 4]

    async def test_a_store_that_went_back_in_time_is_not_followed(self, make_backend: MakeBackend) -> None:
        async with opened_store(cast(Backend, _OtherHistory(make_backend(), Checkpoint(3, "f" * 32)))) as store:
            await deposit(store, 5)
            seen = Seen()
            with pytest.raises(HistoryDiverged, match="at position 3"):
                async with asyncio.timeout(20):
                    await store.run(seen)
            assert seen.seen == [], "no event may be applied on top of lost ones"

    async def test_a_projection_begins_again_after_a_reset(self, store: EventStore) -> None:
        seen = Seen()
        for _ in range(2):
            seen.seen.clear()
            running = asyncio.create_task(store.run(seen))
            await store.wait_for(seen, await deposit(store, 3), timeout=20)
            running.cancel()
            await asyncio.wait([running])
            await store.reset_projection(seen)
        assert seen.seen == [1, 2, 3, 4, 5, 6]

    async def test_a_read_model_in_the_same_database_has_each_event_once_after_failures_and_stops(
        self, store: EventStore, another_store: EventStore, read_model: ReadModel | None, run: Run
    ) -> None:
        if read_model is None:
            pytest.skip("this store gives handlers no transaction: read_model is None")
        for turn in range(6):
            running = run((store, another_store)[turn % 2], writing(read_model, {7}), lease=1.0)
            head = await deposit(store, 15)
            if turn < 5:
                for _ in range(turn * 3):
                    await asyncio.sleep(0.001)
                running.cancel()
                await asyncio.wait([running])
            else:
                await another_store.wait_for("contract-writing", head, timeout=20)
        expected = [position for position in range(1, 91) if position != 7]
        assert await read_model.positions() == expected, "what a failed or stopped handler wrote is rolled back"
        assert [letter.position for letter in await store.dead_letters("contract-writing")] == [7]
