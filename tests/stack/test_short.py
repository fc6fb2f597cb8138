"""The stack runs for some seconds with the parts that need no Go: the four published names reach Prometheus."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
import pytest

from examples.observability import rules
from examples.observability.alerts import ALERTS
from tests.real_parts.waiting import wait_until
from tests.stack.native import Stack, new_directory

pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(120)]

PUBLISHED = (
    *("eventcore_commands_total", "eventcore_command_duration_seconds_count"),
    *("eventcore_events_written_total", "eventcore_streams_active"),
)


def test_the_stack_starts_measures_its_commands_and_no_alert_fires(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(rules.rules_file(30))
    directory = new_directory(tmp_path / "run")
    with closing(Stack(directory, file, 0.5, rate=0, without=("alertmanager", "collector", "jaeger", "prometheus3"))) as stack:
        for name in ("ada", "bob"):
            httpx.post(f"{stack.service}/accounts/{name}/deposits", json={"amount": 5}, timeout=30).raise_for_status()
        missing = set(PUBLISHED)

        def complete() -> bool:
            missing.difference_update([name for name in missing if stack.query(f"sum({name}) > 0")])
            return not missing

        wait_until(complete, timeout=30, message=f"{missing} are measured", step=0.2)
        # rotel, which stands for the Collector, has no page of metrics.
        assert {alert["metric"]["alertname"] for alert in stack.query('ALERTS{alertstate="firing"}')} <= {"CollectorDown"}
        assert stack.alert_rules() == {alert.name for alert in ALERTS}
