"""A command that takes longer than `slow_command` is one record with its phases and its trace."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable

import pytest

from eventcore import Command, Event, StreamId, open_store
from eventcore.logs import TraceContextFilter
from tests.store.bank import Deposit, Deposited, account


class Dawdle(Command[None]):
    account: StreamId
    seconds: float

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        time.sleep(self.seconds)
        yield self.account, Deposited(amount=1)


async def test_a_slow_command_is_a_record_that_says_where_the_time_went(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(TraceContextFilter())
    async with open_store("memory:", exporters="none", config={}, slow_command=0.05) as store:
        await store.execute(Deposit(account=account(1)))
        result = await store.execute(Dawdle(account=account(1), seconds=0.06))
    # On a busy machine other commands may be slow, too.
    [record] = [record for record in caplog.records if "slow command Dawdle" in record.getMessage()]
    found = re.fullmatch(
        r"slow command Dawdle: ([\d.]+) s, outcome committed, attempts: 1; "
        r"phases: load [\d.]+ s, decide ([\d.]+) s, append [\d.]+ s; trace ([0-9a-f]{32})",
        record.getMessage(),
    )
    assert found is not None, record.getMessage()
    assert 0.06 <= float(found[2]) <= float(found[1])
    assert found[3] == vars(record)["trace_id"] == result.events[0].metadata.traceparent.split("-")[1]
    assert record.levelno == logging.WARNING


async def test_without_a_limit_no_command_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    async with open_store("memory:", exporters="none", config={}, slow_command=None) as store:
        await store.execute(Dawdle(account=account(1), seconds=0.01))
    assert caplog.records == []


@pytest.mark.parametrize("seconds", [-1, 0, float("nan"), "1"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="slow_command="):
        open_store("memory:", slow_command=seconds)
