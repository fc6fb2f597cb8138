"""Log correlation as users of other projects have reported it missing or wrong. Each test names its report."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from eventcore import Command, Event, EventStore, StreamId, Telemetry, open_store
from eventcore.logs import TraceContextFilter, add_trace_context, configure
from tests.logs.test_fields import Kept, kept
from tests.store.bank import Deposited, account

__all__ = ["kept"]

LOGGER = logging.getLogger("tests.logs")


@pytest.fixture
async def store() -> AsyncIterator[EventStore]:
    async with open_store("memory:", name="bank", exporters="none", config={}) as store:
        yield store


class Talk(Command[None]):
    account: StreamId

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        LOGGER.info("handle")
        yield self.account, Deposited(amount=1)


@pytest.fixture
def configured() -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    level = root.level
    handler = configure("json", stream=stream)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_command_that_runs_outside_of_any_request_has_its_ids_in_its_lines(store: EventStore, kept: Kept) -> None:
    """proteanhq/protean#917: no processor reads the active span, and ids are empty where no message is in the context."""
    result = await store.execute(Talk(account=account(1)), correlation_id="request-7")
    fields = kept.fields("handle")
    assert fields["trace_id"] == result.events[0].metadata.traceparent.split("-")[1]
    assert fields["eventcore.correlation_id"] == "request-7"


def test_a_format_that_names_the_trace_id_works_where_no_span_is(capsys: pytest.CaptureFixture[str]) -> None:
    """keephq/keep#3126, DataDog/dd-trace-py#13892: 'Formatting field not found in record' while tracing is off."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(TraceContextFilter())
    handler.setFormatter(logging.Formatter("[%(trace_id)s/%(span_id)s/%(trace_flags)s] %(message)s"))
    logger = logging.getLogger("tests.logs.format")
    logger.addHandler(handler)
    logger.warning("no span")
    with Telemetry(exporters="none", config={"telemetry": {"verbosity": "off"}}).span("off"):
        logger.warning("tracing is off")
    logger.removeHandler(handler)
    assert stream.getvalue() == "[//] no span\n[//] tracing is off\n"
    assert capsys.readouterr().err == ""


async def test_loggers_below_the_configured_one_have_the_fields_too(store: EventStore, configured: io.StringIO) -> None:
    """CERT-Polska/karton#311: a filter on a logger is not applied to records of the loggers below it."""
    with store.telemetry.span("request"):
        logging.getLogger("shop.orders.deep").warning("deep")
    [line] = [line for line in lines(configured) if line["message"] == "deep"]
    assert len(line["trace_id"]) == 32


async def test_a_line_has_its_trace_id_once(store: EventStore, configured: io.StringIO) -> None:
    """open-telemetry/opentelemetry-python#3545: the ids stand twice in each line, under two names."""
    with store.telemetry.span("request") as span:
        LOGGER.warning("once")
    text = next(line for line in configured.getvalue().splitlines() if "once" in line)
    assert text.count(f"{span.trace_id:032x}") == 1
    assert text.count(f"{span.span_id:016x}") == 1


async def test_a_line_has_the_innermost_span_and_after_it_the_outer_one(store: EventStore, kept: Kept) -> None:
    """open-telemetry/opentelemetry-js-contrib#2097: every line of a trace has the id of its root span."""
    with store.telemetry.span("request") as outer:
        LOGGER.info("before")
        result = await store.execute(Talk(account=account(1)))
        LOGGER.info("after")
    execute = result.events[0].metadata.traceparent.split("-")[2]
    assert kept.fields("handle")["span_id"] == execute != f"{outer.span_id:016x}"
    assert kept.fields("before")["span_id"] == kept.fields("after")["span_id"] == f"{outer.span_id:016x}"


async def test_a_synchronous_endpoint_of_fastapi_has_the_fields_of_its_request(store: EventStore, kept: Kept) -> None:
    """hynek/structlog#491: what an asynchronous part of a request binds is missing in its synchronous parts."""
    app = FastAPI()

    @app.middleware("http")
    async def traced(request: Request, call_next: RequestResponseEndpoint) -> Response:
        with store.telemetry.span("request", correlation_id=request.headers["x-request-id"]):
            return await call_next(request)

    @app.get("/sync")
    def synchronous() -> str:
        LOGGER.info("synchronous")
        return "done"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert (await client.get("/sync", headers={"x-request-id": "request-9"})).status_code == 200
    assert kept.fields("synchronous")["eventcore.correlation_id"] == "request-9"


async def test_the_asynchronous_methods_of_structlog_take_the_fields_of_the_caller(store: EventStore) -> None:
    """hynek/structlog#462: `ainfo` read the context in the thread that writes, where it is another one."""
    structlog = pytest.importorskip("structlog")
    captured = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(
        None, processors=[add_trace_context, captured], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    with store.telemetry.span("request", correlation_id="request-7") as span:
        await logger.ainfo("written in a thread")
    [entry] = captured.entries
    assert (entry["trace_id"], entry["eventcore.correlation_id"]) == (f"{span.trace_id:032x}", "request-7")


async def test_a_pool_of_threads_has_the_fields_with_a_copy_of_the_context_and_never_those_of_others(
    store: EventStore, kept: Kept
) -> None:
    """fastapi/fastapi#2776, dabapps/django-log-request-id#63: lines of a thread pool have no id, or a stale one."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        for number in (1, 2):
            with store.telemetry.span("request", correlation_id=f"request-{number}"):
                context = contextvars.copy_context()
                await loop.run_in_executor(pool, context.run, LOGGER.info, f"copied {number}")
            assert kept.fields(f"copied {number}")["eventcore.correlation_id"] == f"request-{number}"
        await loop.run_in_executor(pool, LOGGER.info, "nobody's")
    assert kept.fields("nobody's") == {"trace_id": "", "span_id": "", "trace_flags": ""}
