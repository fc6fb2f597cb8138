"""Any interleaving of commands, reads and projections leaves what a model without concurrency leaves, too.

Concurrent commands are checked by their positions: executed one after the other in that order, the model decides the same.
``pytest --hypothesis-profile=long tests/contract/test_model.py`` looks for longer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from eventcore import (
    BusinessRuleViolation,
    Command,
    CommandResult,
    Event,
    EventStore,
    Projection,
    RecordedEvent,
    RetryPolicy,
    StreamId,
)
from eventcore.errors import IdempotencyKeyReused
from eventcore.stores import Backend, MemoryBackend, SqliteBackend, backend_from_url
from eventcore.testing import MakeBackend
from eventcore.testing.contract.accounts import (
    Collect,
    Deposit,
    Deposited,
    Guarantee,
    Link,
    Linked,
    Look,
    Remit,
    Transfer,
    Withdrawn,
    account,
)
from eventcore.testing.contract.fixtures import opened_store
from tests.contract.model import Model, Refused
from tests.real_parts.postgres import PostgresServer

STREAMS: Final = [account("a"), account("b"), account("bb"), StreamId("Account-a"), StreamId("é.日_%")]
PATTERNS: Final = ["*", "account-*", "account-?", "[aA]ccount-a", "*[!a]", "account-bb", "é*", "nothing"]
KINDS: Final[list[type[Event]]] = [Deposited, Withdrawn, Linked]
PATIENT: Final = RetryPolicy(attempts=500, max_delay=0.02)
LONG: Final = "long"
# Whether stores decide on streams that they have not read; by default, either.
FORCED: Final = os.environ.get("EVENTCORE_SPECULATION")

streams = st.sampled_from(STREAMS)
amounts = st.integers(0, 20)
commands = st.one_of(
    st.builds(Deposit, account=streams, amount=amounts, note=st.sampled_from(["", "é\\ '\"\u2028🚀"]), times=st.integers(1, 3)),
    st.builds(Transfer, source=streams, target=streams, amount=amounts),
    st.builds(Remit, source=streams, target=streams, amount=amounts),
    st.builds(Guarantee, account=streams, guarantor=streams, amount=amounts),
    st.builds(Link, account=streams, to=streams),
    st.builds(Collect, account=streams),
    st.builds(Look, accounts=st.lists(streams, min_size=1, max_size=4).map(tuple)),
)
keys = st.sampled_from(["k-1", "k-2", "é"])
modes = st.sampled_from(["on", "off"])
limits = st.none() | st.integers(0, 6)


class Follow(Projection):
    """Keeps what it is given, wherever it is run."""

    name = "model-all"
    batch_size = 7

    def __init__(self, seen: list[tuple[int, StreamId, int, Event]]) -> None:
        self.seen = seen

    def handle(self, event: RecordedEvent) -> None:
        self.seen.append((event.position, event.stream_id, event.version, event.data))


class FollowSome(Follow):
    name = "model-some"
    pattern = "[aA]ccount-a"
    event_types = (Deposited, Withdrawn)


class Machine(RuleBasedStateMachine):
    """Two stores on the same data, and the model; ``fresh`` gives the data, empty."""

    fresh: Callable[[], MakeBackend]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.runner = asyncio.Runner()
        self.make_backend = type(self).fresh()
        self.contexts: list[Any] = [None, None]
        self.stores: list[EventStore] = []
        self.running: dict[type[Follow], asyncio.Task[None]] = {}
        self.followed: dict[type[Follow], list[tuple[int, StreamId, int, Event]]] = {Follow: [], FollowSome: []}

    @initialize(speculations=st.tuples(modes, modes))
    def open(self, speculations: tuple[str, str]) -> None:
        self.stores = [self.runner.run(self._open(place, speculations[place])) for place in (0, 1)]

    async def _open(self, place: int, speculation: str) -> EventStore:
        with mock.patch.dict(os.environ, {"EVENTCORE_SPECULATION": FORCED or speculation}):
            self.contexts[place] = opened_store(self.make_backend())
            store: EventStore = await self.contexts[place].__aenter__()
        return store

    @rule(place=st.integers(0, 1), command=commands)
    def execute(self, place: int, command: Command[Any]) -> None:
        self._execute([(place, command)])

    @rule(calls=st.lists(st.tuples(st.integers(0, 1), commands), min_size=2, max_size=12))
    def execute_at_once(self, calls: list[tuple[int, Command[Any]]]) -> None:
        self._execute(calls)

    @rule(place=st.integers(0, 1), key=keys, command=commands)
    def execute_with_a_key(self, place: int, key: str, command: Command[Any]) -> None:
        if key not in self.model.keys:
            [answer] = self._execute([(place, command)], key)
            if isinstance(answer, CommandResult):
                self.model.keys[key] = (command, answer)
        elif self.model.keys[key][0] != command:
            with pytest.raises(IdempotencyKeyReused):
                self.runner.run(self.stores[place].execute(command, idempotency_key=key))

    @precondition(lambda self: self.model.keys)
    @rule(places=st.lists(st.integers(0, 1), min_size=1, max_size=4), key=keys)
    def repeat_what_had_the_key(self, places: list[int], key: str) -> None:
        if key not in self.model.keys:
            return
        command, first = self.model.keys[key]

        async def repeat() -> list[CommandResult]:
            return await asyncio.gather(*(self.stores[place].execute(command, idempotency_key=key) for place in places))

        assert self.runner.run(repeat()) == [first] * len(places)

    def _execute(
        self, calls: Sequence[tuple[int, Command[Any]]], key: str | None = None
    ) -> list[CommandResult | BaseException]:
        async def execute_all() -> list[CommandResult | BaseException]:
            async with asyncio.timeout(30):
                return await asyncio.gather(
                    *(self.stores[place].execute(command, retry=PATIENT, idempotency_key=key) for place, command in calls),
                    return_exceptions=True,
                )

        answers = self.runner.run(execute_all())
        began = len(self.model.log)
        decided_nothing: list[tuple[Command[Any], CommandResult | BaseException]] = []
        wrote: list[tuple[Command[Any], CommandResult]] = []
        for (_, command), answer in zip(calls, answers, strict=True):
            if isinstance(answer, CommandResult) and answer.events:
                wrote.append((command, answer))
            else:
                decided_nothing.append((command, answer))
        moments = [self._all_nothings(decided_nothing)]
        for command, result in sorted(wrote, key=lambda one: one[1].events[0].position):
            expected = self._decide(command)
            assert [(event.stream_id, event.data) for event in result.events] == expected, command
            self.model.append(expected)
            first = len(self.model.log) - len(expected) + 1
            assert [event.position for event in result.events] == list(range(first, first + len(expected)))
            assert [event.version for event in result.events] == [one.version for one in self.model.log[first - 1 :]]
            assert result.position == result.events[-1].position
            moments.append(self._all_nothings(decided_nothing))
        for number, (command, answer) in enumerate(decided_nothing):
            # It was right at one moment while the commands ran.
            assert any(moment[number] for moment in moments), f"{command} was answered with {answer!r}"
            if isinstance(answer, CommandResult):
                assert began <= answer.position <= len(self.model.log)
        if len(calls) == 1 and isinstance(answers[0], CommandResult):
            assert answers[0].position == len(self.model.log)
            assert answers[0].attempts == 1
        return answers

    def _decide(self, command: Command[Any]) -> list[tuple[StreamId, Event]]:
        try:
            return self.model.decide(command)
        except Refused:
            raise AssertionError(f"{command} was accepted, and should be refused") from None

    def _all_nothings(self, decided: Sequence[tuple[Command[Any], CommandResult | BaseException]]) -> list[bool]:
        return [self._is_right_now(command, answer) for command, answer in decided]

    def _is_right_now(self, command: Command[Any], answer: CommandResult | BaseException) -> bool:
        try:
            events = self.model.decide(command)
        except Refused:
            return isinstance(answer, BusinessRuleViolation)
        return isinstance(answer, CommandResult) and events == []

    @rule(place=st.integers(0, 1), stream=streams, after_version=st.integers(0, 5), limit=limits)
    def read(self, place: int, stream: StreamId, after_version: int, limit: int | None) -> None:
        async def read() -> list[tuple[int, int, Event]]:
            found = self.stores[place].read(stream, after_version=after_version, limit=limit)
            return [(event.position, event.version, event.data) async for event in found]

        assert self.runner.run(read()) == self.model.stream(stream, after_version, limit)

    @rule(
        place=st.integers(0, 1),
        after=st.integers(0, 12),
        pattern=st.none() | st.sampled_from(PATTERNS),
        event_types=st.none() | st.lists(st.sampled_from(KINDS), unique=True),
        limit=limits,
    )
    def read_all(
        self, place: int, after: int, pattern: str | None, event_types: list[type[Event]] | None, limit: int | None
    ) -> None:
        async def read() -> list[tuple[int, StreamId, int, Event]]:
            found = self.stores[place].read_all(after=after, pattern=pattern, event_types=event_types, limit=limit)
            return [(event.position, event.stream_id, event.version, event.data) async for event in found]

        assert self.runner.run(read()) == self.model.all(after, pattern, event_types, limit)

    @rule(place=st.integers(0, 1))
    def know_the_head(self, place: int) -> None:
        assert self.runner.run(self.stores[place].head_position()) == len(self.model.log)

    # Projections run beside the rules, now on one store, now on the other, and stop in order.

    @precondition(lambda self: len(self.running) < 2)
    @rule(place=st.integers(0, 1), kind=st.sampled_from([Follow, FollowSome]))
    def follow(self, place: int, kind: type[Follow]) -> None:
        async def start() -> None:
            projection = kind(self.followed[kind])
            self.running[kind] = asyncio.create_task(self.stores[place].run(projection, lease=600.0))

        if kind not in self.running:
            self.runner.run(start())

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 1))
    def catch_up(self, place: int) -> None:
        async def wait() -> None:
            for kind in self.running:
                await self.stores[place].wait_for(kind.name, len(self.model.log), timeout=20)

        self.runner.run(wait())
        if Follow in self.running:
            assert self.followed[Follow] == self.model.all(0, None, None, None)
        if FollowSome in self.running:
            assert self.followed[FollowSome] == self.model.all(0, FollowSome.pattern, FollowSome.event_types, None)

    @precondition(lambda self: self.running)
    @rule()
    def stop_following(self) -> None:
        self._stop()

    def _stop(self) -> None:
        async def stop() -> None:
            for task in self.running.values():
                task.cancel()
            await asyncio.wait(self.running.values(), timeout=20)

        if self.running:
            self.runner.run(stop())
            assert [task.cancelled() for task in self.running.values()] == [True] * len(self.running)
            self.running.clear()

    @precondition(lambda self: not self.running)
    @rule(place=st.integers(0, 1), speculation=modes)
    def open_again(self, place: int, speculation: str) -> None:
        async def open_again() -> EventStore:
            await self.contexts[place].__aexit__(None, None, None)
            return await self._open(place, speculation)

        self.stores[place] = self.runner.run(open_again())

    def teardown(self) -> None:
        try:
            self._stop()
            for context in self.contexts:
                if context is not None:
                    self.runner.run(context.__aexit__(None, None, None))
        finally:
            self.runner.close()


@pytest.fixture(scope="module")
def schemas() -> Iterator[int]:
    return count(1)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path, schemas: Iterator[int]) -> Callable[[], MakeBackend]:
    """A function that gives an empty store."""
    if request.param == "memory":

        def fresh_memory() -> MakeBackend:
            return MemoryBackend().another

        return fresh_memory
    if request.param == "sqlite":

        def fresh_sqlite() -> MakeBackend:
            path = tmp_path / f"model-{next(schemas)}.db"
            return lambda: SqliteBackend(str(path))

        return fresh_sqlite
    pytest.importorskip("asyncpg")
    server: PostgresServer = request.getfixturevalue("newest_postgres")
    database = server.url(server.new_database())

    def fresh_postgres() -> MakeBackend:
        url = f"{database}?schema=model_{next(schemas)}"

        def make_backend() -> Backend:
            return backend_from_url(url)

        return make_backend

    return fresh_postgres


@pytest.mark.timeout(3600)
def test_whatever_is_done_is_what_the_model_has_done(fresh: Callable[[], MakeBackend]) -> None:
    looking_longer = settings.get_current_profile_name() == LONG
    machine = type("MachineOnOneStore", (Machine,), {"fresh": staticmethod(fresh)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=400 if looking_longer else 25,
            stateful_step_count=60 if looking_longer else 25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )
