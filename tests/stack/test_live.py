"""The whole stack runs for some seconds: every panel has data, and one command is found in metrics, exemplars and traces."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from examples.observability import rules
from tests.real_parts.waiting import wait_until
from tests.stack.firing import RUNBOOKS, commands
from tests.stack.native import ROOT, Stack, new_directory
from tests.stack.panels import queries, without_data

pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(300)]

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
        wait_until(complete, timeout=120, step=0.5)
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


def test_a_trace_leads_from_the_request_through_its_command_to_the_batch_of_the_projection(stack: Stack) -> None:
    if "jaeger" not in stack.processes:
        pytest.skip(stack.missing["jaeger"])

    def traces(operation: str) -> list[dict[str, Any]]:
        asked = {"service": "bank", "operation": operation, "limit": "50", "lookback": "1h"}
        found: list[dict[str, Any]] = httpx.get(f"{stack.url('jaeger')}/api/traces", params=asked, timeout=10).json()["data"]
        return found

    def references(span: dict[str, Any], kind: str) -> set[tuple[str, str]]:
        return {(each["traceID"], each["spanID"]) for each in span["references"] if each["refType"] == kind}

    def request_command_and_batch() -> tuple[str, ...]:
        batches = [span for trace in traces("project balances") for span in trace["spans"]]
        linked = {link for span in batches for link in references(span, "FOLLOWS_FROM")}
        for trace in traces("POST /transfers"):
            spans = {span["operationName"]: span for span in trace["spans"]}
            request, command = spans["POST /transfers"], spans.get("execute Transfer")
            if command is None or not spans.keys() >= {"read streams", "append events"}:
                continue
            below = references(command, "CHILD_OF") == {(trace["traceID"], request["spanID"])}
            # The batch has a trace of its own, and links to the commands that wrote its events.
            if below and not request["references"] and (trace["traceID"], command["spanID"]) in linked:
                return request["operationName"], command["operationName"], "project balances"
        return ()

    wait_until(request_command_and_batch, timeout=30, message="a trace from the request to a batch", step=0.5)


def test_every_command_of_the_runbook_pages_can_be_executed(stack: Stack) -> None:
    """Those that restart something are executed after real faults: ``python -m tests.stack fire``."""
    lines = {line for page in RUNBOOKS for line in commands(page)}
    assert len(lines) > 15
    failed = {}
    for line in sorted(lines):
        if re.search(r"\$(RESTART|UNDO|STOP)_", line):
            continue
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            env=stack.runbook_variables(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # 1 is an answer: not healthy, or dead letters wait.
        if done.returncode not in (0, 1) or done.stderr or '"status":"error"' in done.stdout:
            failed[line] = (done.returncode, done.stderr, done.stdout[-300:])
    assert failed == {}
