"""What a read sees of an append before it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from eventcore import StreamId, Telemetry
from eventcore.stores import AppendRequest, BackendPage, Purpose, StateKey, Verdict
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Transfer, account

A, B = account("a"), account("b")


class LateAnswers(SteeredBackend):
    """Appends commit at once, and are answered when the gate is open; the streams of reads are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.committed = asyncio.Event()
        self.reads: list[set[StreamId]] = []

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        verdicts = await super().append(requests)
        self.committed.set()
        await self.gate.wait()
        return verdicts

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = MappingProxyType({}),
    ) -> BackendPage:
        self.reads.append(set(after))
        return await super().read_streams(after, up_to=up_to, origins=origins, purpose=purpose, snapshots=snapshots)


async def test_events_of_this_process_that_are_read_before_their_append_is_answered_are_not_anothers(
    telemetry: Telemetry,
) -> None:
    backend = LateAnswers()
    async with asyncio.timeout(10), backend.store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=5))
        backend.gate.clear()
        backend.committed.clear()
        late = asyncio.create_task(store.execute(Deposit(account=A, amount=5)))
        await backend.committed.wait()
        # B is not known: both streams are read while the append on A waits for its answer.
        transfer = asyncio.create_task(store.execute(Transfer(source=A, target=B, amount=1)))
        while {A, B} not in backend.reads:
            await asyncio.sleep(0)
        backend.gate.set()
        await asyncio.gather(late, transfer)
        backend.reads.clear()
        result = await store.execute(Deposit(account=A, amount=5))
        assert backend.reads == []
        assert [event.version for event in result.events] == [4]
