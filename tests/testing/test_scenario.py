"""Given, when, then: the same decisions as in a store, and messages that show the difference."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest

from eventcore import BusinessRuleViolation, Command, Event, EventStore, StreamId, open_store
from eventcore.errors import InvalidCommand, InvalidEvent
from eventcore.testing import given
from tests.store.bank import Collect, Deposit, Deposited, Link, Linked, Transfer, Withdrawn, account

A, B, C = account("a"), account("b"), account("c")


def test_a_command_decides_on_the_streams_of_its_boundary_only() -> None:
    history = given((A, Deposited(amount=5)), (C, Deposited(amount=100)), (B, Deposited(amount=1)))
    history.when(Transfer(source=A, target=B, amount=5)).then((A, Withdrawn(amount=5)), (B, Deposited(amount=5)))
    history.when(Transfer(source=A, target=B, amount=6)).then_refused(match="holds 5, not 6")


def test_discovered_streams_are_read_until_no_new_one_is_named() -> None:
    history = given((A, Linked(account=B)), (B, Linked(account=C)), (C, Deposited(amount=3)), (B, Deposited(amount=2)))
    collected = history.when(Collect(account=A)).then(
        (B, Withdrawn(amount=2)), (C, Withdrawn(amount=3)), (A, Deposited(amount=5))
    )
    collected.when(Collect(account=A)).then()


def test_what_has_happened_is_numbered_as_in_a_store() -> None:
    history = given((A, Deposited(amount=1)), (B, Deposited(amount=2))).given((A, Deposited(amount=3))).history
    assert [(event.stream_id, event.version, event.position) for event in history] == [(A, 1, 1), (B, 1, 2), (A, 2, 3)]
    assert len({event.event_id for event in history}) == 3
    assert history[0].event_type == "bank.Deposited"


async def test_a_scenario_and_a_store_decide_alike() -> None:
    commands: list[Command[Any]] = [
        *(Deposit(account=name, amount=10) for name in (A, B, C)),
        Link(account=A, to=B),
        Transfer(source=B, target=C, amount=4),
        Collect(account=A),
        Transfer(source=B, target=C, amount=1),
        Link(account=B, to=C),
        Collect(account=A),
    ]
    scenario = given()
    async with open_store("memory:", exporters=[]) as store:
        for command in commands:
            decided = scenario.when(command)
            try:
                result = await store.execute(command)
            except BusinessRuleViolation as refusal:
                decided.then_refused(match=str(refusal))
            else:
                scenario = decided.then(*((event.stream_id, event.data) for event in result.events))
        assert [(event.stream_id, event.version, event.data) for event in scenario.history] == await stored(store)


async def stored(store: EventStore) -> list[tuple[StreamId, int, Event]]:
    return [(event.stream_id, event.version, event.data) async for event in store.read_all()]


def test_a_difference_shows_the_events_and_the_history() -> None:
    decided = given((A, Deposited(amount=9))).when(Transfer(source=A, target=B, amount=7))
    with pytest.raises(AssertionError) as failure:
        decided.then((A, Withdrawn(amount=7)))
    assert str(failure.value) == (
        "Transfer(source=StreamId('account-a'), target=StreamId('account-b'), amount=7) writes other events than expected\n"
        "('-' is expected only, '+' is written only):\n"
        "  account-a  Withdrawn(amount=7)\n"
        "+ account-b  Deposited(amount=7)\n"
        "given:\n"
        "  account-a  Deposited(amount=9)"
    )


def test_the_order_of_events_counts() -> None:
    decided = given((A, Deposited(amount=9))).when(Transfer(source=A, target=B, amount=7))
    with pytest.raises(AssertionError, match="writes other events"):
        decided.then((B, Deposited(amount=7)), (A, Withdrawn(amount=7)))


def test_a_refusal_in_place_of_events_is_shown_with_its_cause() -> None:
    with pytest.raises(
        AssertionError, match=r"raises BusinessRuleViolation: account-a holds 0, not 1, and should write"
    ) as failure:
        given().when(Transfer(source=A, target=B, amount=1)).then((A, Withdrawn(amount=1)))
    assert isinstance(failure.value.__cause__, BusinessRuleViolation)
    assert "given: nothing" in str(failure.value)
    assert "  account-a  Withdrawn(amount=1)" in str(failure.value)


def test_events_in_place_of_a_refusal_are_shown() -> None:
    decided = given().when(Deposit(account=A, amount=3))
    assert decided.events == ((A, Deposited(amount=3)),)
    with pytest.raises(AssertionError, match=r"writes account-a  Deposited\(amount=3\), and should be refused by BusinessRule"):
        decided.then_refused()


class NoSeat(BusinessRuleViolation):
    pass


class Refuse(Command[None]):
    stream: StreamId
    error: type[Exception]

    def handle(self, state: None) -> None:
        raise self.error("sold out")


@pytest.mark.parametrize(
    ("raised", "expected", "match", "passes"),
    [
        (NoSeat, NoSeat, None, True),
        (NoSeat, BusinessRuleViolation, "sold", True),
        (NoSeat, BusinessRuleViolation, "full", False),
        (BusinessRuleViolation, NoSeat, None, False),
        (LookupError, BusinessRuleViolation, None, False),
        (LookupError, LookupError, "out$", True),
    ],
)
def test_a_refusal_is_of_its_class_and_has_its_message(
    raised: type[Exception], expected: type[Exception], match: str | None, passes: bool
) -> None:
    decided = given().when(Refuse(stream=A, error=raised))
    if passes:
        decided.then_refused(expected, match=match)
    else:
        with pytest.raises(
            AssertionError, match=f"raises {raised.__name__}: sold out, and should be refused by {expected.__name__}"
        ):
            decided.then_refused(expected, match=match)


def test_only_the_end_of_a_long_history_is_shown() -> None:
    decided = given(*((A, Deposited(amount=number)) for number in range(100))).when(Deposit(account=A))
    with pytest.raises(AssertionError) as failure:
        decided.then()
    assert "… 80 events before\n  account-a  Deposited(amount=80)\n" in str(failure.value)
    assert "amount=79" not in str(failure.value)


_numbers = count(1)


class Impure(Command[None]):
    stream: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Deposited(amount=next(_numbers))


class Shared(Command[list[int]]):
    """Impure: its initial state is a shared object that an earlier decision has changed."""

    stream: StreamId

    def initial_state(self) -> list[int]:
        return _shared

    def apply(self, state: list[int], event: object) -> list[int]:
        state.append(1)
        return state

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Deposited(amount=len(state))


_shared: list[int] = []


@pytest.mark.parametrize("command", [Impure(stream=A), Shared(stream=A)])
def test_a_command_that_is_not_pure_is_found_out(command: Command[Any]) -> None:
    with pytest.raises(AssertionError, match=r"decides differently when it is asked again: .*handle must be pure"):
        given((A, Deposited(amount=1))).when(command)


class Elsewhere(Command[None]):
    stream: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield B, Deposited(amount=1)


def test_what_a_store_would_refuse_is_refused_here() -> None:
    with pytest.raises(InvalidCommand, match="which it does not read"):
        given().when(Elsewhere(stream=A))
    with pytest.raises(InvalidCommand, match="when got 'x' of type str"):
        given().when("x")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidEvent, match="Expected `int`, got `str`"):
        given().when(Deposit(account=A, amount="5"))  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidEvent, match="Expected `int`, got `str`"):
        given((A, Deposited(amount="5")))  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("pair", [Deposited(amount=1), (A, "event"), (A,), [A, Deposited(amount=1)]])
def test_what_is_no_pair_of_stream_and_event_is_refused(pair: Any) -> None:
    with pytest.raises(TypeError, match="expected a pair of StreamId and Event"):
        given(pair)
