"""Commands that ask for a long stream while its first page is being read share the read that follows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from eventcore import StreamId, Telemetry
from eventcore.stores import BackendPage, Purpose, StateKey
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, account
from tests.store.test_stream_states import DepositMany

A = account("a")


class GatedReads(SteeredBackend):
    """Reads wait at the gate; the rows that they return are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.reading = asyncio.Event()
        self.rows = 0

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = MappingProxyType({}),
    ) -> BackendPage:
        self.reading.set()
        await self.gate.wait()
        page = await super().read_streams(after, up_to=up_to, origins=origins, purpose=purpose, snapshots=snapshots)
        self.rows += sum(map(len, page.rows.values()))
        return page


async def test_a_command_that_comes_while_the_first_page_is_read_shares_the_read_of_the_others(telemetry: Telemetry) -> None:
    backend = GatedReads()
    backend.gate.set()
    async with backend.store(telemetry) as store:
        for _ in range(3):
            await store.execute(DepositMany(account=A, count=1000))
    later = GatedReads()
    later.real = backend.real
    async with asyncio.timeout(10), later.store(telemetry) as store:
        commands = [asyncio.create_task(store.execute(Deposit(account=A)))]
        await later.reading.wait()
        commands += [asyncio.create_task(store.execute(Deposit(account=A))) for _ in range(5)]
        await asyncio.sleep(0)
        later.gate.set()
        await asyncio.gather(*commands)
        assert [event.version async for event in store.read(A, after_version=2999)] == list(range(3000, 3007))
        assert later.rows < 2 * 3000
