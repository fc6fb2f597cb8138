"""The domain of the store tests: accounts and transfers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from eventcore import BusinessRuleViolation, Command, Event, RecordedEvent, StreamId


class Deposited(Event):
    event_type: ClassVar[str] = "bank.Deposited"
    amount: int


class Withdrawn(Event):
    event_type: ClassVar[str] = "bank.Withdrawn"
    amount: int


class Linked(Event):
    event_type: ClassVar[str] = "bank.Linked"
    account: StreamId


Balances = dict[StreamId, int]


def balance_after(state: Balances, event: RecordedEvent) -> Balances:
    match event.data:
        case Deposited(amount=amount):
            state[event.stream_id] = state.get(event.stream_id, 0) + amount
        case Withdrawn(amount=amount):
            state[event.stream_id] = state.get(event.stream_id, 0) - amount
        case _:
            pass
    return state


class Deposit(Command[int]):
    """Adds to an account; its state is the balance before."""

    account: StreamId
    amount: int = 1

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        assert isinstance(event.data, Deposited | Withdrawn | Linked)
        return state + (event.data.amount if isinstance(event.data, Deposited) else 0)

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=self.amount)


class Transfer(Command[Balances]):
    source: StreamId
    target: StreamId
    amount: int

    def initial_state(self) -> Balances:
        return {}

    def apply(self, state: Balances, event: RecordedEvent) -> Balances:
        return balance_after(state, event)

    def handle(self, state: Balances) -> Iterable[tuple[StreamId, Event]]:
        if state.get(self.source, 0) < self.amount:
            raise BusinessRuleViolation(f"{self.source} holds {state.get(self.source, 0)}, not {self.amount}")
        yield self.source, Withdrawn(amount=self.amount)
        yield self.target, Deposited(amount=self.amount)


class Link(Command[None]):
    """Makes one account point to another."""

    account: StreamId
    to: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Linked(account=self.to)


class Collect(Command[tuple[set[StreamId], Balances]]):
    """Moves the money of all accounts that are linked, directly or not, to the first one."""

    account: StreamId

    def initial_state(self) -> tuple[set[StreamId], Balances]:
        return set(), {}

    def apply(self, state: tuple[set[StreamId], Balances], event: RecordedEvent) -> tuple[set[StreamId], Balances]:
        links, balances = state
        if isinstance(event.data, Linked):
            links.add(event.data.account)
        return links, balance_after(balances, event)

    def discover_streams(self, state: tuple[set[StreamId], Balances]) -> Iterable[StreamId]:
        return sorted(state[0])

    def handle(self, state: tuple[set[StreamId], Balances]) -> Iterable[tuple[StreamId, Event]]:
        total = 0
        for account, amount in sorted(state[1].items()):
            if account != self.account and amount:
                total += amount
                yield account, Withdrawn(amount=amount)
        if total:
            yield self.account, Deposited(amount=total)


def account(name: str | int) -> StreamId:
    return StreamId(f"account-{name}")
