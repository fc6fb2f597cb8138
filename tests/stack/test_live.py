"""The whole stack runs for some seconds: every panel has data, and one command is found in metrics, exemplars and traces."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from examples.observability import rules
from tests.real_parts.waiting import wait_until
from tests.stack.native import Stack, new_directory
from tests.stack.panels import queries, without_data

pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(120)]

SCALE = 20.0
# On the service's page, and as the Collector names them, which does not know the one renaming.
PUBLISHED = {
    "eventcore_commands_total": "otlp_eventcore_commands_total",
    "eventcore_command_duration_seconds_count": "otlp_eventcore_commands_duration_seconds_count",
    "eventcore_events_written_total": "otlp_eventcore_events_written_total",
    "eventcore_streams_active": "otlp_eventcore_streams_active",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = new_directory(tmp_path_factory.mktemp("stack") / "run")
    file = directory / "rules.yml"
    file.write_text(rules.rules_file(SCALE))
    running = Stack(directory, file, rules.INTERVAL / SCALE, rate=40)
    try:
        if "prometheus" not in running.processes:
            pytest.skip(str(running.missing))
        yield running
    finally:
        running.close()


def test_every_panel_has_data_and_no_alert_fires(stack: Stack) -> None:
    asked = queries("10s")
    missing = dict(asked)

    def complete() -> bool:
        nonlocal missing
        missing = without_data(stack, missing)
        return not missing

    try:
        wait_until(complete, timeout=60, step=0.5)
    finally:
        print(f"queries of panels with data: {len(asked) - len(missing)} of {len(asked)}; without: {sorted(missing)}")
    firing = stack.query('ALERTS{alertstate="firing"}')
    assert firing == []


def test_the_four_published_names_are_there_from_the_page_and_through_the_collector(stack: Stack) -> None:
    def has(name: str, job: str) -> bool:
        return bool(stack.query(f'{name}{{job="{job}"}}'))

    for name, through_collector in PUBLISHED.items():
        wait_until(lambda: has(name, "service"), timeout=30, message=name)  # noqa: B023 - it ends in this round
        if "collector" not in stack.missing:
            wait_until(lambda: has(through_collector, "collector"), timeout=30, message=through_collector)  # noqa: B023


def test_an_exemplar_leads_to_the_trace_of_its_command_in_jaeger(stack: Stack) -> None:
    if "jaeger" not in stack.processes:
        pytest.skip(stack.missing["jaeger"])

    def traced() -> list[str]:
        asked = {"query": "eventcore_command_duration_seconds_bucket", "start": "0", "end": "9999999999"}
        found = httpx.get(f"{stack.url('prometheus')}/api/v1/query_exemplars", params=asked, timeout=10).json()["data"]
        return [each["labels"]["trace_id"] for series in found for each in series["exemplars"]]

    def spans() -> set[str]:
        for trace in traced()[:5]:
            answer = httpx.get(f"{stack.url('jaeger')}/api/traces/{trace}", timeout=10)
            if answer.is_success and answer.json()["data"]:
                return {span["operationName"] for span in answer.json()["data"][0]["spans"]}
        return set()

    wait_until(lambda: bool(spans() & {"execute Transfer", "execute Deposit"}), timeout=30, message="the trace of an exemplar")
