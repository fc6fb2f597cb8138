"""What a projection says while it runs, fails, retries and stops."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from eventcore import OnError, Projection, RecordedEvent, open_store
from eventcore.errors import AccessDenied, InvalidProjection, ProjectionFailed, StoreError, StoreUnavailable
from eventcore.logs import TraceContextFilter
from eventcore.stores.memory import MemoryBackend
from tests.health.conftest import until
from tests.store.bank import Deposit, Deposited, account


class Failing(Projection):
    name = "totals"

    def handle(self, event: RecordedEvent) -> None:
        raise LookupError("no such account")


class Counting(Projection):
    name = "totals"

    def handle(self, event: RecordedEvent) -> None:
        pass


class Keeping(Failing):
    on_error = OnError(retries=2, base_delay=0.001, max_delay=0.001, then="dead_letter")


class Stopping(Failing):
    on_error = OnError(retries=0)


@pytest.fixture(autouse=True)
def fields(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "eventcore.projections")
    # The handler outlives the test, and the filter must not.
    monkeypatch.setattr(caplog.handler, "filters", [TraceContextFilter()])


async def test_the_first_retry_and_the_end_of_all_are_records_with_the_trace(caplog: pytest.LogCaptureFixture) -> None:
    async with open_store("memory:", name="bank", exporters="none", config={}) as store:
        await store.execute(Deposit(account=account(1)))
        running = asyncio.create_task(store.run(Keeping()))
        await store.wait_for("totals", 1, timeout=10)
        running.cancel()
        await asyncio.wait([running])
    where = "bank.Deposited of stream 'account-1' at position 1"
    assert [record.getMessage() for record in caplog.records] == [
        "this process runs projection 'totals' now, from position 0",
        f"projection 'totals' tries an event again, up to 2 times: {where}: LookupError: no such account",
        f"projection 'totals' cannot apply {where}, tried 3 times: LookupError: no such account; it is kept as a dead letter",
        "this process no longer runs projection 'totals'; it has reached position 1",
    ]
    for record in caplog.records[1:3]:
        assert "LookupError: no such account" in (record.exc_text or "")
        assert vars(record)["eventcore.projection"] == "totals"
        assert vars(record)["eventcore.store"] == "bank"


async def test_a_projection_that_stops_says_so_with_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with open_store("memory:", exporters="none", config={}) as store:
        await store.execute(Deposit(account=account(1)))
        with pytest.raises(ProjectionFailed):
            await store.run(Stopping())
    [stopped] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert stopped.getMessage().startswith("projection 'totals' has failed and does not run any more: ProjectionFailed: ")
    assert "in handle" in (stopped.exc_text or "")


def wrong_types() -> Projection:
    wrong = Counting()
    wrong.event_types = Deposited  # type: ignore[assignment]  # the mistake that this test is about
    return wrong


def wrong_name() -> Projection:
    wrong = Counting()
    wrong.name = "Totals of all"
    return wrong


@pytest.mark.parametrize(
    ("wrong", "named", "reason"),
    [
        (wrong_types(), "'totals'", "expected a sequence of event classes"),
        (wrong_name(), f"'{__name__}.Counting'", "name is 'Totals of all'"),
    ],
    ids=["types", "name"],
)
async def test_a_projection_that_is_refused_says_so_once_with_its_name(
    caplog: pytest.LogCaptureFixture, wrong: Projection, named: str, reason: str
) -> None:
    async with open_store("memory:", exporters="none", config={}) as store:
        with pytest.raises(InvalidProjection, match=reason):
            await store.run(wrong)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    message = record.getMessage()
    assert message.startswith(f"projection {named} has failed and does not run any more: InvalidProjection: ")
    assert reason in message


async def test_a_filter_that_has_changed_is_one_record_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    async with open_store("memory:", exporters="none", config={}) as store:
        await store.execute(Deposit(account=account(1)))
        before = Counting()
        before.pattern = "order-*"
        running = asyncio.create_task(store.run(before))
        await store.wait_for("totals", 1, timeout=10)
        running.cancel()
        await asyncio.wait([running])
        with pytest.raises(InvalidProjection, match="would now get more"):
            await store.run(Counting())
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("projection 'totals' has failed and does not run any more: InvalidProjection: ")


async def test_an_outage_is_one_record_of_each_kind_of_problem_and_one_when_the_projection_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MemoryBackend()
    ledger: Any = backend.ledger
    acquire = ledger.acquire_lease
    errors: list[StoreError] = []
    answered: list[str] = []

    async def acquire_lease(*arguments: Any) -> Any:
        answered.append(type(errors[0]).__name__ if errors else "lease")
        if errors:
            raise errors[0]
        return await acquire(*arguments)

    def tried(kind: str) -> Any:
        async def three_times() -> bool:
            return answered.count(kind) >= 3

        return three_times

    async def goes_on() -> bool:
        return "goes on" in caplog.text

    monkeypatch.setattr(ledger, "acquire_lease", acquire_lease)
    async with open_store(backend, exporters="none", config={}) as store:
        errors[:] = [StoreUnavailable("the server is away")]
        running = asyncio.create_task(store.run(Counting()))
        await until(tried("StoreUnavailable"))
        errors[:] = [AccessDenied("the password is wrong")]
        await until(tried("AccessDenied"))
        errors.clear()
        await until(goes_on)
        running.cancel()
        await asyncio.wait([running])
    said = [re.sub(r"[\d.]+ s", "… s", record.getMessage()) for record in caplog.records]
    assert said == [
        "projection 'totals' waits: StoreUnavailable: the server is away",
        "projection 'totals' waits: AccessDenied: the password is wrong",
        "this process runs projection 'totals' now, from position 0",
        "projection 'totals' goes on after … s",
        "this process no longer runs projection 'totals'; it has reached position 0",
    ]


async def test_a_standby_that_has_waited_does_not_say_that_it_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MemoryBackend()
    ledger: Any = backend.ledger
    away = [True]

    async def acquire_lease(*_: Any) -> None:
        if away:
            raise StoreUnavailable("the server is away")

    async def waits() -> bool:
        return "waits: " in caplog.text

    async def stands_by() -> bool:
        return "another process" in caplog.text

    monkeypatch.setattr(ledger, "acquire_lease", acquire_lease)
    async with open_store(backend, exporters="none", config={}) as store:
        running = asyncio.create_task(store.run(Counting(), lease=0.2))
        await until(waits)
        away.clear()
        await until(stands_by)
        running.cancel()
        await asyncio.wait([running])
    assert [re.sub(r"[\d.]+ s", "… s", record.getMessage()) for record in caplog.records] == [
        "projection 'totals' waits: StoreUnavailable: the server is away",
        "projection 'totals' is run by another process; this one, which stands by, has reached the store again after … s",
    ]
