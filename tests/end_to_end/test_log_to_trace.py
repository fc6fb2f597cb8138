"""From one line of a log to everything else that is known of what wrote it."""

from __future__ import annotations

import asyncio
import logging
import re
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest

from eventcore import Command, Event, EventStore, Projection, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.logs import TraceContextFilter
from eventcore.telemetry import Pipeline
from eventcore_otel import OpenTelemetryExporter
from eventcore_prometheus import PrometheusExporter
from tests.real_parts import DdapmTestAgent

LOGGER = logging.getLogger("shop")


class Ordered(Event):
    event_type = "log-to-trace.Ordered"


class Shipped(Event):
    event_type = "log-to-trace.Shipped"


class PlaceOrder(Command[None]):
    order: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.order, Ordered()


class Ship(Command[None]):
    shipment: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        LOGGER.warning("the last one in stock")
        yield self.shipment, Shipped()


class Shipping(Projection):
    """A process manager: it answers an event by a command, whose cause is that event."""

    name = "shipping"

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def handle(self, event: RecordedEvent) -> None:
        if isinstance(event.data, Ordered):
            number = event.stream_id.removeprefix("order-")
            await self._store.execute(
                Ship(shipment=StreamId(f"shipment-{number}")),
                correlation_id=event.metadata.correlation_id,
                causation_id=event.event_id,
            )


@pytest.mark.once
async def test_a_line_of_a_handler_leads_to_its_trace_its_exemplar_its_event_and_the_command_that_caused_it(
    ddapm: DdapmTestAgent, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The handler outlives the test, and the filter must not.
    monkeypatch.setattr(caplog.handler, "filters", [TraceContextFilter()])
    async with (
        Telemetry(exporters="none", traces_per_second="all") as telemetry,
        open_store(f"sqlite:///{tmp_path / 'shop.db'}", telemetry=telemetry) as store,
    ):
        prometheus = PrometheusExporter(port=0)
        telemetry.register_exporter(OpenTelemetryExporter(endpoint=ddapm.grpc_endpoint))
        telemetry.register_exporter(prometheus)
        for pipeline in telemetry.exporters():
            assert isinstance(pipeline, Pipeline)
            assert await asyncio.to_thread(pipeline.started.wait, 10)
        shipping = asyncio.create_task(store.run(Shipping(store)))
        placed = await store.execute(PlaceOrder(order=StreamId("order-7")), correlation_id="request-7")
        await store.wait_for("shipping", placed.position)

        # The line.
        [record] = [record for record in caplog.records if record.name == "shop"]
        line = vars(record)
        assert line["eventcore.command.type"] == "Ship"

        # From the line to the trace.
        assert await telemetry.flush(20)
        [span] = [span for span in ddapm.spans("execute Ship") if span.span_id == line["span_id"]]
        assert span.trace_id == line["trace_id"]
        assert span.attributes["eventcore.correlation_id"] == line["eventcore.correlation_id"] == "request-7"
        assert [one.name for one in ddapm.spans() if one.parent_id == span.span_id] == ["read streams", "append events"]

        # From the trace to the exemplar that carries it, as a scrape sees it.
        assert prometheus.url is not None
        request = urllib.request.Request(prometheus.url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).read().decode())
        carries = re.findall(r"^eventcore_command_duration_seconds_bucket\{(.*)\} \d.* # \{(.*)\}", page, re.MULTILINE)
        [labels] = [labels for labels, exemplar in carries if span.trace_id in exemplar]
        assert 'command_type="Ship"' in labels

        # From the trace to the event that it wrote.
        events = [event async for event in store.read_all()]
        [shipped] = [event for event in events if span.trace_id in event.metadata.traceparent]
        assert shipped.event_type == "log-to-trace.Shipped"
        assert shipped.metadata.command_type == "Ship"

        # From the event to what caused it: an event, and the command that wrote that.
        assert shipped.metadata.causation_id == line["eventcore.causation_id"]
        [cause] = [event for event in events if event.event_id == shipped.metadata.causation_id]
        assert (cause.event_type, cause.metadata.command_type) == ("log-to-trace.Ordered", "PlaceOrder")
        causing = cause.metadata.traceparent.split("-")[2]
        assert [one.name for one in ddapm.spans() if one.span_id == causing] == ["execute PlaceOrder"]
        shipping.cancel()
        await asyncio.wait([shipping])
