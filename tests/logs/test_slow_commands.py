"""A command that takes longer than `slow_command` is one record with its phases and its trace."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import pytest

from eventcore import Command, Event, EventStore, StreamId, open_store
from eventcore.errors import CommandTimeout, StoreUnavailable
from eventcore.logs import TraceContextFilter
from eventcore.stores.values import AppendRequest, KeyRecord, Verdict
from tests.health.conftest import until
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, Deposited, account


class Dawdle(Command[None]):
    account: StreamId
    seconds: float

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        time.sleep(self.seconds)
        yield self.account, Deposited(amount=1)


async def test_a_slow_command_is_a_record_that_says_where_the_time_went(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The handler outlives the test, and the filter must not.
    monkeypatch.setattr(caplog.handler, "filters", [TraceContextFilter()])
    async with open_store("memory:", exporters="none", config={}, slow_command=0.05) as store:
        await store.execute(Deposit(account=account(1)))
        result = await store.execute(Dawdle(account=account(1), seconds=0.06))
    # On a busy machine other commands may be slow, too.
    [record] = [record for record in caplog.records if "slow command Dawdle" in record.getMessage()]
    found = re.fullmatch(
        r"slow command Dawdle: ([\d.]+) s, outcome committed, attempts: 1; "
        r"phases: load [\d.]+ s, decide ([\d.]+) s, append [\d.]+ s(?:, other [\d.]+ s)?; trace ([0-9a-f]{32})",
        record.getMessage(),
    )
    assert found is not None, record.getMessage()
    assert 0.06 <= float(found[2]) <= float(found[1])
    assert found[3] == vars(record)["trace_id"] == result.events[0].metadata.traceparent.split("-")[1]
    assert record.levelno == logging.WARNING


def _appending(store: EventStore) -> Callable[[], Awaitable[bool]]:
    async def waits() -> bool:
        return store._instruments.backend.append_wait() is not None

    return waits


async def test_a_slow_command_without_an_answer_says_what_it_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    backend = SteeredBackend()
    async with open_store(backend, exporters="none", config={}, slow_command=0.05) as store:
        await store.execute(Deposit(account=account(1)))
        backend.hold()
        running = asyncio.create_task(store.execute(Deposit(account=account(1)), timeout=0.5))
        await until(_appending(store))
        # The batch before is on its way, so this one waits for it.
        with pytest.raises(CommandTimeout):
            await store.execute(Deposit(account=account(1)), timeout=0.1)
        with pytest.raises(CommandTimeout):
            await running
        backend.let_all()
    said = [record.getMessage() for record in caplog.records if record.name == "eventcore.commands"]
    found = [re.search(r"phases: (.*) for \d\.\d+ s; trace", each) for each in said]
    assert {each[1] for each in found if each is not None} == {"waiting for the batch before it", "append without an answer"}


class Slow(SteeredBackend):
    """Looks keys up slowly; appends slowly, and then fails."""

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        await asyncio.sleep(0.2)
        return await super().find_keys(keys)

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        if self.appends:
            await asyncio.sleep(0.2)
            raise StoreUnavailable("the disk is full")
        return await super().append(requests)


async def test_a_slow_command_says_how_much_of_its_time_is_in_no_phase_and_names_each_phase_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_store(Slow(), exporters="none", config={}, slow_command=0.05) as store:
        await store.execute(Deposit(account=account(1)), idempotency_key="a")
        with pytest.raises(CommandTimeout):
            await store.execute(Deposit(account=account(1)), idempotency_key="b", timeout=0.1)
        with pytest.raises(StoreUnavailable):
            await store.execute(Deposit(account=account(1)))
    said = [record.getMessage() for record in caplog.records if "slow command" in record.getMessage()]
    slow_key, no_key, failed = [each.split("phases: ")[1].split("; trace")[0] for each in said]
    assert re.search(r"append [\d.]+ s, other 0\.[2-9]\d\d s$", slow_key), slow_key
    assert re.fullmatch(
        r"the look-up of its idempotency key, or the first call with it, without an answer for 0\.\d+ s", no_key
    ), no_key
    assert "without an answer" not in failed
    assert failed.count("append") == 1


async def test_without_a_limit_no_command_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    async with open_store("memory:", exporters="none", config={}, slow_command=None) as store:
        await store.execute(Dawdle(account=account(1), seconds=0.01))
    assert caplog.records == []


@pytest.mark.parametrize("seconds", [-1, 0, float("nan"), "1"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="slow_command="):
        open_store("memory:", slow_command=seconds)
