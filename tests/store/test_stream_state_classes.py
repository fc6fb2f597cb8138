"""States of streams are apart, by their stream and by their class."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest

from eventcore import Command, Event, RecordedEvent, StreamId, StreamState, open_store
from eventcore.errors import InvalidCommand
from eventcore.testing import given
from tests.store.bank import Deposited, account


def one_account() -> type[StreamState]:
    class Account(StreamState, snapshot_every=1):
        balance: int = 0

        def apply(self, event: RecordedEvent) -> None:
            self.balance += event.data.amount  # type: ignore[attr-defined]  # the only event of this test

    return Account


def another_account() -> type[StreamState]:
    class Account(StreamState, snapshot_every=1):
        deposits: int = 0

        def apply(self, event: RecordedEvent) -> None:
            self.deposits += 1

    return Account


ONE, ANOTHER = one_account(), another_account()


class DepositInOne(Command[Mapping[StreamId, Any]]):
    account: Annotated[StreamId, ONE]

    def handle(self, state: Mapping[StreamId, Any]) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=5)


class LookAtAnother(Command[Mapping[StreamId, Any]]):
    account: Annotated[StreamId, ANOTHER]
    expected: int

    def handle(self, state: Mapping[StreamId, Any]) -> None:
        assert state[self.account].deposits == self.expected


async def test_a_stored_state_of_another_class_of_the_same_name_is_not_used(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bank.db"
    async with open_store(url, exporters=[]) as store:
        for _ in range(3):
            await store.execute(DepositInOne(account=account(1)))
    async with open_store(url, exporters=[]) as store:
        await store.execute(LookAtAnother(account=account(1), expected=3))


@dataclasses.dataclass
class Inner:
    total: int = 0


class Shared(StreamState):
    inner: Inner = Inner()  # the mistake that this test is about
    notes: tuple[list[int], ...] = ([],)

    def apply(self, event: RecordedEvent) -> None:
        assert isinstance(event.data, Deposited)
        self.inner.total += event.data.amount
        self.notes[0].append(event.data.amount)


class Add(Command[Mapping[StreamId, Shared]]):
    account: Annotated[StreamId, Shared]
    amount: int
    before: int

    def handle(self, state: Mapping[StreamId, Shared]) -> Iterable[tuple[StreamId, Event]]:
        assert state[self.account].inner.total == self.before == sum(state[self.account].notes[0])
        yield self.account, Deposited(amount=self.amount)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 26])
async def test_a_default_that_can_be_changed_is_not_shared_by_streams(cache_bytes: int) -> None:
    async with open_store("memory:", exporters="none", config={}, cache_bytes=cache_bytes) as store:
        for number in range(1, 4):
            for turn in range(3):
                await store.execute(Add(account=account(number), amount=number, before=turn * number))


class Counted(StreamState):
    count: int = 0

    def apply(self, event: RecordedEvent) -> Counted:  # type: ignore[override]  # the mistake that this test is about
        return Counted(count=self.count + 1)


class Count(Command[Mapping[StreamId, Counted]]):
    account: Annotated[StreamId, Counted]

    def handle(self, state: Mapping[StreamId, Counted]) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=state[self.account].count)


RETURNS_A_STATE = r"Counted.apply returned a value, but .* set its fields \(self.x = …\) and return nothing"


@pytest.mark.parametrize("cache_bytes", [0, 1 << 26])
async def test_a_state_that_apply_returns_is_not_ignored_in_silence(cache_bytes: int) -> None:
    async with open_store("memory:", exporters="none", config={}, cache_bytes=cache_bytes) as store:
        await store.execute(Count(account=account(1)))
        with pytest.raises(InvalidCommand, match=RETURNS_A_STATE):
            await store.execute(Count(account=account(1)))


async def test_a_state_that_apply_returns_is_refused_where_commands_meet_in_one_batch() -> None:
    async with open_store("memory:", exporters="none", config={}) as store:
        answers = await asyncio.gather(*(store.execute(Count(account=account(1))) for _ in range(3)), return_exceptions=True)
        assert not isinstance(answers[0], BaseException)
        assert [type(answer) for answer in answers[1:]] == [InvalidCommand] * 2


def test_a_scenario_refuses_a_state_that_apply_returns() -> None:
    with pytest.raises(InvalidCommand, match=RETURNS_A_STATE):
        given((account(1), Deposited(amount=1))).when(Count(account=account(1)))


def test_an_async_apply_of_a_state_is_refused_when_the_class_is_defined() -> None:
    with pytest.raises(InvalidCommand, match=r"Waits\.apply is async; expected a plain method"):

        class Waits(StreamState):  # pyright: ignore[reportUnusedClass]  # defining it raises
            async def apply(self, event: RecordedEvent) -> None:  # type: ignore[override]  # that is the point
                pass
