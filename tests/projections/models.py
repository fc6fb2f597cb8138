"""Projections of the bank, and helpers to deposit and to wait."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence

from eventcore import EventStore, OnError, Projection, RecordedEvent
from tests.store.bank import Deposit, account

AT_ONCE = OnError(retries=2, base_delay=0.001, max_delay=0.002)


class Seen(Projection):
    """Keeps the positions of its events. Fails at those in ``poison``."""

    name = "seen"
    on_error = AT_ONCE

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.poison: set[int] = set()
        self.tried: list[int] = []

    def handle(self, event: RecordedEvent) -> None:
        self.take(event)

    def take(self, event: RecordedEvent) -> None:
        self.tried.append(event.position)
        if event.position in self.poison:
            raise ValueError(f"poison at {event.position}")
        self.positions.append(event.position)


class SeenAsync(Projection):
    name = "seen"
    on_error = AT_ONCE

    def __init__(self) -> None:
        self.inner = Seen()

    async def handle(self, event: RecordedEvent) -> None:
        await asyncio.sleep(0)
        self.inner.take(event)


class SeenTogether(Projection):
    name = "seen"
    on_error = AT_ONCE

    def __init__(self) -> None:
        self.inner = Seen()
        self.sizes: list[int] = []

    def handle_batch(self, events: Sequence[RecordedEvent]) -> None:
        self.sizes.append(len(events))
        if bad := self.inner.poison.intersection(event.position for event in events):
            raise ValueError(f"poison at {min(bad)}")
        self.inner.positions += [event.position for event in events]


class SeenTogetherAsync(SeenTogether):
    async def handle_batch(self, events: Sequence[RecordedEvent]) -> None:  # type: ignore[override]  # either is allowed
        await asyncio.sleep(0)
        super().handle_batch(events)


class Table(Projection):
    """Writes its events to a table in the SQLite file of the store."""

    name = "table"
    on_error = AT_ONCE

    def __init__(self) -> None:
        self.poison: set[int] = set()
        self.calls = 0

    def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
        self.calls += 1
        transaction.execute("CREATE TABLE IF NOT EXISTS seen (position INTEGER NOT NULL, stream TEXT NOT NULL)")
        transaction.execute("INSERT INTO seen VALUES (?, ?)", (event.position, event.stream_id))
        if event.position in self.poison:
            raise ValueError(f"poison at {event.position}")


async def deposit(store: EventStore, count: int, name: str = "a") -> int:
    """Make ``count`` deposits, each in its own commit; the head position after the last one."""
    position = 0
    for _ in range(count):
        position = (await store.execute(Deposit(account=account(name)))).position
    return position


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Poll ``condition`` on the event loop."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
