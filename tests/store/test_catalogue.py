"""What a store tells of itself: each number of the catalogue against what was done."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from eventcore import BusinessRuleViolation, EventStore, RetryPolicy, Telemetry, open_store
from eventcore.catalogue import CATALOGUE
from eventcore.errors import InvalidEvent
from eventcore.exporting import Exporter, ExporterContext, HistogramData, SpanData, hookimpl
from eventcore.stores import SCHEMA_VERSION, AppendRequest
from tests.projections.conftest import Run, run
from tests.projections.models import Seen
from tests.store.backends import SteeredBackend
from tests.store.bank import Collect, Deposit, Link, Transfer, account
from tests.store.conftest import Measured

__all__ = ["run"]


class Keeper(Exporter):
    """Keeps every span that it is given."""

    def __init__(self) -> None:
        self.spans: list[SpanData] = []

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        self.spans += spans

    def named(self, name: str) -> list[SpanData]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def keeper(telemetry: Telemetry) -> Keeper:
    keeper = Keeper()
    telemetry.register_exporter(keeper)
    return keeper


async def test_every_row_is_declared_as_the_catalogue_says(telemetry: Telemetry) -> None:
    async with open_store("memory:", telemetry=telemetry) as store:
        a, b = account("a"), account("b")
        await store.execute(Link(account=a, to=b))
        await store.execute(Deposit(account=b))
        await store.execute(Collect(account=a))
        names = {instrument.name.removeprefix("eventcore.") for instrument in telemetry._registry.instruments()}
        assert names == set(CATALOGUE)


async def test_an_application_with_too_many_series_leaves_room_for_those_of_eventcore(run: Run) -> None:
    settings = {"telemetry": {"series_limit": 50, "total_series_limit": 50}}
    async with Telemetry(exporters=[], config=settings) as telemetry:
        flood = telemetry.counter("customers.seen", labels=("customer",))
        for number in range(100):
            flood.labels(str(number)).add(1)
        telemetry.register_exporter(Keeper())
        async with open_store("memory:", telemetry=telemetry) as store:
            seen = Seen()
            run(store, seen)
            await store.wait_for(seen, (await store.execute(Deposit(account=account("a")))).position)
            unfit: Any = "x"
            with pytest.raises(InvalidEvent):
                await store.execute(Deposit(account=account("a"), amount=unfit))
            assert await telemetry.flush(10.0)
            await store.health()
            collection = await asyncio.to_thread(telemetry.collect)
    own = [data for data in collection if data.name.startswith("eventcore.")]
    assert {"eventcore.exporters.state", "eventcore.projections.lag", "eventcore.commands.total"} <= {data.name for data in own}
    assert [data.name for data in own for point in data.points if "_overflow_" in dict(point.labels).values()] == []
    [overflow] = [data for data in collection.counters if data.name == "eventcore.series.overflow"]
    assert {dict(point.labels)["instrument"]: point.value for point in overflow.points} == {"customers.seen": 50}


async def test_commands_are_counted_by_type_and_outcome(store: EventStore, measured: Measured) -> None:
    a, b = account("a"), account("b")
    for _ in range(3):
        await store.execute(Deposit(account=a))
    await store.execute(Collect(account=a))
    with pytest.raises(BusinessRuleViolation):
        await store.execute(Transfer(source=b, target=a, amount=1))
    with pytest.raises(TypeError):
        await store.execute(Transfer(source=a, target=b, amount="1"))  # type: ignore[arg-type]  # that is the point
    for name in ("commands.total", "commands.duration", "commands.attempts"):
        assert measured(name, store="default", command_type="Deposit", outcome="committed") == 3
        assert measured(name, command_type="Collect", outcome="no_events") == 1
        assert measured(name, command_type="Transfer", outcome="rejected") == 1
        assert measured(name, command_type="Transfer", outcome="error") == 1
        assert measured(name) == 6
    assert measured("commands.total", outcome="error", error_type="TypeError") == 1
    assert measured("commands.total", error_type="") == 5
    assert measured("commands.active") == 0
    assert measured("commands.phase.duration", phase="load") == 6
    assert measured("commands.phase.duration", phase="decide") == 6
    assert measured("commands.phase.duration", phase="append") == 6
    assert measured("commands.events.emitted", command_type="Deposit") == 3
    assert measured("commands.events.loaded", command_type="Deposit", source="full") == 3
    assert measured("commands.streams", mode="read") == 6
    assert measured("commands.streams", mode="written") == 3


async def test_events_and_streams_are_counted_once_they_are_committed(store: EventStore, measured: Measured) -> None:
    a, b = account("a"), account("b")
    await store.execute(Deposit(account=a, amount=9))
    await store.execute(Transfer(source=a, target=b, amount=4))
    with pytest.raises(BusinessRuleViolation):
        await store.execute(Transfer(source=a, target=account("c"), amount=40))
    assert measured("events.written", event_type="bank.Deposited") == 2
    assert measured("events.written", event_type="bank.Withdrawn") == 1
    assert measured("events.size") == 3
    assert measured("streams.created") == 2
    assert measured("streams.active") == 3
    assert [event async for event in store.read_all()]
    assert measured("events.read", purpose="api") == 3
    assert [event async for event in store.read(a)]
    assert measured("events.read", purpose="api") == 5
    assert measured("store.operation.duration", operation="append", outcome="ok") == 2
    assert measured("store.append.batch") == 2
    assert measured("store.operation.duration", operation="scan", outcome="ok") == 1
    assert measured("store.operation.duration", operation="head_position", outcome="ok") == 1


async def test_events_that_another_store_wrote_count_as_read_for_commands(
    sqlite_url: str, telemetry: Telemetry, measured: Measured
) -> None:
    async with open_store(sqlite_url, telemetry=telemetry, name="one") as one:
        async with open_store(sqlite_url, telemetry=telemetry, name="other") as other:
            for _ in range(3):
                await one.execute(Deposit(account=account("a")))
            await other.execute(Deposit(account=account("a")))
        assert measured("events.read", store="other", purpose="command") == 3
        assert measured("events.read", store="one", purpose="command") == 0
        assert measured("info", store="one", db_system_name="sqlite", schema_version=str(SCHEMA_VERSION)) == 1
        assert measured("info", store="other") == 0
        assert measured("info") == 1


async def test_bad_events_are_counted(store: EventStore, measured: Measured) -> None:
    with pytest.raises(ValueError, match="would not read back"):
        await store.execute(Deposit(account=account("a"), amount="x"))  # type: ignore[arg-type]  # that is the point
    assert measured("codec.errors", direction="encode", event_type="bank.Deposited") == 1


async def test_stores_that_share_a_telemetry_show_its_exporters_once(
    telemetry: Telemetry, keeper: Keeper, measured: Measured
) -> None:
    async with open_store("memory:", telemetry=telemetry), open_store("memory:", telemetry=telemetry, name="other"):
        pass
    assert measured("exporters.state", exporter="keeper", state="running") == 1
    assert measured("exporters.state", exporter="keeper") == 1
    assert measured("info") == 0


async def test_spans_of_exporters_are_accounted_for(telemetry: Telemetry, keeper: Keeper, measured: Measured) -> None:
    async with open_store("memory:", telemetry=telemetry) as store:
        for _ in range(10):
            await store.execute(Deposit(account=account("a")))
        assert await telemetry.flush(5.0)
        recorded = measured("exporters.spans", exporter="keeper", outcome="recorded")
        # The stream is read once: from then on it is at hand.
        assert recorded == 21 == len(keeper.spans)
        assert measured("exporters.spans", outcome="exported") == 21
        assert measured("exporters.spans.pending") == 0
        assert measured("exporters.cycles", signal="spans", outcome="ok") >= 1
        assert measured("exporters.cycle.duration", signal="spans", outcome="ok") >= 1


# Spans


async def test_a_command_and_its_calls_are_one_trace(telemetry: Telemetry, keeper: Keeper, url: str) -> None:
    async with open_store(url, telemetry=telemetry) as store:
        with telemetry.span("request", correlation_id="request-7") as request:
            await store.execute(Deposit(account=account("a")))
            await store.execute(Deposit(account=account("b")))
        await telemetry.flush(5.0)
    execute = keeper.named("execute Deposit")[-1]
    [read] = [span for span in keeper.named("read streams") if span.parent_span_id == execute.context.span_id]
    [append] = [span for span in keeper.named("append events") if span.parent_span_id == execute.context.span_id]
    assert {span.context.trace_id for span in (execute, read, append)} == {request.trace_id}
    assert (execute.kind, read.kind, append.kind) == ("internal", "client", "client")
    assert {span.correlation_id for span in (execute, read, append)} == {"request-7"}
    attributes = dict(execute.attributes)
    phases = [attributes.pop(f"eventcore.phase.{phase}") for phase in ("load", "decide", "append")]
    assert all(isinstance(seconds, float) and seconds > 0 for seconds in phases)
    assert attributes == {
        "eventcore.command.type": "Deposit",
        "eventcore.attempts": 1,
        "eventcore.outcome": "committed",
        "eventcore.streams": 1,
        "eventcore.events": 1,
    }
    system = url.partition(":")[0]
    assert dict(read.attributes) == {
        "db.system.name": system,
        "db.operation.name": "read_streams",
        "eventcore.streams": 1,
        "eventcore.events": 0,
        "eventcore.position": 1,
    }
    assert dict(append.attributes) == {
        "db.system.name": system,
        "db.operation.name": "append",
        "eventcore.batch.size": 1,
        "eventcore.events": 1,
        "eventcore.position": 2,
    }


async def test_the_append_of_a_batch_belongs_to_its_first_command_and_links_the_others(
    telemetry: Telemetry, keeper: Keeper
) -> None:
    async with open_store("memory:", telemetry=telemetry) as store:
        await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(5)))
        await telemetry.flush(5.0)
    executes = [span.context for span in keeper.named("execute Deposit")]
    [append] = keeper.named("append events")
    contexts = {context.span_id: context for context in executes}
    linked = {link.context.span_id for link in append.links}
    assert linked | {append.parent_span_id} == set(contexts)
    assert append.context.trace_id == contexts[append.parent_span_id].trace_id
    assert len({context.trace_id for context in executes}) == 5


async def test_the_links_of_a_batch_are_bounded(telemetry: Telemetry, keeper: Keeper) -> None:
    async with open_store("memory:", telemetry=telemetry) as store:
        await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(300)))
        await telemetry.flush(5.0)
    assert max(len(span.links) for span in keeper.named("append events")) == 64


async def test_a_refusal_is_no_error_of_the_span_and_a_failure_is(telemetry: Telemetry, keeper: Keeper) -> None:
    async with open_store("memory:", telemetry=telemetry) as store:
        with pytest.raises(BusinessRuleViolation):
            await store.execute(Transfer(source=account("a"), target=account("b"), amount=1))
        with pytest.raises(TypeError):
            await store.execute(Transfer(source=account("a"), target=account("b"), amount="1"))  # type: ignore[arg-type]  # that is the point
        await telemetry.flush(5.0)
    refused, failed = keeper.named("execute Transfer")
    assert (refused.status, refused.events) == ("unset", ())
    assert dict(refused.attributes)["eventcore.outcome"] == "rejected"
    assert (failed.status, [event.name for event in failed.events]) == ("error", ["exception"])
    assert dict(failed.attributes)["eventcore.outcome"] == "error"


async def test_each_retry_is_an_event_of_the_span(telemetry: Telemetry, keeper: Keeper) -> None:
    backend = SteeredBackend()
    versions = iter([1, 2])

    def overtake_twice(requests: Sequence[AppendRequest]) -> None:
        if version := next(versions, None):
            backend.overtake(account("a"), version, 1)

    async with backend.store(telemetry) as store:
        backend.before_append = overtake_twice
        await store.execute(Deposit(account=account("a")), retry=RetryPolicy(base_delay=0.0))
        await telemetry.flush(5.0)
    [execute] = keeper.named("execute Deposit")
    assert [(event.name, dict(event.attributes)) for event in execute.events] == [
        ("append refused", {"reason": "version", "from_cache": False}),
        ("retry", {"reason": "version", "attempt": 1}),
        ("append refused", {"reason": "version", "from_cache": False}),
        ("retry", {"reason": "version", "attempt": 2}),
    ]
    assert dict(execute.attributes)["eventcore.attempts"] == 3
    appends = keeper.named("append events")
    assert [dict(span.attributes).get("eventcore.batch.refused") for span in appends] == [1, 1, None]


async def test_an_append_that_was_refused_because_of_the_cache_is_an_event_of_the_command(
    telemetry: Telemetry, keeper: Keeper, sqlite_url: str
) -> None:
    async with (
        open_store(sqlite_url, telemetry=telemetry) as store,
        open_store(sqlite_url, telemetry=telemetry, name="other") as other,
    ):
        await store.execute(Deposit(account=account("a")))
        await other.execute(Deposit(account=account("a")))
        with telemetry.span("request", correlation_id="request-7") as request:
            await store.execute(Deposit(account=account("a")))
        await telemetry.flush(5.0)
    trace = [span for span in keeper.spans if span.context.trace_id == request.trace_id]
    appends = [span for span in trace if span.name == "append events"]
    assert [dict(span.attributes).get("eventcore.batch.refused") for span in appends] == [1, None]
    [execute] = [span for span in trace if span.name == "execute Deposit"]
    assert [(event.name, dict(event.attributes)) for event in execute.events] == [
        ("append refused", {"reason": "version", "from_cache": True})
    ]
    # Also the ids of the command are on each of its spans.
    assert {span.correlation_id for span in trace} == {"request-7"}


async def test_calls_to_the_database_are_recorded_under_the_name_of_opentelemetry_if_it_is_asked_for(url: str) -> None:
    config = {"telemetry": {"db_client_duration": True}}
    async with Telemetry(exporters=[], config=config) as telemetry, open_store(url, telemetry=telemetry) as store:
        await store.execute(Deposit(account=account("a")))
        await store.execute(Deposit(account=account("a")))
        [data] = [data for data in telemetry.collect() if data.name == "db.client.operation.duration"]
        assert isinstance(data, HistogramData)
        assert data.unit == "s"
        points = {dict(point.labels)["db.operation.name"]: point for point in data.points}
        assert points["append"].count == 2
        assert dict(points["append"].labels) == {
            "db.system.name": url.partition(":")[0],
            "db.operation.name": "append",
            "error.type": "",
            "store": "default",
        }


async def test_the_stores_own_tasks_start_in_an_empty_context(telemetry: Telemetry, keeper: Keeper) -> None:
    with telemetry.span("start-up") as start_up:
        store = await open_store("memory:", telemetry=telemetry).__aenter__()
    await store.execute(Deposit(account=account("a")))
    await store.close()
    await telemetry.flush(5.0)
    assert len(keeper.named("append events")) == 1
    assert all(span.context.trace_id != start_up.trace_id for span in keeper.spans if span.name != "start-up")


async def test_each_of_thousands_of_command_types_is_counted_by_itself(telemetry: Telemetry, measured: Measured) -> None:
    # More than there may be series of durations, and of the total.
    types = [type(f"Deposit{number}", (Deposit,), {"__module__": __name__}) for number in range(2100)]
    async with open_store("memory:", telemetry=telemetry) as store:
        for command_type in types:
            await store.execute(command_type(account=account("a")))
        counted = next(data for data in telemetry.collect() if data.name == "eventcore.commands.total").points
        values = {dict(point.labels)["command.type"]: point.value for point in counted}  # type: ignore[union-attr]
        overflow = values.pop("_overflow_")
        assert overflow > 1
        assert set(values.values()) == {1}
        assert overflow + len(values) == len(types)
        # A value may wait in a buffer; it counts as one measurement all the same.
        assert measured("series.overflow", instrument="eventcore.commands.total") == overflow
        beyond = measured("series.overflow", instrument="eventcore.commands.active")
        assert beyond == 2 * (len(types) - 2000)
        assert measured("commands.duration") == len(types)


async def test_the_free_space_of_the_disk_of_a_file_is_shown(sqlite_url: str, telemetry: Telemetry, measured: Measured) -> None:
    async with open_store(sqlite_url, telemetry=telemetry):
        async with asyncio.timeout(5):
            while not measured("store.disk.free"):
                await asyncio.sleep(0.01)
        free = shutil.disk_usage(sqlite_url.removeprefix("sqlite:///")).free
        # Others use the disk at the same time.
        assert abs(measured("store.disk.free") - free) < free / 2


async def test_what_an_exporter_hides_and_when_it_last_succeeded_are_metrics(measured: Measured, telemetry: Telemetry) -> None:
    class Hiding(Exporter):
        @hookimpl
        def start(self, context: ExporterContext) -> None:
            context.report_hidden("orders.total", "its name is in use", "collision")

        @hookimpl
        def export_counters(self, counters: Sequence[object], timeout: float) -> None:
            pass

    async with open_store("memory:", telemetry=telemetry):
        telemetry.register_exporter(Hiding())
        assert await telemetry.flush(5.0)
        assert measured("exporters.instruments.hidden", exporter="hiding", reason="collision") == 1
        assert measured("exporters.instruments.hidden", exporter="hiding") == 1
        [age] = [
            point.value  # type: ignore[union-attr]  # a gauge's points have it
            for data in telemetry.collect()
            if data.name == "eventcore.exporters.last.success.age"
            for point in data.points
            if dict(point.labels) == {"exporter": "hiding", "signal": "metrics"}
        ]
        assert 0 <= age < 5


async def test_traces_that_sampling_left_out_are_counted() -> None:
    async with Telemetry(exporters=[], traces_per_second=0) as telemetry:
        async with open_store("memory:", telemetry=telemetry) as store:
            for _ in range(3):
                await store.execute(Deposit(account=account("a")))
        found = {data.name: data for data in await asyncio.to_thread(telemetry.collect)}
    [point] = found["eventcore.traces.unsampled"].points
    assert point.value == 3  # type: ignore[union-attr]  # a counter's points have it
