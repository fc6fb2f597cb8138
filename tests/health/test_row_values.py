"""What an event or a row contains does not reach health, logs, spans or dead letters, whatever a handler raises."""

from __future__ import annotations

import asyncio
import io
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, cast
from uuid import uuid4

import msgspec
import pytest

from eventcore import Command, Event, EventStore, OnError, Projection, RecordedEvent, StreamId, Telemetry, open_store
from eventcore.errors import ProjectionFailed
from eventcore.exporting import Exporter, SpanData, hookimpl
from eventcore.logs import configure
from tests.health.conftest import QUICK, Run, check, deposit, get, until, when
from tests.real_parts.postgres import PostgresServer
from tests.store.bank import Deposit, account

SECRET = "ada@example.com"  # what no answer and no record may contain
pytestmark = pytest.mark.timeout(60)


class Spans(Exporter):
    def __init__(self) -> None:
        self.seen: list[SpanData] = []

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        self.seen += spans


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """The log as a service without `eventcore.logs` writes it: nothing is masked on the way."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    for bounds in logging.getLogger("eventcore.projections").filters:
        # Tests before this one may have used up the records of this period.
        bounds._period_end = 0.0  # type: ignore[union-attr]
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


async def shown(store: EventStore) -> str:
    """Everything that a probe or a person can read about the store over HTTP."""
    answers = [(await get(store, path)).text for path in ("/livez", "/readyz", "/healthz", "/data.json")]
    return "".join(answers)


class Joined(Event):
    event_type = "tests.health.Joined"
    kind: Literal["reader", "writer"]


class Join(Command[None]):
    reader: StreamId

    def initial_state(self) -> None:
        return None

    def apply(self, state: None, event: RecordedEvent) -> None:
        return None

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        yield self.reader, Joined(kind="reader")


class Poisoned(Projection):
    """Fails as ``fail`` does."""

    name = "readers"

    def __init__(self, fail: Callable[[], object], then: Literal["stop", "dead_letter"]) -> None:
        self.fail = fail
        self.on_error = OnError(retries=1, base_delay=0.001, max_delay=0.001, then=then)

    def handle(self, event: RecordedEvent) -> None:
        self.fail()


def from_the_database() -> None:
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE readers (email text CHECK (length(email) < 3))")
        try:
            database.execute("INSERT INTO readers VALUES (?)", (SECRET,))
        except sqlite3.IntegrityError as error:
            raise ValueError(f"cannot keep {SECRET!r}") from error


def from_a_validator() -> None:
    msgspec.convert({"kind": SECRET}, dict[str, Literal["reader", "writer"]])


def from_a_mapping() -> None:
    cast(dict[str, int], {})[SECRET]


def with_a_note() -> None:
    error = RuntimeError("the read model refuses")
    error.add_note(f"the row was {SECRET}")
    raise error


def from_several() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise ExceptionGroup(f"not '{SECRET}'", [error, LookupError(f"{SECRET!r} is new")]) from None


@pytest.mark.parametrize("fail", [from_the_database, from_a_validator, from_a_mapping, with_a_note, from_several])
async def test_what_a_handler_repeats_of_an_event_is_shown_nowhere(
    fail: Callable[[], object], telemetry: Telemetry, logged: io.StringIO
) -> None:
    spans = Spans()
    telemetry.register_exporter(spans)
    async with open_store("memory:", telemetry=telemetry, health=QUICK) as store:
        await deposit(store)
        with pytest.raises(ProjectionFailed) as stopped:
            await store.run(Poisoned(fail, "stop"))
        health = await until(lambda: when(store, lambda health: "projection:readers" in health.problems()))
        said = (health.checks["projection:readers"].reason, str(stopped.value), await shown(store))
        keeping = asyncio.create_task(store.run(Poisoned(fail, "dead_letter")))
        await store.wait_for("readers", 1)
        keeping.cancel()
        await asyncio.wait([keeping])
        [letter] = await store.dead_letters("readers")
        assert await telemetry.flush(5.0)
    written = logged.getvalue()
    assert SECRET not in "".join((*said, letter.error, written, repr(spans.seen)))
    # It still says what has failed, and where.
    kind = type(stopped.value.__cause__).__name__
    assert kind in said[0]
    assert f", in {fail.__name__}\n" in written
    assert written.count(f"{kind}: ") >= 4
    # The caller of `run` gets the exception itself.
    assert SECRET in f"{stopped.value.__cause__} {getattr(stopped.value.__cause__, '__notes__', '')}"


@pytest.mark.once
async def test_the_row_of_a_statement_that_postgresql_refuses_is_shown_nowhere(
    newest_postgres: PostgresServer, telemetry: Telemetry, run: Run, logged: io.StringIO
) -> None:
    table = f"readers_{uuid4().hex[:8]}"

    class Readers(Projection):
        name = "readers"
        on_error = OnError(retries=0, then="dead_letter")

        async def handle(self, event: RecordedEvent, transaction: Any) -> None:
            if event.position == 1:
                await transaction.execute(f"CREATE TABLE {table} (email text PRIMARY KEY, age int NOT NULL)")
                await transaction.execute(f"INSERT INTO {table} VALUES ($1, 1)", SECRET)
            elif event.position == 2:
                await transaction.execute(f"INSERT INTO {table} VALUES ($1, null)", f"{SECRET}\n{SECRET}")
            elif event.position == 3:
                await transaction.execute(f"INSERT INTO {table} VALUES ($1, 1)", SECRET)
            elif event.position == 4:
                await transaction.execute(f"INSERT INTO {table} VALUES ('x', $1)", {SECRET: SECRET})
            elif event.position == 5:
                await transaction.execute(f"SELECT '{SECRET}'::int")

    spans = Spans()
    telemetry.register_exporter(spans)
    schema = f"values_{uuid4().hex[:12]}"
    url = f"{newest_postgres.url()}?schema={schema}"
    async with open_store(url, telemetry=telemetry, health=QUICK) as store:
        for _ in range(5):
            await store.execute(Deposit(account=account("a")))
        run(Readers(), store)
        await store.wait_for("readers", 5)
        letters = await store.dead_letters("readers")
        texts = {letter.position: letter.error for letter in letters}
        assert (await check(store, "dead_letters")).figures == {"waiting": 4}
        answered = await shown(store)
        assert await telemetry.flush(5.0)
    # Which column and which constraint it was, without the row.
    assert texts == {
        2: f'null value in column "age" of relation "{table}" violates not-null constraint',
        3: f'duplicate key value violates unique constraint "{table}_pkey"',
        4: "invalid input for query argument $1: … ('dict' object cannot be interpreted as an integer)",
        5: 'invalid input syntax for type integer: "…"',
    }
    written = logged.getvalue()
    assert f'duplicate key value violates unique constraint "{table}_pkey"' in written
    assert SECRET not in "".join((answered, written, repr(spans.seen), repr(letters)))


async def test_an_event_that_cannot_be_read_does_not_show_what_it_contains(tmp_path: Path, logged: io.StringIO) -> None:
    path = tmp_path / "readers.db"
    async with open_store(f"sqlite:///{path}", exporters="none") as store:
        await store.execute(Join(reader=StreamId("reader-1")))
    with closing(sqlite3.connect(path)) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("UPDATE events SET data = ?", (b'{"kind": "' + SECRET.encode() + b'"}',))
        database.commit()
    async with open_store(f"sqlite:///{path}", exporters="none", health=QUICK) as store:
        with pytest.raises(ProjectionFailed) as stopped:
            await store.run(Poisoned(lambda: None, "stop"))
        assert "`$.kind`" in str(stopped.value)
        assert SECRET not in await shown(store)
    assert SECRET not in logged.getvalue() + str(stopped.value)


def test_the_record_of_an_application_has_no_row_in_it_either() -> None:
    stream = io.StringIO()
    handler = configure("json", stream=stream)
    refused = f'null value\nDETAIL:  Failing row contains (1,\n{SECRET}, null).\nCONTEXT:  COPY readers, line 1: "{SECRET}"'
    try:
        try:
            raise RuntimeError(refused)
        except RuntimeError as error:
            try:
                raise LookupError("the request failed") from error
            except LookupError:
                logging.getLogger("shop").exception("cannot serve: %s", error)
        logging.getLogger("shop").error("(sqlalchemy) refused\n[SQL: INSERT]\n[parameters: ('%s',)]", SECRET)
        logging.getLogger("shop").error("1 error [type=int, input_value='%s', input_type=str]", SECRET)
        logging.getLogger("shop").error("Key (email)=(%s) already exists", SECRET)
        logging.getLogger("shop").error("invalid input for query argument $2: {'%s': 1} (expected str, got dict)", SECRET)
    finally:
        logging.getLogger().removeHandler(handler)
    assert SECRET not in stream.getvalue()
    assert "LookupError: the request failed" in stream.getvalue()
    assert "[type=int, input_value= ***, input_type=str]" in stream.getvalue()


async def test_a_health_check_that_asks_a_database_does_not_repeat_its_rows(store: EventStore) -> None:
    def ask() -> None:
        raise RuntimeError(f'duplicate key value violates "readers_pkey"\nDETAIL:  Key (email)=({SECRET}) already exists.')

    store.add_health_check("read_model", ask)
    assert (await check(store, "read_model")).reason == 'RuntimeError: duplicate key value violates "readers_pkey"'
    assert StreamId("reader-1") not in await shown(store)
