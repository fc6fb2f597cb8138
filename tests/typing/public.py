"""The types of the public surface: checked by mypy and pyright, never run."""

from collections.abc import Iterator, Sequence
from sqlite3 import Connection
from typing import assert_type

import pytest

from eventcore import (
    Command,
    CommandResult,
    Event,
    EventMetadata,
    EventStore,
    OnError,
    Projection,
    RawEvent,
    RecordedEvent,
    RetryPolicy,
    StreamId,
    Telemetry,
    TraceContext,
    open_store,
)
from eventcore.errors import BusinessRuleViolation, EventCoreError
from eventcore.exporting import CounterData, Exporter, ExporterContext, HistogramPoint, NumberPoint, SpanData, hookimpl
from eventcore.health import HealthListener, HealthSettings, HealthStatus, asgi_app
from eventcore.serving import Access, Limits, Listener, Request, Response, hash_password, plain
from eventcore.stores import MemoryBackend
from eventcore.testing import (
    ExporterContract,
    ExporterSetup,
    Given,
    MakeBackend,
    ProjectionContract,
    ReadModel,
    Received,
    ReceivedPoint,
    RecordingExporter,
    RecordingTelemetry,
    StoreContract,
    When,
    exporter_context,
    given,
    sample_counter,
    sample_span,
)


class Deposited(Event):
    amount: int
    note: str = ""


class Deposit(Command[dict[StreamId, int]]):
    account: StreamId
    amount: int

    def initial_state(self) -> dict[StreamId, int]:
        return {}

    def apply(self, state: dict[StreamId, int], event: RecordedEvent) -> dict[StreamId, int]:
        assert_type(event.stream_id, StreamId)
        assert_type(event.data, Event)
        assert_type(event.version, int)
        assert_type(event.position, int)
        assert_type(event.metadata, EventMetadata)
        return state

    def handle(self, state: dict[StreamId, int]) -> Iterator[tuple[StreamId, Event]]:
        if state.get(self.account, 0) < 0:
            raise BusinessRuleViolation("overdrawn")
        assert_type(self.account, StreamId)
        assert_type(self.amount, int)
        yield self.account, Deposited(amount=self.amount)


async def executing() -> None:
    account = StreamId("account-1")
    command = Deposit(account=account, amount=5)
    Deposit(account=account, amount="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - refused: not an int
    command.amount = 6  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - refused: commands are immutable
    async with open_store("memory:") as store:
        assert_type(store, EventStore)
        assert_type(store.telemetry, Telemetry)
        result = await store.execute(command, retry=RetryPolicy(attempts=3), timeout=1.0, headers={"tenant": "a"})
        assert_type(result, CommandResult)
        assert_type(await store.execute(command, idempotency_key="request-1"), CommandResult)
        assert_type(result.attempts, int)
        assert_type(result.position, int)
        assert_type(result.events, tuple[RecordedEvent, ...])
        async for event in store.read(account):
            assert_type(event, RecordedEvent)
        async for event in store.read_all(after=0, pattern="account-*", event_types=[Deposited], limit=10):
            assert_type(event, RecordedEvent)
        async for some in store.read(account, unknown="raw"):
            assert_type(some, RecordedEvent | RawEvent)
        async for some in store.read_all(unknown="raw"):
            assert_type(some.stream_id, StreamId)
            assert_type(some.metadata, EventMetadata)
        store.read(account, unknown="skip")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - refused


def deciding(account: StreamId) -> None:
    decided = given((account, Deposited(amount=1))).when(Deposit(account=account, amount=5))
    assert_type(decided, When)
    assert_type(decided.events, tuple[tuple[StreamId, Event], ...])
    assert_type(decided.then((account, Deposited(amount=5))), Given)
    decided.then_refused(BusinessRuleViolation, match="overdrawn")
    given(Deposited(amount=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - refused: not a pair


class TestMemory(StoreContract, ProjectionContract):
    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        backend = MemoryBackend()
        return lambda: backend

    @pytest.fixture
    def read_model(self) -> ReadModel | None:
        return None


class Balances(Projection):
    name = "balances"
    pattern = "account-*"
    event_types = (Deposited,)
    on_error = OnError(retries=3, then="dead_letter")

    async def handle(self, event: RecordedEvent) -> None:
        assert_type(event.data, Event)


class Ledger(Projection):
    name = "ledger"
    event_types = ["Deposited"]

    def handle_batch(self, events: Sequence[RecordedEvent], transaction: Connection) -> None:
        transaction.executemany("INSERT INTO ledger VALUES (?)", [(event.position,) for event in events])


async def projecting(store: EventStore) -> None:
    await store.run(Balances(), lease=2.0)
    await store.run(Balances)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - refused: not an instance
    await store.wait_for("balances@2", 7, timeout=1.0)
    await store.wait_for(Ledger(), 7)
    for letter in await store.dead_letters("balances", limit=10):
        assert_type(letter.position, int)
        assert_type(letter.error, str)
    retried = await store.retry_dead_letters(Balances())
    assert_type(len(retried.applied) + len(retried.remaining), int)
    for record in await store.projections():
        assert_type(record.checkpoint.position, int)
    OnError(then="give up")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - refused: no such policy


async def health(store: EventStore) -> None:
    found = await store.health(timeout=1.0)
    assert_type(found.ready, bool)
    assert_type(found.status, HealthStatus)
    for check in found.problems().values():
        assert_type(check.reason, str)
    store.add_health_check("queue", lambda: True, essential=True)
    store.add_health_check("queue", lambda: "no")  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType] - refused
    assert_type(await store.drain(delay=5.0), bool)
    open_store("memory:", health=HealthSettings(essential=("exporter:*",)), open_timeout=60, close_timeout=5)
    asgi_app(store)
    with HealthListener(store, port=0) as listener:
        assert_type(listener.url, str)


def recording(telemetry: Telemetry) -> None:
    telemetry.counter("orders", labels=("country",)).labels("FR").add(1)
    telemetry.counter("orders").labels(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - refused: labels are text
    with telemetry.span("pack", attributes={"weight": 2.5}) as span:
        span.set_attribute("parcels", 3)
        assert_type(span.recording, bool)


def failing(error: BusinessRuleViolation) -> EventCoreError:
    return error


class Printing(Exporter):
    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        for counter in counters:
            assert_type(counter.points, tuple[NumberPoint, ...])

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        for span in spans:
            assert_type(span.context, TraceContext)


def buckets(point: HistogramPoint) -> None:
    assert_type(point.count, int)
    assert_type(point.buckets, tuple[int, ...])


class MySetup(ExporterSetup):
    cannot = {"spans": "the backend has none"}
    secrets = ("t0k3n",)

    def make(self) -> object:
        return RecordingExporter()

    def received(self) -> Received:
        return Received(points=[ReceivedPoint(name="orders.shipped", labels={"country": "FR"}, value=2)])


class TestMyExporter(ExporterContract):
    @pytest.fixture
    def exporter_setup(self) -> MySetup:
        return MySetup()


def recorded(telemetry: RecordingTelemetry) -> None:
    telemetry.assert_counter("orders.shipped", 2, country="FR")
    telemetry.assert_histogram("request.duration", 1, total=0.25)
    assert_type(telemetry.assert_span("ship order", order_items=3), SpanData)
    assert_type(telemetry.assert_spans("ship order", 2), list[SpanData])
    assert_type(sample_counter(values={("FR",): 2}), CounterData)
    assert_type(sample_span(status="ok"), SpanData)
    assert_type(exporter_context(resource={"service.name": "shop"}), ExporterContext)


def respond(request: Request) -> Response:
    assert_type(request.headers.get("Accept"), str)
    assert_type(request.headers.get_all("Accept"), tuple[str, ...])
    return plain(200, request.path, ("Cache-Control", "no-store"))


def listen() -> None:
    access = Access(certificate="server.pem", users={"prometheus": hash_password("secret")}, tokens=["0123456789abcdef"])
    listener = Listener("localhost", 0, respond, access=access, limits=Limits(connections=8))
    assert_type(listener.address, tuple[str, int])
    assert_type(listener.url, str)
    listener.close(1.0)
