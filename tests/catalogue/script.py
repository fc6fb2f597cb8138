"""A scripted run of a store that makes it record every metric that one process can."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from eventcore import (
    Command,
    Event,
    EventStore,
    OnError,
    RecordedEvent,
    RetryPolicy,
    StreamId,
    StreamState,
    Telemetry,
    open_store,
)
from eventcore.errors import ConcurrencyConflict, EventCoreError, StoreUnavailable
from eventcore.exporting import Exporter, MetricData, SpanData, hookimpl
from eventcore.health import HealthSettings
from eventcore.recording import Instrument
from eventcore.stores import AppendRequest
from tests.projections.models import Seen
from tests.store.backends import SteeredBackend
from tests.store.bank import Collect, Deposit, Deposited, Link, Transfer, account

SERIES_LIMIT = 100


class Emitted(NamedTuple):
    """What one run has recorded: its instruments, and what an exporter is given."""

    instruments: tuple[Instrument[Any], ...]
    metrics: tuple[MetricData, ...]


class Swallowing(Exporter):
    """Takes spans, so that they are recorded."""

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        pass


class Balance(StreamState, snapshot_every=1):
    balance: int = 0

    def apply(self, event: RecordedEvent) -> None:
        if isinstance(event.data, Deposited):
            self.balance += event.data.amount


class Double(Command[Mapping[StreamId, Balance]]):
    account: Annotated[StreamId, Balance]

    def handle(self, state: Mapping[StreamId, Balance]) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Deposited(amount=state[self.account].balance)


class Poisoned(Seen):
    name = "poisoned"
    on_error = OnError(retries=1, base_delay=0.001, max_delay=0.001, then="dead_letter")


def run(url: str) -> Emitted:
    """Run the script on the store of ``url``; ``"memory:"`` also goes through conflicts and failures."""
    return asyncio.run(_run(url))


async def _run(url: str) -> Emitted:
    steered = SteeredBackend()
    config = {"telemetry": {"series_limit": SERIES_LIMIT, "traces_per_second": "all"}}
    async with asyncio.timeout(20), Telemetry(exporters="none", config=config) as telemetry:
        telemetry.register_exporter(Swallowing())
        backend = steered if url == "memory:" else url
        async with open_store(backend, telemetry=telemetry, health=HealthSettings(keep=0.0)) as store:
            await _execute_commands(store)
            if url == "memory:":
                await _conflict_and_fail(store, steered)
            assert [event async for event in store.read_all()]
            poisoned = Poisoned()
            poisoned.poison.add(1)
            running = asyncio.create_task(store.run(poisoned))
            await store.wait_for("poisoned", await store.head_position())
            await store.health()
            orders = telemetry.counter("orders", labels=("customer",))
            for number in range(SERIES_LIMIT + 1):
                orders.labels(str(number)).add(1)
            assert await telemetry.flush(5.0)
            metrics = tuple(await asyncio.to_thread(telemetry.collect))
            instruments = telemetry._registry.instruments()
        await running
    return Emitted(
        tuple(instrument for instrument in instruments if instrument.name != "orders"),
        tuple(data for data in metrics if data.name != "orders"),
    )


async def _execute_commands(store: EventStore) -> None:
    a, b, c = account("a"), account("b"), account("c")
    await store.execute(Link(account=a, to=b))
    await asyncio.gather(*(store.execute(Deposit(account=b)) for _ in range(3)))
    await store.execute(Collect(account=a))
    await store.execute(Collect(account=c))
    for _ in range(2):
        await store.execute(Deposit(account=b), idempotency_key="the same")
    with contextlib.suppress(EventCoreError):
        await store.execute(Transfer(source=c, target=a, amount=1))
    for _ in range(3):
        await store.execute(Double(account=account("doubled")))
    with contextlib.suppress(ValueError):
        await store.execute(Deposit(account=a, amount="x"))  # type: ignore[arg-type]  # that is the point


async def _conflict_and_fail(store: EventStore, backend: SteeredBackend) -> None:
    stream, versions = account("contended"), iter(range(1, 100))

    def overtake(requests: Sequence[AppendRequest]) -> None:
        backend.overtake(stream, next(versions), 1)

    def overtake_once(requests: Sequence[AppendRequest]) -> None:
        overtake(requests)
        backend.before_append = lambda requests: None

    def fail(requests: Sequence[AppendRequest]) -> None:
        raise StoreUnavailable("the database does not answer")

    backend.before_append = overtake
    with contextlib.suppress(ConcurrencyConflict):
        await store.execute(Deposit(account=stream), retry=RetryPolicy(attempts=2, base_delay=0.001, max_delay=0.001))
    backend.before_append = overtake_once
    await store.execute(Deposit(account=stream), retry=RetryPolicy(base_delay=0.001, max_delay=0.001))
    backend.before_append = fail
    with contextlib.suppress(StoreUnavailable):
        await store.execute(Deposit(account=account("d")))
    backend.before_append = lambda requests: None
