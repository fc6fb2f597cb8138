"""Two of the nine incidents; ``python3 run.py incidents`` plays all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.incidents.observing import Row, Watch
from tests.incidents.script import handler_dead_letters, slow_command
from tests.incidents.staging import Service, Stage
from tests.real_parts import Rotel
from tests.real_parts.postgres import PostgresServer

pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(90)]


@pytest.fixture
def stage(newest_postgres: PostgresServer, rotel: Rotel, tmp_path: Path) -> Iterator[Stage]:
    with Stage(newest_postgres, rotel, tmp_path).service(BANK_DRAIN_DELAY="0") as service:
        yield Stage(newest_postgres, rotel, tmp_path, running=service)


def test_a_poison_event_and_a_slow_command_are_seen_in_health_log_metrics_and_traces(stage: Stage) -> None:
    for row in (handler_dead_letters(stage), slow_command(stage)):
        assert row.missing == []
        assert all((row.health, row.logged, row.metrics, row.traces))
        # The record leads to the trace.
        assert any(record["trace_id"] == trace.split()[0] for record in row.logged for trace in row.traces)


def test_what_is_expected_and_not_seen_is_missing(newest_postgres: PostgresServer, rotel: Rotel, tmp_path: Path) -> None:
    # A service that was never started.
    watch = Watch("nothing happens", Service(newest_postgres, rotel, tmp_path))
    watch.before("eventcore_store_up")
    watch.health("readyz", 200, 0)
    watch.always("livez", 200, 0.1)
    watch.logged("the store", within=0)
    watch.rose("eventcore_store_up", within=0)
    watch.traced("a command", lambda span: span.name == "execute Deposit", within=0)
    watch.expect("it runs", None)
    seen: Row = watch.row
    assert [each.split(";")[0] for each in seen.missing] == [
        "/readyz 200  '' within 0 s",
        "/livez 200 always",
        "log:  'the store'",
        "metric eventcore_store_up within 0 s",
        "trace: a command",
        "it runs",
    ]
    assert [*seen.logged, *seen.metrics, *seen.traces] == []
