"""A log line written while a command or a handler runs says which trace, which command, and which store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from eventcore import Command, Event, EventStore, Projection, RecordedEvent, StreamId, StreamState, Telemetry, open_store
from eventcore.logs import TraceContextFilter, add_trace_context
from tests.store.bank import Deposit, Deposited, account

LOGGER = logging.getLogger("tests.logs")


class Kept(logging.Handler):
    """Keeps records, with the fields of the operation that wrote them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.addFilter(TraceContextFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self, message: str) -> dict[str, Any]:
        [record] = [record for record in self.records if record.getMessage() == message]
        return {name: value for name, value in vars(record).items() if name.startswith(("eventcore.", "trace", "span"))}


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    LOGGER.addHandler(handler)
    LOGGER.setLevel("INFO")
    yield handler
    LOGGER.removeHandler(handler)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_store(f"sqlite:///{tmp_path}/bank.db", name="bank", exporters="none", config={}) as store:
        yield store


class Talk(Command[int]):
    account: StreamId

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: RecordedEvent) -> int:
        LOGGER.info("apply")
        return state + 1

    def discover_streams(self, state: int) -> Iterable[StreamId]:
        if state:
            LOGGER.info("discover")
        return ()

    def handle(self, state: int) -> Iterable[tuple[StreamId, Event]]:
        LOGGER.info("handle")
        yield self.account, Deposited(amount=1)


async def test_a_line_of_a_command_says_what_runs_and_why(store: EventStore, kept: Kept) -> None:
    await store.execute(Deposit(account=account(1)))
    result = await store.execute(Talk(account=account(1)), correlation_id="request-7", causation_id="message-3")
    [event] = result.events
    _, trace_id, span_id, flags = event.metadata.traceparent.split("-")
    for place in ("apply", "discover", "handle"):
        assert kept.fields(place) == {
            "trace_id": trace_id,
            "span_id": span_id,
            "trace_flags": flags,
            "eventcore.correlation_id": "request-7",
            "eventcore.causation_id": "message-3",
            "eventcore.store": "bank",
            "eventcore.command.type": "Talk",
        }


class Total(StreamState, version=1):
    amount: int = 0

    def apply(self, event: RecordedEvent) -> None:
        LOGGER.info("apply of a state")
        self.amount += 1


class TalkOfState(Command[Any]):
    account: Annotated[StreamId, Total]

    def handle(self, state: Any) -> None:
        assert state[self.account].amount == 1


async def test_a_line_of_a_states_fold_belongs_to_the_command_that_asked_first(store: EventStore, kept: Kept) -> None:
    await store.execute(Deposit(account=account(1)))
    await store.execute(TalkOfState(account=account(1)))
    assert kept.fields("apply of a state")["eventcore.command.type"] == "TalkOfState"


async def test_commands_that_run_in_one_batch_keep_their_lines_apart(store: EventStore, kept: Kept) -> None:
    class Named(Command[None]):
        account: StreamId
        name: str

        def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
            LOGGER.info("%s", self.name)
            yield self.account, Deposited(amount=1)

    names = [f"command-{number}" for number in range(20)]
    await asyncio.gather(*(store.execute(Named(account=account(n), name=n), correlation_id=n) for n in names))
    assert [kept.fields(name)["eventcore.correlation_id"] for name in names] == names
    assert len({kept.fields(name)["trace_id"] for name in names}) == len(names)


@pytest.mark.parametrize("inside", [False, True])
async def test_a_line_of_a_projections_handler_says_which(store: EventStore, kept: Kept, inside: bool) -> None:
    class Outside(Projection):
        name = "totals"

        async def handle(self, event: RecordedEvent) -> None:
            async def later() -> None:
                LOGGER.info("task")

            LOGGER.info("handler")
            await asyncio.create_task(later())

    class Inside(Projection):
        name = "totals"

        def handle(self, event: RecordedEvent, transaction: Any) -> None:
            LOGGER.info("handler")
            LOGGER.info("task")

    await store.execute(Deposit(account=account(1)))
    running = asyncio.create_task(store.run(Inside() if inside else Outside()))
    await store.wait_for("totals", 1, timeout=10)
    running.cancel()
    await asyncio.wait([running])
    for place in ("handler", "task"):
        fields = kept.fields(place)
        assert (fields["eventcore.store"], fields["eventcore.projection"]) == ("bank", "totals")
        assert len(fields["trace_id"]) == 32


async def test_spans_of_the_application_pass_the_fields_on(kept: Kept) -> None:
    telemetry = Telemetry(exporters="none", config={})
    with telemetry.span("request", correlation_id="r-1"), telemetry.span("query") as inner:
        LOGGER.info("query")
    fields = kept.fields("query")
    assert fields["eventcore.correlation_id"] == "r-1"
    assert fields["span_id"] == f"{inner.context.span_id:016x}" if inner.context.trace_id else fields["span_id"] == ""


def test_without_a_span_the_three_fields_are_empty_and_no_other_is_there(kept: Kept) -> None:
    LOGGER.info("alone")
    assert kept.fields("alone") == {"trace_id": "", "span_id": "", "trace_flags": ""}


def test_what_the_application_says_itself_stays(kept: Kept) -> None:
    LOGGER.info("own", extra={"trace_id": "mine"})
    assert kept.fields("own")["trace_id"] == "mine"
    assert add_trace_context(None, "info", {"event": "x"}) == {"event": "x"}


async def test_a_line_of_structlog_has_the_same_fields(store: EventStore) -> None:
    import structlog

    lines: list[Any] = []

    def keep(logger: Any, name: str, event: Any) -> Any:
        lines.append(dict(event))
        raise structlog.DropEvent

    log = structlog.wrap_logger(None, processors=[add_trace_context, keep])

    class Talk(Command[None]):
        account: StreamId

        def handle(self, state: None) -> None:
            log.info("handle", account=str(self.account))

    await store.execute(Talk(account=account(5)))
    [line] = lines
    assert line["eventcore.command.type"] == "Talk"
    assert line["account"] == "account-5"
    assert len(line["trace_id"]) == 32
