"""Accounts with long streams: one command on a state of the stream, and the same one that folds its events itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from eventcore import Command, Event, EventStore, RecordedEvent, StreamId, StreamState

__all__ = ["Account", "Attach", "Credit", "CreditByFolding", "Credited", "fill"]

_AT_ONCE = 1000


class Credited(Event):
    """Money came in."""

    amount: int


class Attached(Event):
    """A large document belongs to an account."""

    text: str


class Account(StreamState, version=1, snapshot_every=1000):
    """A state whose size does not depend on the number of events."""

    balance: int = 0

    def apply(self, event: RecordedEvent) -> None:
        if isinstance(event.data, Credited):
            self.balance += event.data.amount


class Credit(Command[Mapping[StreamId, Account]]):
    """Decides on the state of the stream."""

    account: Annotated[StreamId, Account]

    def handle(self, state: Mapping[StreamId, Account]) -> Iterator[tuple[StreamId, Event]]:
        yield self.account, Credited(amount=1 + state[self.account].balance % 2)


class CreditByFolding(Command[int]):
    """Decides the same, on what it has folded itself from all events of the stream."""

    account: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + event.data.amount if isinstance(event.data, Credited) else state

    def handle(self, state: int) -> Iterator[tuple[StreamId, Event]]:
        yield self.account, Credited(amount=1 + state % 2)


class Attach(Command[int]):
    """Writes one event of ``size`` bytes; its state is the number of events before."""

    account: StreamId
    size: int

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + 1

    def handle(self, state: int) -> Iterator[tuple[StreamId, Event]]:
        yield self.account, Attached(text=f"{state:x}" * (self.size // len(f"{state:x}")))


class _CreditOften(Command[None]):
    account: StreamId
    count: int

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        for _ in range(self.count):
            yield self.account, Credited(amount=1)


async def fill(store: EventStore, account: StreamId, events: int) -> None:
    """Write events into an account that has none."""
    for written in range(0, events, _AT_ONCE):
        await store.execute(_CreditOften(account=account, count=min(_AT_ONCE, events - written)))
