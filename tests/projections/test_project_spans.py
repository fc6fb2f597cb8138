"""Each batch begins a trace, which links to the spans that wrote its events."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from eventcore import EventStore, OnError, RecordedEvent, Telemetry, open_store
from tests.projections.conftest import Run
from tests.projections.models import Seen, deposit
from tests.store.bank import Deposit, Transfer, account
from tests.store.test_catalogue import Keeper


@pytest.fixture
def keeper(telemetry: Telemetry) -> Keeper:
    keeper = Keeper()
    telemetry.register_exporter(keeper)
    return keeper


async def test_a_batch_links_to_the_spans_that_wrote_its_events(
    store: EventStore, telemetry: Telemetry, keeper: Keeper, run: Run
) -> None:
    with telemetry.span("request"):
        await store.execute(Deposit(account=account("a"), amount=5))
        await store.execute(Transfer(source=account("a"), target=account("b"), amount=2))
        run(store, Seen())
        await store.wait_for("seen", 3)
    assert await telemetry.flush(5.0)
    [project] = keeper.named("project seen")
    executes = [span.context for span in keeper.spans if span.name.startswith("execute ")]
    assert project.kind == "consumer"
    assert project.parent_span_id == 0
    assert project.context.trace_id not in {context.trace_id for context in executes}
    assert [link.context for link in project.links] == executes
    assert dict(project.attributes) == {
        "eventcore.projection": "seen",
        "eventcore.events": 3,
        "eventcore.position.first": 1,
        "eventcore.position.last": 3,
    }


async def test_links_are_at_most_64_and_all_different(
    store: EventStore, telemetry: Telemetry, keeper: Keeper, run: Run
) -> None:
    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(300)))
    run(store, Seen())
    await store.wait_for("seen", 300)
    assert await telemetry.flush(5.0)
    batches = keeper.named("project seen")
    assert max(len(span.links) for span in batches) == 64
    for span in batches:
        assert len({link.context.span_id for link in span.links}) == len(span.links)


@pytest.mark.parametrize("metadata", ['{"traceparent":"00-0-0-00"}', '{"traceparent":7}', "{}"])
async def test_metadata_without_a_valid_span_is_not_linked(
    sqlite_url: str, telemetry: Telemetry, keeper: Keeper, run: Run, metadata: str
) -> None:
    class Skipping(Seen):
        on_error = OnError(retries=0, then="skip")

    async with open_store(sqlite_url, telemetry=telemetry) as store:
        await deposit(store, 2)
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
            database.execute("DROP TRIGGER IF EXISTS events_are_only_redacted")
            database.execute("UPDATE events SET metadata = ? WHERE position = 1", (metadata,))
            database.commit()
        run(store, Skipping())
        await store.wait_for("seen", 2)
        assert await telemetry.flush(5.0)
    [project] = keeper.named("project seen")
    assert len(project.links) == 1


async def test_spans_of_a_handler_belong_to_its_batch(
    store: EventStore, telemetry: Telemetry, keeper: Keeper, run: Run
) -> None:
    class Telling(Seen):
        def handle(self, event: RecordedEvent) -> None:
            with telemetry.span("tell"):
                super().handle(event)

    await deposit(store, 2)
    run(store, Telling())
    await store.wait_for("seen", 2)
    assert await telemetry.flush(5.0)
    [project] = keeper.named("project seen")
    assert {span.parent_span_id for span in keeper.named("tell")} == {project.context.span_id}


async def test_a_failure_is_recorded_in_the_span(store: EventStore, telemetry: Telemetry, keeper: Keeper, run: Run) -> None:
    class Skipping(Seen):
        on_error = OnError(retries=1, base_delay=0, max_delay=0, then="skip")

    seen = Skipping()
    seen.poison = {1}
    await deposit(store, 1)
    run(store, seen)
    await store.wait_for(seen, 1)
    assert await telemetry.flush(5.0)
    [project] = keeper.named("project seen")
    assert (project.status, [event.name for event in project.events]) == ("error", ["exception", "exception"])
    assert "poison at 1" in project.status_description
