from __future__ import annotations

import asyncio

import pytest

from eventcore import EventMetadata, EventStore, Telemetry, TraceContext, open_store
from eventcore.errors import InvalidMetadata
from tests.store.bank import Deposit, account

REMOTE = TraceContext.from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=1")


async def stored(store: EventStore) -> EventMetadata:
    [event] = [event async for event in store.read_all(after=await store.head_position() - 1)]
    return event.metadata


async def test_what_the_caller_gives_is_stored_with_the_event(store: EventStore) -> None:
    headers = {"tenant": "blue", "empty": ""}
    result = await store.execute(
        Deposit(account=account("a")), correlation_id="request-7", causation_id="message-3", headers=headers, parent=REMOTE
    )
    headers["tenant"] = "changed later"
    metadata = await stored(store)
    assert metadata == result.events[0].metadata
    assert (metadata.command_type, metadata.correlation_id, metadata.causation_id) == ("Deposit", "request-7", "message-3")
    assert metadata.headers == {"tenant": "blue", "empty": ""}
    assert metadata.tracestate == "vendor=1"
    context = TraceContext.from_traceparent(metadata.traceparent)
    assert context is not None
    assert REMOTE is not None
    assert (context.trace_id, context.trace_flags) == (REMOTE.trace_id, 1)
    assert context.span_id != REMOTE.span_id


async def test_ids_are_inherited_from_the_enclosing_span(store: EventStore, telemetry: Telemetry) -> None:
    with telemetry.span("request", correlation_id="request-7", causation_id="message-3") as span:
        await store.execute(Deposit(account=account("a")))
        inherited = await stored(store)
        await store.execute(Deposit(account=account("a")), causation_id="message-4")
        overridden = await stored(store)
    assert (inherited.correlation_id, inherited.causation_id) == ("request-7", "message-3")
    assert (overridden.correlation_id, overridden.causation_id) == ("request-7", "message-4")
    assert inherited.traceparent.split("-")[1] == f"{span.trace_id:032x}"


async def test_the_trace_context_is_stored_with_its_real_flags_when_it_is_not_sampled(url: str) -> None:
    async with Telemetry(exporters=[], traces_per_second=0) as telemetry, open_store(url, telemetry=telemetry) as store:
        await store.execute(Deposit(account=account("a")))
        context = TraceContext.from_traceparent((await stored(store)).traceparent)
    assert context is not None
    assert context.trace_flags == 0


async def test_without_telemetry_a_remote_parent_is_still_stored(url: str) -> None:
    async with Telemetry(exporters=[], verbosity="off") as telemetry, open_store(url, telemetry=telemetry) as store:
        await store.execute(Deposit(account=account("a")))
        assert (await stored(store)).traceparent == ""
        await store.execute(Deposit(account=account("a")), parent=REMOTE, correlation_id="request-7")
        metadata = await stored(store)
    assert REMOTE is not None
    assert metadata.traceparent == REMOTE.traceparent
    assert metadata.correlation_id == "request-7"


async def test_metadata_that_cannot_be_stored_is_refused_before_anything_happens(store: EventStore) -> None:
    for wrong in ({"headers": {"a": "\n"}}, {"correlation_id": ""}, {"causation_id": "x" * 129}):
        with pytest.raises(InvalidMetadata):
            await store.execute(Deposit(account=account("a")), **wrong)
    assert await store.head_position() == 0


async def test_event_ids_are_different_and_of_32_digits(store: EventStore) -> None:
    await asyncio.gather(*(store.execute(Deposit(account=account(number))) for number in range(100)))
    ids = {event.event_id async for event in store.read_all()}
    assert len(ids) == 100
    assert all(len(event_id) == 32 and int(event_id, 16) >= 0 for event_id in ids)
