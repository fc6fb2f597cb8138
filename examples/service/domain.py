"""Accounts: events, and commands that read and write one or two of them atomically."""

from __future__ import annotations

from collections.abc import Iterable

from eventcore import BusinessRuleViolation, Command, Event, RecordedEvent, StreamId

Balances = dict[StreamId, int]


class Deposited(Event):
    amount: int


class Withdrawn(Event):
    amount: int


def account(name: str) -> StreamId:
    """The stream of an account."""
    return StreamId(f"account-{name}")


class Deposit(Command[None]):
    account: StreamId
    amount: int

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=self.amount)


class Transfer(Command[Balances]):
    """Moves money, if the source has it. No other command can spend the same money: both accounts are checked."""

    source: StreamId
    target: StreamId
    amount: int

    def initial_state(self) -> Balances:
        return {}

    def apply(self, state: Balances, event: RecordedEvent) -> Balances:
        sign = 1 if isinstance(event.data, Deposited) else -1
        amount = event.data.amount if isinstance(event.data, Deposited | Withdrawn) else 0
        state[event.stream_id] = state.get(event.stream_id, 0) + sign * amount
        return state

    def handle(self, state: Balances) -> Iterable[tuple[StreamId, Event]]:
        if state.get(self.source, 0) < self.amount:
            raise BusinessRuleViolation(f"the account has {state.get(self.source, 0)}, which is less than {self.amount}")
        yield self.source, Withdrawn(amount=self.amount)
        yield self.target, Deposited(amount=self.amount)
