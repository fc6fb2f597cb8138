"""Batches: decided in order of arrival, chained, judged command by command, and halved when one command is at fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

import pytest

from eventcore import BusinessRuleViolation, Command, CommandResult, Event, RecordedEvent, RetryPolicy, StreamId, Telemetry
from eventcore.errors import CommandTimeout, ConcurrencyConflict, StoreError, StoreUnavailable
from eventcore.stores import AppendRequest
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Deposited, Transfer, account
from tests.store.conftest import Measured

A, B = account("a"), account("b")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def held_up(backend: SteeredBackend, first: Awaitable[CommandResult]) -> asyncio.Future[CommandResult]:
    """Send one command and hold its append, so that the commands that follow form one batch."""
    backend.hold()
    call = asyncio.ensure_future(first)
    await until(lambda: bool(backend.appends))
    return call


async def waiting(*calls: Awaitable[CommandResult]) -> Sequence[asyncio.Future[CommandResult]]:
    """Start calls one after the other, and let each run until it waits for its decision."""
    tasks = []
    for call in calls:
        tasks.append(asyncio.ensure_future(call))
        for _ in range(12):
            await asyncio.sleep(0)
    return tasks


async def test_commands_that_wait_at_the_same_time_are_committed_in_one_call(telemetry: Telemetry, measured: Measured) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=A)))
        others = await waiting(*(store.execute(Deposit(account=account(number))) for number in range(50)))
        backend.let_all()
        await asyncio.gather(first, *others)
    assert backend.appends == [1, 50]
    assert measured("store.append.batch") == 2


class _Many(Command[None]):
    stream: StreamId
    events: int

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        for _ in range(self.events):
            yield self.stream, Deposited(amount=1)


async def test_the_loop_goes_round_while_commands_of_a_batch_apply_the_many_events_of_another(telemetry: Telemetry) -> None:
    rounds = 0
    applied: Counter[int] = Counter()

    class Balance(Command[int]):
        stream: StreamId

        def initial_state(self) -> int:
            return 0

        def apply(self, state: int, event: RecordedEvent) -> int:
            applied[rounds] += 1
            return state + 1

        def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
            yield self.stream, Deposited(amount=state)

    async def go_round() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        others = await waiting(
            store.execute(_Many(stream=A, events=1000)), *(store.execute(Balance(stream=A)) for _ in range(25))
        )
        going = asyncio.ensure_future(go_round())
        backend.let_all()
        results = await asyncio.gather(first, *others)
        going.cancel()
    assert backend.appends == [1, 26]
    assert [result.events[0].version for result in results[2:]] == list(range(1001, 1026))
    assert max(applied.values()) < 3000, "each of the 25 applies more than 1,000 events"


async def test_many_are_committed_in_halves_and_the_second_is_sent_before_the_first_is_answered(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    answered_before: list[int] = []
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=A)))
        others = await waiting(*(store.execute(Deposit(account=account(number))) for number in range(200)))
        backend.before_append = lambda requests: answered_before.append(sum(call.done() for call in others))
        backend.let_all()
        await asyncio.gather(first, *others)
    # The command that is about to be answered counts as waiting: half of 201 is 101.
    assert backend.appends == [1, 101, 99]
    assert answered_before[1:] == [0, 0]


async def test_callers_that_have_come_apart_are_committed_together_again(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:

        async def caller(number: int) -> CommandResult:
            for _ in range(9):
                await store.execute(Deposit(account=account(number)))
            return await store.execute(Deposit(account=account(number)))

        backend.hold()
        first = await waiting(caller(0))
        await until(lambda: bool(backend.appends))
        others = await waiting(*(caller(number) for number in range(1, 16)))
        backend.let_all()
        await asyncio.gather(*first, *others)
    # One caller is answered while the others wait. Going round in turns with them, it would double the number of calls.
    assert sum(backend.appends) == 160
    assert len(backend.appends) <= 12


async def test_a_chain_on_one_stream_needs_one_attempt_each_in_order_of_arrival(
    telemetry: Telemetry, measured: Measured
) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=A, amount=0)))
        others = await waiting(*(store.execute(Deposit(account=A, amount=number)) for number in range(1, 40)))
        backend.let_all()
        results = await asyncio.gather(first, *others)
        stored = [event.data async for event in store.read(A)]
    assert backend.appends == [1, 39]
    assert {result.attempts for result in results} == {1}
    assert [result.position for result in results] == list(range(1, 41))
    assert stored == [Deposited(amount=number) for number in range(40)]
    assert measured("commands.conflicts", resolution="chained") == 39
    assert measured("commands.conflicts") == 39


class _Look(Command[int]):
    """Writes nothing; refuses when its stream is empty."""

    stream: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        return state + 1

    def handle(self, state: int) -> None:
        if not state:
            raise BusinessRuleViolation("nothing is there")


async def test_a_command_without_events_is_answered_with_the_position_of_what_it_has_seen_of_its_batch(
    telemetry: Telemetry,
) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        others = await waiting(*(store.execute(Deposit(account=A)) for _ in range(3)), store.execute(_Look(stream=A)))
        backend.let_all()
        results = await asyncio.gather(first, *others)
    assert [result.position for result in results] == [1, 2, 3, 4, 4]


async def test_a_command_without_events_is_answered_with_the_position_of_what_was_committed_while_it_waited(
    telemetry: Telemetry,
) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=A)))
        [look] = await waiting(store.execute(_Look(stream=A)))
        backend.let_all()
        assert [(await call).position for call in (first, look)] == [1, 1]


async def test_a_refusal_that_depends_on_uncommitted_events_waits_for_their_verdict(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=5))
        backend.appends.clear()
        first = await held_up(backend, store.execute(Deposit(account=B, amount=0)))
        spend, again = await waiting(*(store.execute(Transfer(source=A, target=B, amount=5)) for _ in range(2)))
        backend.let_one()
        await first
        await until(lambda: backend.appends == [1, 2])
        assert not again.done()
        backend.let_all()
        await spend
        with pytest.raises(BusinessRuleViolation, match="holds 0"):
            await again


async def test_a_refusal_on_uncommitted_events_that_are_then_refused_is_decided_again(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=5))
        backend.appends.clear()
        first = await held_up(backend, store.execute(Deposit(account=account("c"))))
        spend, again = await waiting(*(store.execute(Transfer(source=A, target=B, amount=5)) for _ in range(2)))

        def overtake_once(requests: Sequence[AppendRequest]) -> None:
            if len(requests) == 2:
                backend.before_append = lambda requests: None
                backend.overtake(A, 2, 5)

        backend.before_append = overtake_once
        backend.let_all()
        results = await asyncio.gather(first, spend, again)
        # The last command was decided on cached state: its first read is no second attempt.
        assert [result.attempts for result in results] == [1, 2, 1]
        assert [event.data.amount async for event in store.read(A)] == [5, 5, 5, 5]  # type: ignore[attr-defined]  # they all have it


class _Counting(Command[list[int]]):
    """Adds up the amounts that it has seen, so that a decision on events that were never committed shows."""

    stream: StreamId

    def initial_state(self) -> list[int]:
        return []

    def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
        assert isinstance(event.data, Deposited)
        state.append(event.data.amount)
        return state

    def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, Deposited(amount=sum(state) + 1)


async def test_an_event_of_another_process_never_passes_for_one_of_a_refused_predecessor(telemetry: Telemetry) -> None:
    """One event of another process brings the stream to exactly the version that the second command of the chain expects."""
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        chain = await waiting(*(store.execute(_Counting(stream=A)) for _ in range(3)))

        def overtake_once(requests: Sequence[AppendRequest]) -> None:
            if len(requests) == 3:
                backend.before_append = lambda requests: None
                backend.overtake(A, 1, 1000)

        backend.before_append = overtake_once
        backend.let_all()
        await asyncio.gather(first, *chain)
        amounts = [event.data.amount async for event in store.read(A)]  # type: ignore[attr-defined]  # they all have it
    assert amounts == [1000, 1001, 2002, 4004]


async def test_a_command_that_is_overtaken_in_every_attempt_gives_up(telemetry: Telemetry, measured: Measured) -> None:
    backend = SteeredBackend()
    versions = iter(range(1, 100))
    async with backend.store(telemetry) as store:
        backend.before_append = lambda requests: backend.overtake(A, next(versions), 1)
        with pytest.raises(ConcurrencyConflict, match="Deposit: other writers changed its streams in each of 4 attempts"):
            await store.execute(Deposit(account=A), retry=RetryPolicy(attempts=4, base_delay=0.001, max_delay=0.002))
    assert measured("commands.conflicts", resolution="escaped") == 4
    assert measured("commands.retries", reason="version") == 3
    assert measured("commands.total", outcome="conflict") == 1
    assert measured("commands.duration", outcome="conflict") == 1


async def test_a_command_that_is_overtaken_once_is_retried_and_wins(telemetry: Telemetry, measured: Measured) -> None:
    backend = SteeredBackend()

    def overtake_once(requests: Sequence[AppendRequest]) -> None:
        backend.before_append = lambda requests: None
        backend.overtake(A, 1, 7)

    async with backend.store(telemetry) as store:
        backend.before_append = overtake_once
        result = await store.execute(_Counting(stream=A))
    assert (result.attempts, result.position) == (2, 2)
    assert result.events[0].data == Deposited(amount=8)
    assert measured("commands.conflicts", resolution="absorbed") == 1


async def test_a_stream_that_is_only_read_is_checked_too(telemetry: Telemetry) -> None:
    class CopyBalance(Command[list[int]]):
        source: StreamId
        target: StreamId

        def initial_state(self) -> list[int]:
            return []

        def apply(self, state: list[int], event: RecordedEvent) -> list[int]:
            assert isinstance(event.data, Deposited)
            return [*state, event.data.amount] if event.stream_id == self.source else state

        def handle(self, state: list[int]) -> Iterable[tuple[StreamId, Event]]:
            yield self.target, Deposited(amount=sum(state))

    backend = SteeredBackend()

    def overtake_once(requests: Sequence[AppendRequest]) -> None:
        backend.before_append = lambda requests: None
        backend.overtake(A, 1, 7)

    async with backend.store(telemetry) as store:
        backend.before_append = overtake_once
        result = await store.execute(CopyBalance(source=A, target=B))
    assert result.attempts == 2
    assert result.events[0].data == Deposited(amount=7)


async def test_one_bad_command_in_a_batch_fails_alone(telemetry: Telemetry, measured: Measured) -> None:
    backend = SteeredBackend()

    def poisoned(requests: Sequence[AppendRequest]) -> None:
        if any(b"666" in new.data for request in requests for new in request.events):
            raise ZeroDivisionError("a bug of the backend")

    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        backend.before_append = poisoned
        amounts = [*range(20), 666, *range(20)]
        calls = await waiting(
            *(store.execute(Deposit(account=account(number), amount=amount)) for number, amount in enumerate(amounts))
        )
        backend.let_all()
        results = await asyncio.gather(first, *calls, return_exceptions=True)
        assert await store.head_position() == 41
    [failure] = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(failure, StoreError)
    assert "ZeroDivisionError: a bug of the backend" in str(failure)
    assert isinstance(failure.__cause__, ZeroDivisionError)
    assert measured("store.errors", operation="append", error_type="ZeroDivisionError") >= 1
    assert measured("commands.total", outcome="error") == 1


async def test_an_unavailable_store_fails_the_whole_batch_without_trying_each(telemetry: Telemetry) -> None:
    backend = SteeredBackend()

    def unavailable(requests: Sequence[AppendRequest]) -> None:
        raise StoreUnavailable("no disk")

    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        calls = await waiting(*(store.execute(Deposit(account=account(number))) for number in range(8)))
        backend.before_append = unavailable
        backend.let_all()
        results = await asyncio.gather(first, *calls, return_exceptions=True)
    assert backend.appends == [1, 8]
    assert [type(result) for result in results] == [StoreUnavailable] * 9
    assert len({id(result) for result in results[1:]}) == 8


# Cancellation and timeouts


async def test_a_command_cancelled_before_its_batch_is_sent_writes_nothing(telemetry: Telemetry, measured: Measured) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        stays, leaves = await waiting(store.execute(Deposit(account=A)), store.execute(Deposit(account=A, amount=2)))
        leaves.cancel()
        backend.let_all()
        await asyncio.gather(first, stays)
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert [event.data async for event in store.read(A)] == [Deposited(amount=1)]
    assert measured("commands.total", outcome="cancelled") == 1
    assert measured("commands.active") == 0


async def test_a_command_cancelled_after_its_batch_is_sent_harms_no_other_of_the_batch(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        leaves, stays = await waiting(store.execute(Deposit(account=A, amount=2)), store.execute(_Counting(stream=A)))
        backend.let_one()
        await first
        await until(lambda: backend.appends == [1, 2])
        leaves.cancel()
        backend.let_all()
        await stays
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert [event.data async for event in store.read(A)] == [Deposited(amount=2), Deposited(amount=3)]


async def test_a_timeout_before_the_append_says_that_nothing_was_written(telemetry: Telemetry, measured: Measured) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        with pytest.raises(CommandTimeout, match=r"no answer within 0.02 s; nothing was written") as timeout:
            await store.execute(Deposit(account=A), timeout=0.02)
        assert not timeout.value.may_have_committed
        backend.let_all()
        await first
        assert await store.head_position() == 1
    assert measured("commands.total", outcome="error", error_type="CommandTimeout") == 1


async def test_a_timeout_during_the_append_says_that_the_events_may_be_stored(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        backend.hold()
        with pytest.raises(CommandTimeout, match="its events may be stored") as timeout:
            await store.execute(Deposit(account=A), timeout=0.02)
        assert timeout.value.may_have_committed
        assert isinstance(timeout.value, TimeoutError)
        backend.let_all()
        # The batcher learned the commit, so the next command decides on it without a read.
        assert (await store.execute(_Counting(stream=A))).position == 2


async def test_closing_within_its_timeout_answers_everyone_though_the_backend_hangs(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        first = await held_up(backend, store.execute(Deposit(account=B)))
        others = await waiting(*(store.execute(Deposit(account=A)) for _ in range(3)))
        await store.close(timeout=0.05)
        results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(result) for result in results] == [StoreError, *[type(results[1])] * 3]
    assert "events may be stored" in str(results[0])
    assert "closed before the command was sent" in str(results[1])


# The stream cache


async def test_a_cached_stream_is_not_read_again_before_it_is_written(telemetry: Telemetry, measured: Measured) -> None:
    async with SteeredBackend().store(telemetry) as store:
        for _ in range(5):
            await store.execute(Deposit(account=A))
        assert measured("store.operation.duration", operation="read_streams") == 1
        assert measured("commands.phase.duration", phase="load") == 5


async def test_a_refusal_is_never_given_on_cached_state_alone(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=A, amount=1))
        backend.overtake(A, 2, 50)
        result = await store.execute(Transfer(source=A, target=B, amount=50))
        assert (result.attempts, len(result.events)) == (1, 2)


async def test_a_stream_that_another_writer_was_seen_in_is_read_each_time_for_a_while(
    telemetry: Telemetry, measured: Measured
) -> None:
    backend = SteeredBackend()
    async with backend.store(telemetry) as store:
        await store.execute(Deposit(account=A))
        backend.overtake(A, 2, 5)
        before = measured("store.operation.duration", operation="read_streams")
        results = [await store.execute(Deposit(account=A)) for _ in range(3)]
        assert [result.attempts for result in results] == [1, 1, 1]
        assert measured("store.operation.duration", operation="read_streams") - before == 2, "the refusal brought the rows"
        assert measured("commands.conflicts") == 0
