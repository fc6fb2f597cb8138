"""A store that goes back in time: what a process remembers of it is forgotten, and commands are decided on what stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from eventcore import BusinessRuleViolation, EventStore, StreamId, Telemetry
from eventcore.errors import HistoryDiverged
from eventcore.stores import AppendRequest, BackendPage, MemoryBackend, Verdict
from eventcore.stores.base import Purpose
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Transfer, account

A, B = account("a"), account("b")


class RestoredBackend(SteeredBackend):
    """Exchanged for an older one, which the first append or the first read for a command tells."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = False

    def restore(self) -> None:
        """Lose everything; another process has made one deposit since."""
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
    ) -> BackendPage:
        self._tell()
        return await super().read_streams(after, up_to=up_to, origins=origins, purpose=purpose)


@pytest.fixture
def backend() -> RestoredBackend:
    return RestoredBackend()


@pytest.fixture
async def store(backend: RestoredBackend, telemetry: Telemetry) -> AsyncIterator[EventStore]:
    async with backend.store(telemetry) as store:
        yield store


async def test_a_command_is_decided_on_what_stands_after_its_append_was_refused(
    backend: RestoredBackend, store: EventStore
) -> None:
    await store.execute(Deposit(account=A, amount=10))
    backend.restore()
    with pytest.raises(BusinessRuleViolation, match="holds 3, not 5"):
        await store.execute(Transfer(source=A, target=B, amount=5))
    assert (await store.execute(Transfer(source=A, target=B, amount=2))).position == 3


async def test_a_command_is_decided_on_what_stands_after_its_read_was_refused(
    backend: RestoredBackend, store: EventStore
) -> None:
    await store.execute(Deposit(account=A, amount=10))
    backend.restore()
    # Of b nothing is at hand, so that it reads first.
    with pytest.raises(BusinessRuleViolation, match="holds 3, not 5"):
        await store.execute(Transfer(source=A, target=account("new"), amount=5))


async def test_commands_that_wait_when_it_is_found_out_read_again(backend: RestoredBackend, store: EventStore) -> None:
    await store.execute(Deposit(account=A, amount=10))
    await store.execute(Deposit(account=B, amount=10))
    backend.hold()
    sent = asyncio.create_task(store.execute(Deposit(account=account("c"))))
    while not backend.appends[2:]:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(store.execute(Transfer(source=A, target=B, amount=5)))
    for _ in range(10):
        await asyncio.sleep(0)
    backend.restore()
    reader = asyncio.create_task(store.execute(Deposit(account=account("new"))))
    for _ in range(10):
        await asyncio.sleep(0)
    backend.let_all()
    with pytest.raises(BusinessRuleViolation, match="holds 3, not 5"):
        await waiting
    assert sorted([(await sent).position, (await reader).position]) == [2, 3]
