"""Stores on uvloop's event loop, which is faster than asyncio's own; eventcore does not depend on it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from eventcore import Projection, RecordedEvent, open_store
from eventcore.errors import CommandTimeout
from tests.store.bank import Deposit, Transfer, account

uvloop = pytest.importorskip("uvloop")


class Follow(Projection):
    name = "follow"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def handle(self, event: RecordedEvent) -> None:
        self.seen.append(event.position)


@pytest.mark.once
def test_commands_and_projections_run_on_uvloop(url: str) -> None:
    async def main() -> tuple[list[int], list[int]]:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        follow = Follow()
        async with open_store(url, exporters="none") as store:
            following = asyncio.create_task(store.run(follow))
            await asyncio.gather(*(store.execute(Deposit(account=account(n % 7), amount=9)) for n in range(70)))
            await asyncio.gather(
                *(store.execute(Transfer(source=account(n % 7), target=account((n + 1) % 7), amount=1)) for n in range(28))
            )
            with suppress(CommandTimeout):
                await store.execute(Deposit(account=account("late")), timeout=0.0001)
            head = await store.head_position()
            await store.wait_for("follow", head, timeout=10)
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            return follow.seen, [event.position async for event in store.read_all()]

    seen, read = uvloop.run(main())
    assert seen == read == list(range(1, len(read) + 1))
    assert len(read) in (126, 127)
