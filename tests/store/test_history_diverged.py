"""A store that goes back in time: the cache is emptied, and commands are decided on the events that the store holds now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from unittest.mock import Mock

import pytest

from eventcore import BusinessRuleViolation, EventStore, StreamId, Telemetry
from eventcore.commands.attempt import Outcome
from eventcore.commands.batching import Batcher
from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.speculation import RefusedStreams
from eventcore.errors import HistoryDiverged
from eventcore.events.codec import Codec
from eventcore.stores import AppendRequest, BackendPage, MemoryBackend, Purpose, StateKey, Verdict
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Transfer, account

A, B = account("a"), account("b")


class RestoredBackend(SteeredBackend):
    """Replaced by an older backup; the next append or read for a command raises ``HistoryDiverged``."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = False

    def restore(self) -> None:
        """Lose all events; another process has made one deposit since."""
        self.real = MemoryBackend()
        self.overtake(A, 1, 3)
        self._gone = True

    def _tell(self) -> None:
        if self._gone:
            self._gone = False
            raise HistoryDiverged("it was restored")

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        self._tell()
        return await super().append(requests)

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = MappingProxyType({}),
    ) -> BackendPage:
        self._tell()
        return await super().read_streams(after, up_to=up_to, origins=origins, purpose=purpose, snapshots=snapshots)


@pytest.fixture
def backend() -> RestoredBackend:
    return RestoredBackend()


@pytest.fixture
async def store(backend: RestoredBackend, telemetry: Telemetry) -> AsyncIterator[EventStore]:
    async with backend.store(telemetry) as store:
        yield store


async def remember(store: EventStore) -> None:
    """Fill the cache: 10 in a, at version 1 as after the restore, and nothing in b."""
    await store.execute(Deposit(account=A, amount=10))
    with pytest.raises(BusinessRuleViolation):
        await store.execute(Transfer(source=A, target=B, amount=100))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_command_is_decided_on_what_stands_after_its_append_was_refused(
    backend: RestoredBackend, store: EventStore
) -> None:
    await remember(store)
    backend.restore()
    with pytest.raises(BusinessRuleViolation, match="holds 3, not 5"):
        await store.execute(Transfer(source=A, target=B, amount=5))
    assert (await store.execute(Transfer(source=A, target=B, amount=2))).position == 3


async def test_a_command_is_decided_on_what_stands_after_its_read_was_refused(
    backend: RestoredBackend, store: EventStore
) -> None:
    await remember(store)
    backend.restore()
    # The cache does not hold the new stream, so the command reads first.
    with pytest.raises(BusinessRuleViolation, match="holds 3, not 5"):
        await store.execute(Transfer(source=A, target=account("new"), amount=5))


async def test_commands_that_wait_when_the_divergence_is_noticed_read_again(
    backend: RestoredBackend, store: EventStore
) -> None:
    await remember(store)
    backend.hold()
    sent = asyncio.create_task(store.execute(Deposit(account=account("c"))))
    while not backend.appends[1:]:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(store.execute(Transfer(source=A, target=B, amount=5)))
    await turns()
    backend.restore()
    reader = asyncio.create_task(store.execute(Deposit(account=account("new"))))
    await turns()
    backend.let_all()
    with pytest.raises(BusinessRuleViolation, match="holds 3, not 5"):
        await waiting
    # Both commands that were in progress have a position of the restored store.
    assert sorted([(await sent).position, (await reader).position]) == [2, 3]


async def test_the_rest_of_a_batch_is_not_appended_after_a_part_of_it_was_refused(
    backend: RestoredBackend, store: EventStore
) -> None:
    await remember(store)

    def refuse_batches(requests: Sequence[AppendRequest]) -> None:
        if len(requests) > 1:
            backend.restore()
            raise ValueError("one of them is bad")

    backend.before_append = refuse_batches
    backend.hold()
    async with asyncio.TaskGroup() as group:
        group.create_task(store.execute(Deposit(account=account("c"))))
        while not backend.appends[1:]:
            await asyncio.sleep(0)
        group.create_task(store.execute(Deposit(account=account("d"))))
        await turns()
        waiting = asyncio.create_task(store.execute(Transfer(source=A, target=B, amount=5)))
        await turns()
        backend.let_all()
        with pytest.raises(BusinessRuleViolation, match="holds 3, not 5"):
            await waiting
    assert 2 in backend.appends


async def test_a_command_that_was_read_before_the_divergence_was_noticed_reads_again() -> None:
    cache = StreamCache()
    cache_epoch = cache.epoch
    cache.forget(cache_epoch)
    # Loader and batcher may both notice the divergence; the cache is emptied once.
    cache.forget(cache_epoch)
    assert cache.epoch == cache_epoch + 1
    batcher = Batcher(MemoryBackend().log, cache, RefusedStreams(Codec(), cache))
    batcher.start()
    attempt = Mock(future=asyncio.get_running_loop().create_future(), boundary=Mock(cache_epoch=cache_epoch))
    batcher.submit(attempt)
    assert await attempt.future is Outcome.RELOAD
    await batcher.close(1)
