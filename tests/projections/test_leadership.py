"""One runner at a time: the lease decides which, and the token fences the checkpoint after the lease is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from eventcore import EventStore, RecordedEvent, Telemetry, open_store
from eventcore.errors import HistoryDiverged, LeadershipLost, StoreUnavailable
from eventcore.stores import (
    START,
    Backend,
    Checkpoint,
    DeadLetter,
    EventFilter,
    Lease,
    LogPage,
    MemoryBackend,
    ProjectionLedger,
    backend_from_url,
)
from eventcore.testing.contract.projections import fill_with_letters
from tests.projections.conftest import Run
from tests.projections.models import Seen, deposit, until
from tests.store.backends import SteeredBackend
from tests.store.conftest import Measured


@pytest.fixture
async def backend(url: str) -> AsyncIterator[Backend]:
    backend = backend_from_url(url)
    await backend.open()
    yield backend
    await backend.close(5)


def applying(backend: Backend, apply: Callable[[object], None]) -> Callable[[object], object]:
    """``apply`` in the form that this backend calls: plain or asynchronous."""

    async def later(transaction: object) -> None:
        apply(transaction)

    return later if backend.system == "postgresql" else apply


async def held(backend: Backend, owner: str, seconds: float = 60.0) -> Lease:
    """Acquire the lease. Before the first one, the store is filled with events whose ids are the letters a to l."""
    if await backend.log.head_position() == 0:
        await fill_with_letters(backend)
    lease = await backend.ledger.acquire_lease("p", owner, seconds)
    assert lease is not None
    return lease


# The backend


async def test_a_lease_has_one_holder_and_a_new_token_each_time(backend: Backend) -> None:
    lease = await held(backend, "one")
    assert (lease.token, lease.checkpoint) == (1, START)
    assert await backend.ledger.acquire_lease("p", "two", 60) is None
    assert (await held(backend, "one")).token == 2
    assert not await backend.ledger.renew_lease(lease, 60)
    await backend.ledger.release_lease(lease)
    assert await backend.ledger.acquire_lease("p", "two", 60) is None


async def test_a_released_lease_is_free_at_once(backend: Backend) -> None:
    await backend.ledger.release_lease(await held(backend, "one"))
    [record] = await backend.ledger.projections()
    assert (record.owner, record.lease_left) == ("", 0.0)
    lease = await held(backend, "two")
    assert lease.token == 2
    [record] = await backend.ledger.projections()
    assert record.owner == "two"
    assert 55 < record.lease_left <= 60


async def test_an_expired_lease_is_free_and_its_holder_is_fenced(backend: Backend) -> None:
    old = await held(backend, "one", 0.1)
    await backend.ledger.commit_checkpoint(old, START, Checkpoint(3, "c"))
    lease = None
    while lease is None:
        lease = await backend.ledger.acquire_lease("p", "two", 60)
    assert lease.checkpoint == Checkpoint(3, "c")
    assert not await backend.ledger.renew_lease(old, 60)
    called: list[object] = []
    with pytest.raises(LeadershipLost, match="projection 'p'"):
        await backend.ledger.commit_checkpoint(
            old, Checkpoint(3, "c"), Checkpoint(4, "d"), (), applying(backend, called.append)
        )
    called.clear()
    await backend.ledger.commit_checkpoint(lease, Checkpoint(3, "c"), Checkpoint(4, "d"), (), applying(backend, called.append))
    assert len(called) == 1


async def test_a_checkpoint_moves_only_from_its_current_value(backend: Backend) -> None:
    lease = await held(backend, "one")
    await backend.ledger.commit_checkpoint(lease, START, Checkpoint(3, "c"))
    for before in (START, Checkpoint(3, "x"), Checkpoint(2, "c")):
        with pytest.raises(LeadershipLost):
            await backend.ledger.commit_checkpoint(lease, before, Checkpoint(9, "i"), [letter(9)])
    assert await backend.ledger.dead_letters("p", 10) == []
    [record] = await backend.ledger.projections()
    assert record.checkpoint == Checkpoint(3, "c")


def letter(position: int) -> DeadLetter:
    return DeadLetter("p", position, f"id-{position}", "ValueError", "bad: ä\U0001f600", 3, 17)


async def test_dead_letters_are_listed_in_order_and_removed_once(backend: Backend) -> None:
    lease = await held(backend, "one")
    await backend.ledger.commit_checkpoint(lease, START, Checkpoint(9, "i"), [letter(9), letter(2)])
    await backend.ledger.commit_checkpoint(lease, Checkpoint(9, "i"), Checkpoint(11, "k"), [letter(11)])
    assert list(await backend.ledger.dead_letters("p", 2)) == [letter(2), letter(9)]
    assert [one.dead_letters for one in await backend.ledger.projections()] == [3]
    called: list[object] = []
    assert await backend.ledger.remove_dead_letter(letter(9), applying(backend, called.append))
    assert not await backend.ledger.remove_dead_letter(letter(9), applying(backend, called.append))
    assert len(called) == 1

    def fail(transaction: object) -> None:
        raise ValueError("still bad")

    with pytest.raises(ValueError, match="still bad"):
        await backend.ledger.remove_dead_letter(letter(2), applying(backend, fail))
    assert list(await backend.ledger.dead_letters("p", 9)) == [letter(2), letter(11)]


async def test_a_reset_deletes_checkpoint_and_dead_letters_but_keeps_the_token(backend: Backend) -> None:
    lease = await held(backend, "one")
    await backend.ledger.commit_checkpoint(lease, START, Checkpoint(9, "i"), [letter(9)])
    with pytest.raises(LeadershipLost, match="is running"):
        await backend.ledger.reset_projection("p")
    await backend.ledger.release_lease(lease)
    await backend.ledger.reset_projection("p")
    await backend.ledger.reset_projection("unknown")
    assert await backend.ledger.dead_letters("p", 9) == []
    [record] = await backend.ledger.projections()
    assert (record.name, record.checkpoint) == ("p", START)
    assert not await backend.ledger.renew_lease(lease, 60)
    assert (await held(backend, "two")).token > lease.token


async def test_waiting_without_new_events_returns_the_head_after_the_timeout(backend: Backend) -> None:
    assert await backend.log.wait_beyond(0, 0.01) == 0
    assert await backend.log.wait_beyond(5, 0.0) == 0


# Runners


async def test_of_two_runners_one_waits_and_takes_over(store: EventStore, run: Run, measured: Measured) -> None:
    first, second = Seen(), Seen()
    leading = run(store, first)
    await store.wait_for("seen", await deposit(store, 3))
    waiting = run(store, second)
    await store.wait_for("seen", await deposit(store, 3))
    assert measured("projections.leader", projection="seen") == 1
    assert (len(first.positions), len(second.positions)) == (6, 0)
    leading.cancel()
    await asyncio.wait([leading])
    head = await deposit(store, 3)
    await store.wait_for("seen", head, timeout=5)
    assert second.positions == [7, 8, 9]
    assert not waiting.done()
    assert measured("projections.state", projection="seen", state="running") == 1
    assert measured("projections.state", projection="seen") == 1


async def test_a_runner_takes_over_when_the_lease_of_another_expires(url: str, telemetry: Telemetry, run: Run) -> None:
    async with open_store(url, telemetry=telemetry) as store:
        silent = await store._backend.ledger.acquire_lease("seen", "elsewhere:1", 0.3)
        assert silent is not None
        seen = Seen()
        run(store, seen, lease=0.5)
        await store.wait_for(seen, await deposit(store, 2), timeout=5)
        with pytest.raises(LeadershipLost):
            await store._backend.ledger.commit_checkpoint(silent, START, Checkpoint(1, "x"))


class Faulty(SteeredBackend):
    """Raises what it is told to when it is asked to follow or to renew."""

    def __init__(self, real: MemoryBackend | None = None) -> None:
        super().__init__()
        self.real = real or self.real
        self.away: Exception | None = None
        self.renewals: list[bool] | None = None

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        if self.away is not None:
            raise self.away
        return await super().follow(after, limit, wanted)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        if self.away is not None:
            raise self.away
        return await super().wait_beyond(position, min(timeout, 0.05))

    @property
    def ledger(self) -> ProjectionLedger:
        return FaultyLedger(self)


class FaultyLedger:
    """That of a memory backend, which passes everything through but renewals."""

    def __init__(self, backend: Faulty) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend.real.ledger, name)

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        if self._backend.renewals is not None:
            self._backend.renewals.append(False)
            return False
        return await self._backend.real.ledger.renew_lease(lease, seconds)


async def test_a_projection_continues_after_the_store_was_away(telemetry: Telemetry, run: Run, measured: Measured) -> None:
    backend = Faulty()
    async with backend.store(telemetry) as store:
        seen = Seen()
        run(store, seen)
        await store.wait_for(seen, await deposit(store, 2))
        backend.away = StoreUnavailable("gone fishing")
        await until(lambda: measured("projections.state", projection="seen", state="paused") == 1)
        head = await deposit(store, 2)
        backend.away = None
        await store.wait_for(seen, head)
        assert seen.positions == [1, 2, 3, 4]
        assert measured("projections.failures", projection="seen", error_type="StoreUnavailable") >= 1
        assert measured("projections.lag", projection="seen") == 0


async def test_a_runner_that_has_lost_its_lease_stands_by_again(telemetry: Telemetry, run: Run, measured: Measured) -> None:
    backend = Faulty()
    async with backend.store(telemetry) as store:
        seen = Seen()
        run(store, seen, lease=0.1)
        await store.wait_for(seen, await deposit(store, 2))
        backend.renewals = []
        await until(lambda: measured("projections.failures", projection="seen", error_type="LeadershipLost") >= 2)
        backend.renewals = None
        await store.wait_for(seen, await deposit(store, 2))
        assert seen.positions == [1, 2, 3, 4]


async def test_a_handler_is_stopped_when_its_lease_is_lost(telemetry: Telemetry, run: Run) -> None:
    class Endless(Seen):
        def __init__(self) -> None:
            super().__init__()
            self.stopped = 0

        async def handle(self, event: RecordedEvent) -> None:  # type: ignore[override]  # either is allowed
            try:
                await asyncio.sleep(60)
            finally:
                self.stopped += 1

    backend = Faulty()
    async with backend.store(telemetry) as store:
        endless = Endless()
        await deposit(store, 1)
        run(store, endless, lease=0.1)
        backend.renewals = []
        await until(lambda: endless.stopped >= 1)


async def test_a_store_that_went_back_in_time_is_not_followed(telemetry: Telemetry, measured: Measured) -> None:
    before, after = Faulty(), Faulty()
    async with before.store(telemetry) as store:
        running = asyncio.create_task(store.run(Seen()))
        await store.wait_for("seen", await deposit(store, 3))
    await running
    # The same checkpoints, with another history.
    after.real.ledger = before.real.ledger
    async with after.store(telemetry) as store:
        await deposit(store, 5)
        with pytest.raises(HistoryDiverged, match="position 3"):
            await store.run(Seen())
        assert measured("projections.state", projection="seen", state="failed") == 1


async def test_a_released_lease_moves_no_checkpoint(sqlite_url: str) -> None:
    backend = backend_from_url(sqlite_url)
    await backend.open()
    lease = await held(backend, "one")
    await backend.ledger.release_lease(lease)
    called: list[object] = []
    with pytest.raises(
        LeadershipLost, match="projection 'p' was taken over by another runner: its checkpoint cannot be moved from posi"
    ):
        await backend.ledger.commit_checkpoint(lease, START, Checkpoint(4, "d"), (), called.append)
    assert called == []
    await backend.close(5)


def positions(page: LogPage) -> Sequence[int]:
    return [row.position for row in page.rows]


async def test_a_checkpoint_whose_event_is_gone_raises_history_diverged(url: str, telemetry: Telemetry) -> None:
    async with open_store(url, telemetry=telemetry) as store:
        await deposit(store, 4)
        backend = store._backend
        page = await backend.log.follow(START, 2, EventFilter())
        assert (positions(page), page.end.position, page.head) == ([1, 2], 2, 4)
        page = await backend.log.follow(page.end, 9, EventFilter())
        assert (positions(page), page.end.position, page.head) == ([3, 4], 4, 4)
        assert await backend.log.follow(page.end, 9, EventFilter()) == LogPage([], page.end, 4)
        with pytest.raises(HistoryDiverged, match=r"event 77.*position 2|position 2.*event 77"):
            await backend.log.follow(Checkpoint(2, "77"), 9, EventFilter())
        with pytest.raises(HistoryDiverged, match=r"event 77.*position 9|position 9.*event 77"):
            await backend.log.follow(Checkpoint(9, "77"), 9, EventFilter())
