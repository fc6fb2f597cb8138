"""Backends that take one signal only: the other one is a warning, and everything that can be delivered is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from eventcore.telemetry import Pipeline, Telemetry
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver
from tests.real_parts import Jaeger, wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


@asynccontextmanager
async def sending_to(endpoint: str) -> AsyncIterator[tuple[Telemetry, Pipeline]]:
    """A telemetry that has something of both signals to send."""
    config = {"exporters": {"otel": {"pipeline": {"interval": 3600, "backoff": 0.1}}}}
    async with Telemetry(config=config, exporters=[], traces_per_second="all") as telemetry:
        telemetry.register_exporter(OpenTelemetryExporter(endpoint=endpoint))
        [pipeline] = telemetry.exporters()
        assert isinstance(pipeline, Pipeline)
        assert pipeline.started.wait(10)
        telemetry.counter("orders.shipped").add(3)
        with telemetry.span("ship order"):
            pass
        yield telemetry, pipeline


@pytest.mark.conforms("OTLP exporter", "`UNIMPLEMENTED` is not retried; the other signal goes on.")
@pytest.mark.parametrize(("taken", "refused"), [("traces", "metrics"), ("metrics", "spans")])
async def test_a_signal_that_a_backend_has_no_service_for_is_one_warning_and_every_flush_is_true(
    taken: str, refused: str, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.start(services=[taken])
    async with sending_to(receiver.endpoint) as (telemetry, pipeline):
        assert await telemetry.flush(5)
        assert await telemetry.flush(5)
        report = await telemetry.flush(5)
        assert report, str(report)
        assert report["otel"].reason.startswith(f"{refused}: UNIMPLEMENTED")
        assert pipeline.state == "running"
        assert "UNIMPLEMENTED" in pipeline.problem
    assert len([record for record in caplog.records if "UNIMPLEMENTED" in record.getMessage()]) == 1
    if taken == "traces":
        assert ([span.name for span in receiver.spans()], report["otel"].points_exported) == (["ship order"], 0)
    else:
        assert report["otel"].points_exported > 0
        assert report["otel"].spans_dropped["rejected"] == 1


async def test_a_backend_that_learns_to_take_the_signal_gets_it(receiver: Receiver) -> None:
    receiver.start(services=["traces"])
    async with sending_to(receiver.endpoint) as (telemetry, pipeline):
        assert await telemetry.flush(5)
        port = receiver.port
        receiver.stop()
        receiver.start(port)
        assert await telemetry.flush(5)
        assert pipeline.problem == ""
    assert "orders.shipped" in {metric.name for metric in receiver.metrics()}


async def test_a_server_that_takes_neither_signal_is_a_wrong_address(receiver: Receiver) -> None:
    receiver.start(services=[])
    async with sending_to(receiver.endpoint) as (telemetry, pipeline):
        assert not await telemetry.flush(5)
        assert pipeline.state == "failing"


@pytest.mark.once
async def test_jaeger_which_takes_traces_only_is_served_without_a_false_alarm(
    jaeger: Jaeger, caplog: pytest.LogCaptureFixture
) -> None:
    async with sending_to(jaeger.grpc_endpoint) as (telemetry, pipeline):
        with telemetry.span("pack order") as span:
            trace_id = span.context.trace_id
        for _ in range(2):
            assert await telemetry.flush(10)
        assert pipeline.state == "running"
        assert "metrics: UNIMPLEMENTED" in pipeline.problem
        [found] = await asyncio.to_thread(wait_until, lambda: jaeger.trace(trace_id))
    assert found["operationName"] == "pack order"
    assert len([record for record in caplog.records if "UNIMPLEMENTED" in record.getMessage()]) == 1
