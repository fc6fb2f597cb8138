from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from eventcore import Command, Event, EventStore, RecordedEvent, RetryPolicy, StreamId, Telemetry, open_store
from eventcore.errors import InvalidCommand, InvalidEvent, StoreClosed, WrongEventLoop
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Deposited, account


class _Order(Command[list[int]]):
    streams: frozenset[StreamId]
    optional: StreamId | None = None

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        return [*state, event.position]

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        assert state == sorted(state)
        for stream in sorted(self.streams):
            yield stream, Deposited(amount=len(state))


# What a command may not do


async def test_a_plain_str_in_place_of_a_stream_id_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidCommand, match=r"Deposit.account holds 'a' of type str; write StreamId\('a'\)"):
        await store.execute(Deposit(account="a"))  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidCommand, match=r"_Order.streams holds 'a' of type str"):
        await store.execute(_Order(streams={"a"}))  # type: ignore[arg-type]  # that is the point


class _Elsewhere(Command[None]):
    account: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield account("elsewhere"), Deposited(amount=1)


async def test_writing_outside_the_boundary_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidCommand, match="writes to the stream StreamId\\('account-elsewhere'\\), which it does not read"):
        await store.execute(_Elsewhere(account=account("a")))


class _Yields(Command[None]):
    account: StreamId
    what: Any

    def handle(self, state: None) -> Any:
        return self.what


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (7, "handle returned 7; expected pairs"),
        ([7], "handle yields 7 of type int"),
        ([(account("a"), "no event")], "handle yields .* of type tuple"),
        ([("account-a", Deposited(amount=1))], "writes to 'account-a' of type str"),
    ],
)
async def test_a_decision_that_is_none_is_refused(store: EventStore, what: Any, problem: str) -> None:
    with pytest.raises(InvalidCommand, match=problem):
        await store.execute(_Yields(account=account("a"), what=what))


class _Discovers(Command[None]):
    account: StreamId
    what: Any

    def discover_streams(self, state: Any) -> Any:
        return self.what

    def handle(self, state: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (None, "_Discovers.discover_streams returned None; expected StreamIds, .* or an empty list"),
        (7, "_Discovers.discover_streams returned 7; expected StreamIds"),
        (
            "order-1",
            "_Discovers.discover_streams returned 'order-1', a text and no list of streams; .*StreamId\\('order-1'\\)",
        ),
        (
            StreamId("order-1"),
            r"_Discovers.discover_streams returned StreamId\('order-1'\), .* return \[StreamId\('order-1'\)\]",
        ),
        (["account-a"], "_Discovers.discover_streams names 'account-a' of type str"),
    ],
)
async def test_discovered_streams_that_are_none_are_refused(store: EventStore, what: Any, problem: str) -> None:
    with pytest.raises(InvalidCommand, match=problem):
        await store.execute(_Discovers(account=account("a"), what=what))


async def test_an_event_that_would_not_read_back_is_refused_and_harms_no_other(store: EventStore) -> None:
    good = [store.execute(Deposit(account=account(number))) for number in range(5)]
    bad = store.execute(_Yields(account=account("bad"), what=[(account("bad"), Deposited(amount="5"))]))  # type: ignore[arg-type]  # that is the point
    *fine, refused = await asyncio.gather(*good, bad, return_exceptions=True)
    assert isinstance(refused, InvalidEvent)
    assert "bank.Deposited: would not read back: Expected `int`, got `str` - at `$.amount`" in str(refused)
    assert not [result for result in fine if isinstance(result, BaseException)]
    assert await store.head_position() == 5


async def test_what_a_command_raises_reaches_its_caller_as_it_is(store: EventStore) -> None:
    class Broken(Command[None]):
        account: StreamId

        def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
            raise LookupError("of the command")

    with pytest.raises(LookupError, match="of the command"):
        await store.execute(Broken(account=account("a")))
    await store.execute(Deposit(account=account("a")))


def _commands_that_cannot_be() -> Iterable[tuple[type[Command[Any]], str]]:
    class NoStream(Command[None]):
        amount: int = 1

        def handle(self, state: None) -> None:
            return None

    class NoHandle(Command[None]):
        account: StreamId = account("a")

    class HalfAState(Command[int]):
        account: StreamId = account("a")

        def initial_state(self) -> int:
            return 0

        def handle(self, state: int) -> None:
            return None

    yield NoStream, "has no field of type StreamId"
    yield NoHandle, "does not define handle"
    yield HalfAState, "defines only one of initial_state and apply"


@pytest.mark.parametrize(("command", "problem"), list(_commands_that_cannot_be()))
async def test_a_command_class_that_cannot_work_is_refused(command: type[Command[Any]], problem: str) -> None:
    async with open_store("memory:", exporters=[]) as store:
        with pytest.raises(InvalidCommand, match=problem):
            await store.execute(command())


def test_a_command_class_with_an_async_method_is_refused_when_it_is_defined() -> None:
    with pytest.raises(InvalidCommand, match=r"AsyncHandle\.handle is async; expected a plain method"):

        class AsyncHandle(Command[None]):  # pyright: ignore[reportUnusedClass]  # defining it raises
            account: StreamId

            async def handle(self, state: None) -> None:  # type: ignore[override]  # that is the point
                return None

    with pytest.raises(InvalidCommand, match=r"AsyncYields\.handle is async"):

        class AsyncYields(Command[None]):  # pyright: ignore[reportUnusedClass]  # defining it raises
            account: StreamId

            async def handle(self, state: None) -> AsyncIterator[Any]:  # type: ignore[override]  # that is the point
                yield 1

    with pytest.raises(InvalidCommand, match=r"AsyncApply\.apply is async"):

        class AsyncApply(Command[int]):  # pyright: ignore[reportUnusedClass]  # defining it raises
            account: StreamId

            def initial_state(self) -> int:
                return 0

            async def apply(self, state: int, event: RecordedEvent) -> int:  # type: ignore[override]  # that is the point
                return state


async def test_something_else_than_a_command_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidCommand, match="got 'x' of type str"):
        await store.execute("x")  # type: ignore[arg-type]  # that is the point


# Life of a store


async def test_a_store_is_used_within_its_block_only(url: str) -> None:
    store = open_store(url, exporters=[])
    with pytest.raises(StoreClosed, match="async with"):
        await store.execute(Deposit(account=account("a")))
    async with store:
        await store.execute(Deposit(account=account("a")))
    with pytest.raises(StoreClosed):
        await store.execute(Deposit(account=account("a")))
    await store.close()
    with pytest.raises(StoreClosed, match="opened once"):
        await store.__aenter__()


async def test_closing_lets_the_commands_in_flight_end(url: str, telemetry: Telemetry) -> None:
    async with open_store(url, telemetry=telemetry) as store:
        calls = [asyncio.ensure_future(store.execute(Deposit(account=account(number % 100)))) for number in range(300)]
        # They have begun: some are loading, some wait to be appended.
        await asyncio.sleep(0)
        await store.close(timeout=20)
        positions = sorted([result.position for result in await asyncio.gather(*calls)])
    assert positions == list(range(1, 301))


async def test_a_command_that_waits_for_its_retry_ends_before_the_store_closes(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    stream = account("a")
    async with backend.store(telemetry) as store:
        versions = iter([1, 2, 3])

        def overtake(requests: object) -> None:
            if (version := next(versions, None)) is not None:
                backend.overtake(stream, version, 1)

        backend.before_append = overtake
        retry = RetryPolicy(attempts=5, base_delay=0.1, max_delay=0.1)
        command = asyncio.ensure_future(store.execute(Deposit(account=stream), retry=retry))
        await asyncio.sleep(0)
        await store.close(timeout=10)
        assert (await command).attempts > 1


async def test_another_event_loop_is_refused(url: str) -> None:
    async with open_store(url, exporters=[]) as store:
        with pytest.raises(WrongEventLoop, match="run_coroutine_threadsafe"):
            await asyncio.to_thread(asyncio.run, store.execute(Deposit(account=account("a"))))
