"""Errors travel: to other processes, to other callers, and past the place that raised them."""

from __future__ import annotations

import asyncio
import copy
import pickle
import traceback
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from eventcore import Command, EventStore, RecordedEvent, StreamId, Telemetry, errors
from eventcore.errors import BusinessRuleViolation, CommandTimeout, EventCoreError, Fault
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, account


def every_class(cls: type[EventCoreError] = EventCoreError) -> Iterator[type[EventCoreError]]:
    yield cls
    for derived in cls.__subclasses__():
        yield from every_class(derived)


class Overdrawn(BusinessRuleViolation):
    """An application's own refusal, whose ``__init__`` takes what its text does not hold."""

    def __init__(self, account: str, *, missing: int) -> None:
        super().__init__(f"{account} lacks {missing}")
        self.account = account
        self.missing = missing


def made(cls: type[EventCoreError]) -> EventCoreError:
    """An error of a class, with all the arguments that it may need."""
    if cls is Overdrawn:
        return Overdrawn("a", missing=3)
    if cls is errors.ConfigurationError:
        return errors.ConfigurationError([Fault("file", "key", "problem"), Fault("file", "other", "problem")])
    make: Any = cls
    for more in (
        {"key": "k"},
        {"may_have_committed": True},
        {"stream_id": "s", "version": 1, "position": 2, "event_type": "E"},
        {},
    ):
        try:
            return make("what happened", **more)  # type: ignore[no-any-return]  # `make` makes errors
        except TypeError:
            continue
    raise AssertionError(f"no arguments fit {cls}")


@pytest.mark.parametrize("cls", [*(cls for cls in every_class() if cls.__module__ == "eventcore.errors"), Overdrawn])
@pytest.mark.parametrize(
    "travel", [copy.copy, copy.deepcopy, *(lambda error, n=n: pickle.loads(pickle.dumps(error, n)) for n in range(6))]
)
def test_every_error_arrives_with_its_text_and_its_attributes(cls: type[EventCoreError], travel: Any) -> None:
    error = made(cls)
    error.add_note("a note")
    arrived = travel(error)
    assert type(arrived) is cls
    assert (str(arrived), arrived.args, arrived.__dict__) == (str(error), error.args, error.__dict__)
    assert arrived.__dict__ is not error.__dict__


def test_a_timeout_says_in_another_process_whether_to_check() -> None:
    error = pickle.loads(pickle.dumps(CommandTimeout("no answer", may_have_committed=True)))
    assert error.may_have_committed
    assert isinstance(error, TimeoutError)


def entries(error: BaseException) -> int:
    return len(list(traceback.walk_tb(error.__traceback__)))


class Refuse(Command[int]):
    """Raises one and the same object each time."""

    account: StreamId
    error: ClassVar[BaseException]
    in_apply: bool = False

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        if self.in_apply:
            raise self.error
        return state

    def handle(self, state: int) -> None:
        raise self.error


@pytest.mark.parametrize("error", [BusinessRuleViolation("closed"), LookupError("of the command")])
@pytest.mark.parametrize("in_apply", [False, True])
async def test_an_error_that_a_command_raises_again_and_again_does_not_grow(
    store: EventStore, error: BaseException, in_apply: bool
) -> None:
    await store.execute(Deposit(account=account(1)))
    Refuse.error = error
    lengths: list[int] = []
    for _ in range(20):
        calls = [store.execute(Refuse(account=account(1), in_apply=in_apply)) for _ in range(5)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers == [error] * 5
        lengths.append(entries(error))
    # One call may raise it while another still handles it, so a traceback may hold a few raises, but not all of them.
    assert max(lengths) < 100, lengths
    assert lengths[-1] <= max(lengths[:5]), lengths


@pytest.mark.parametrize("place", ["append", "read_streams"])
async def test_an_error_that_a_backend_raises_again_and_again_does_not_grow(telemetry: Telemetry, place: str) -> None:
    backend, error = SteeredBackend(), errors.StoreUnavailable("away")

    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=account(0)))
        setattr(backend, place, fail)
        kept: list[BaseException] = []
        for _ in range(20):
            # The first account is in the cache, so that its command comes to the append.
            calls = [store.execute(Deposit(account=account(0 if place == "append" else number))) for number in range(1, 6)]
            kept += [
                answer for answer in await asyncio.gather(*calls, return_exceptions=True) if isinstance(answer, BaseException)
            ]
    assert [str(one) for one in kept] == ["away"] * 100
    assert len({id(one) for one in kept}) == 100, "each caller has an error of its own"
    assert len({entries(one) for one in kept}) == 1
    assert entries(error) < 100
