"""The events and commands of the contract: accounts, transfers, and links from one account to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import msgspec

from eventcore.commands import Command
from eventcore.errors import BusinessRuleViolation
from eventcore.events import Event, RecordedEvent, StreamId, StreamState


class Deposited(Event):
    event_type: ClassVar[str] = "eventcore.testing.Deposited"
    amount: int
    note: str = ""


class Withdrawn(Event):
    event_type: ClassVar[str] = "eventcore.testing.Withdrawn"
    amount: int


class Linked(Event):
    event_type: ClassVar[str] = "eventcore.testing.Linked"
    account: StreamId


Balances = dict[StreamId, int]


def account(name: str | int) -> StreamId:
    return StreamId(f"account-{name}")


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
    """Adds to an account, unconditionally. Its state is the version of the stream."""

    account: StreamId
    amount: int = 1
    note: str = ""
    times: int = 1

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        assert event.version == state + 1, (
            f"{event} was applied after version {state} of its stream: each event must come once, in order"
        )
        return event.version

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        for _ in range(self.times):
            yield self.account, Deposited(amount=self.amount, note=self.note)


class _OfBalances(Command[Balances]):
    def initial_state(self) -> Balances:
        return {}

    def apply(self, state: Balances, event: RecordedEvent) -> Balances:
        return balance_after(state, event)


class Transfer(_OfBalances):
    """Moves an amount, if the balance of the source is high enough."""

    source: StreamId
    target: StreamId
    amount: int

    def handle(self, state: Balances) -> Iterable[tuple[StreamId, Event]]:
        if state.get(self.source, 0) < self.amount:
            raise BusinessRuleViolation(f"{self.source} holds {state.get(self.source, 0)}, not {self.amount}")
        yield self.source, Withdrawn(amount=self.amount)
        yield self.target, Deposited(amount=self.amount)


class Balance(StreamState, version=1, snapshot_every=3):
    """The balance of one account; it is stored every third event."""

    amount: int = 0
    changes: list[str] = msgspec.field(default_factory=list[str])

    def apply(self, event: RecordedEvent) -> None:
        match event.data:
            case Deposited(amount=amount):
                self.amount += amount
            case Withdrawn(amount=amount):
                self.amount -= amount
            case _:
                return
        # A mutable value, which no other command may share.
        self.changes = [*self.changes[-2:], event.event_type]


class Remit(Command[Mapping[StreamId, Balance]]):
    """Moves an amount as ``Transfer`` does, and decides on states of streams."""

    source: Annotated[StreamId, Balance]
    target: Annotated[StreamId, Balance]
    amount: int

    def handle(self, state: Mapping[StreamId, Balance]) -> Iterable[tuple[StreamId, Event]]:
        if state[self.source].amount < self.amount:
            raise BusinessRuleViolation(f"{self.source} holds {state[self.source].amount}, not {self.amount}")
        yield self.source, Withdrawn(amount=self.amount)
        yield self.target, Deposited(amount=self.amount)


class Guarantee(_OfBalances):
    """Withdraws from an account if its balance and that of a guarantor together are high enough. The guarantor is only read."""

    account: StreamId
    guarantor: StreamId
    amount: int

    def handle(self, state: Balances) -> Iterable[tuple[StreamId, Event]]:
        together = sum(state.get(one, 0) for one in {self.account, self.guarantor})
        if together < self.amount:
            raise BusinessRuleViolation(f"{self.account} and {self.guarantor} hold {together}, not {self.amount}")
        yield self.account, Withdrawn(amount=self.amount)


class Look(_OfBalances):
    """Reads some accounts and writes nothing."""

    accounts: tuple[StreamId, ...]

    def handle(self, state: Balances) -> None:
        return None


class Link(Command[None]):
    """Makes one account point to another."""

    account: StreamId
    to: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Linked(account=self.to)


class Collect(Command[tuple[set[StreamId], Balances]]):
    """Moves the balances of all accounts that can be reached through links to ``account``."""

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
