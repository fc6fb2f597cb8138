"""The command's span is current where its code and its store calls run, here and in other tracing systems."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Any, ClassVar, TypeAlias

import pytest

from eventcore import Command, EventStore, Projection, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.recording import TraceContext, Tracer
from tests.store.bank import Deposit, Deposited, account
from tests.store.test_catalogue import Keeper

State: TypeAlias = dict[StreamId, int]
Noted: TypeAlias = tuple[str, int | None, tuple[int, bool] | None]

_other: ContextVar[tuple[int, bool] | None] = ContextVar("other_system", default=None)


class OtherSystem:
    """Another tracing system: its current span is in a context variable of its own."""

    may_be_unused = True

    def current(self) -> TraceContext | None:
        return None

    def in_use(self) -> bool:
        return True

    def attach(self, context: TraceContext, own_io: bool) -> object:
        return _other.set((context.span_id, own_io))

    def detach(self, token: Token[Any]) -> None:
        _other.reset(token)


class Note(Command[State]):
    """Notes the current spans in each of its methods."""

    account: StreamId
    number: int
    noted: ClassVar[list[tuple[int, Noted]]] = []

    def _note(self, where: str) -> None:
        span = Tracer.current()
        self.noted.append((self.number, (where, None if span is None else span.span_id, _other.get())))

    def initial_state(self) -> State:
        return {}

    def apply(self, state: State, event: RecordedEvent) -> State:
        self._note("apply")
        return state

    def discover_streams(self, state: State) -> Sequence[StreamId]:
        self._note("discover_streams")
        return (account("found"),)

    def handle(self, state: State) -> Any:
        self._note("handle")
        yield self.account, Deposited(amount=1)


@pytest.fixture(autouse=True)
def _forget() -> None:
    Note.noted.clear()


@pytest.fixture
def keeper(telemetry: Telemetry) -> Keeper:
    keeper = Keeper()
    telemetry.register_exporter(keeper)
    return keeper


async def test_each_of_many_commands_on_one_stream_sees_its_own_span(
    store: EventStore, telemetry: Telemetry, keeper: Keeper
) -> None:
    telemetry._tracer.ring.attached = (OtherSystem(),)
    await store.execute(Deposit(account=account("a")))

    async def execute(number: int) -> int:
        with telemetry.span("request"):
            await store.execute(Note(account=account("a"), number=number))
            current = telemetry.current_span()
            assert current is not None
            assert current.name == "request"
            return current.span_id

    requests = await asyncio.gather(*(execute(number) for number in range(50)))
    assert telemetry.current_span() is None
    assert _other.get() is None
    assert await telemetry.flush(5.0)
    spans = {span.parent_span_id: span.context.span_id for span in keeper.named("execute Note")}
    assert {where for _, (where, _, _) in Note.noted} == {"apply", "discover_streams", "handle"}
    for number, (where, span_id, attached) in Note.noted:
        own = spans[requests[number]]
        assert (where, span_id, attached) == (where, own, (own, False))


async def test_a_store_call_is_marked_as_eventcores_own(store: EventStore, telemetry: Telemetry, keeper: Keeper) -> None:
    telemetry._tracer.ring.attached = (OtherSystem(),)
    seen: dict[str, tuple[int | None, tuple[int, bool] | None]] = {}
    log: Any = store._backend.log._log

    def observed(name: str, call: Any) -> Any:
        def calling(*args: Any, **kwargs: Any) -> Any:
            span = telemetry.current_span()
            seen[name] = (None if span is None else span.span_id, _other.get())
            return call(*args, **kwargs)

        return calling

    for name in ("append", "read_streams"):
        setattr(log, name, observed(name, getattr(log, name)))
    await store.execute(Deposit(account=account("a")))
    assert await telemetry.flush(5.0)
    for name, call in (("append events", "append"), ("read streams", "read_streams")):
        [span] = keeper.named(name)
        # A store in memory calls no driver.
        marked = None if store._backend.log._system == "memory" else (span.context.span_id, True)
        assert seen[call] == (span.context.span_id, marked)


class CountingSystem(OtherSystem):
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def current(self) -> TraceContext | None:
        self.calls["current"] += 1
        return TraceContext(1, 2, 1)

    def attach(self, context: TraceContext, own_io: bool) -> object:
        if context.valid:  # those of the PostgreSQL store's statements that belong to no call have no span
            self.calls["own call" if own_io else "attach"] += 1
        return super().attach(context, own_io)


async def test_a_command_asks_another_system_once_and_is_attached_to_it_once(store: EventStore, telemetry: Telemetry) -> None:
    await store.execute(Deposit(account=account("a")))
    other = CountingSystem()
    telemetry._tracer.ambient = telemetry._tracer.ring.attached = (other,)
    # The stream is in the cache, so that there is one call to the store.
    await store.execute(Deposit(account=account("a")))
    own_calls = other.calls.pop("own call", 0)
    assert other.calls == {"current": 1, "attach": 1}
    # The PostgreSQL store marks the connection's own calls inside of it, too.
    assert own_calls in ((0,) if store._backend.log._system == "memory" else (1, 2))


class Tenant(Command[list[str]]):
    """Notes the caller's context variable in each of its methods, and sets it."""

    account: StreamId
    current: ClassVar[ContextVar[str]] = ContextVar("tenant", default="none")
    seen: ClassVar[list[tuple[str, str]]] = []

    def initial_state(self) -> list[str]:
        return []

    def apply(self, state: list[str], event: RecordedEvent) -> list[str]:
        self.seen.append(("apply", self.current.get()))
        return state

    def handle(self, state: list[str]) -> Any:
        self.seen.append(("handle", self.current.get()))
        self.current.set("changed")
        yield self.account, Deposited(amount=1)


async def test_a_commands_code_sees_the_context_variables_of_its_caller_and_changes_those_of_nobody(store: EventStore) -> None:
    async def execute(tenant: str) -> str:
        Tenant.current.set(tenant)
        await store.execute(Tenant(account=account("a")))
        return Tenant.current.get()

    Tenant.seen.clear()
    assert await asyncio.gather(*map(execute, "abc")) == ["a", "b", "c"]
    assert await asyncio.create_task(execute("d")) == "d"
    assert Tenant.current.get() == "none"
    assert [tenant for where, tenant in Tenant.seen if where == "handle"] == ["a", "b", "c", "d"]
    assert {tenant for where, tenant in Tenant.seen if where == "apply"} <= {"a", "b", "c", "d"}


async def test_a_handler_that_raises_leaves_nothing_current(store: EventStore, telemetry: Telemetry) -> None:
    class Failing(Note):
        def handle(self, state: State) -> Any:
            raise KeyError("gone")

    for _ in range(2):
        with pytest.raises(KeyError):
            await store.execute(Failing(account=account("a"), number=0))
    await store.execute(Note(account=account("a"), number=1))
    assert all(span_id is not None for _, (_, span_id, _) in Note.noted)
    assert telemetry.current_span() is None


class Seeing(Projection):
    name = "seeing"

    def __init__(self) -> None:
        self.seen: list[tuple[int | None, tuple[int, bool] | None]] = []

    def note(self) -> None:
        span = Tracer.current()
        self.seen.append((None if span is None else span.span_id, _other.get()))


class OnLoop(Seeing):
    async def handle(self, event: RecordedEvent) -> None:
        self.note()
        await asyncio.sleep(0)
        self.note()


class InTransaction(Seeing):
    def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
        self.note()


@pytest.mark.parametrize("kind", [OnLoop, InTransaction])
async def test_a_projections_span_is_current_in_its_handler_also_in_the_thread_of_sqlite(
    kind: type[Seeing], sqlite_url: str, telemetry: Telemetry, keeper: Keeper
) -> None:
    telemetry._tracer.ring.attached = (OtherSystem(),)
    async with open_store(sqlite_url, telemetry=telemetry) as store:
        await store.execute(Deposit(account=account("a")))
        projection: Any = kind()
        running = asyncio.ensure_future(store.run(projection))
        await store.wait_for("seeing", 1)
        running.cancel()
        await asyncio.wait([running])
    assert await telemetry.flush(5.0)
    [span] = keeper.named("project seeing")
    assert set(projection.seen) == {(span.context.span_id, (span.context.span_id, False))}


async def test_the_duration_of_a_sampled_command_leads_to_its_trace(
    store: EventStore, telemetry: Telemetry, keeper: Keeper
) -> None:
    await store.execute(Deposit(account=account("a")))
    assert await telemetry.flush(5.0)
    [span] = keeper.named("execute Deposit")
    [data] = [data for data in telemetry.collect().histograms if data.name == "eventcore.commands.duration"]
    [exemplar] = [exemplar for point in data.points for exemplar in point.exemplars]
    assert (exemplar.trace_id, exemplar.span_id) == (span.context.trace_id, span.context.span_id)
    assert exemplar.value == data.points[0].sum
