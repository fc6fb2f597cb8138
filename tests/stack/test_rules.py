"""The rules and alerts: generated from one source, accepted by the real programs, and fired at the times of production."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from eventcore.catalogue import CATALOGUE
from examples.observability import rules
from examples.observability.alerts import ALERTS, INHIBITIONS, recordings
from tests.real_parts.finding import PartMissing, find_part
from tests.stack.names import metrics_of, page_names

pytestmark = [pytest.mark.once, pytest.mark.timeout(150)]

ROOT: Final = Path(__file__).parents[2]
_BANK: Final = 'service="bank",store="bank"'
_OTEL: Final = 'service="bank",exporter="otel"'


def _health(check: str) -> str:
    return f'eventcore_health_status{{{_BANK},worker="0",check="{check}",status="healthy"}}'


def _commands(outcome: str) -> str:
    return f'eventcore_commands_total{{{_BANK},worker="0",command_type="Transfer",outcome="{outcome}"}}'


# For each alert: series with their values in promtool's notation, from the first sample on; and the values while all is well.
# A steady value is `7x260`, a counter that grows by 3 a scrape is `0+3x260`.
_SOME_FAIL: Final = [(_commands("error"), "0+3x260", "0x260"), (_commands("committed"), "0+97x260", "0+97x260")]
_FEW_FAIL: Final = [(_commands("conflict"), "0+8x260", "0x260"), (_commands("committed"), "0+992x260", "0+992x260")]
_HARDLY_ANY_FAIL: Final = [(_commands("error"), "0+2x260", "0x260"), (_commands("committed"), "0+998x260", "0+998x260")]
_ESCAPED: Final = f'eventcore_commands_conflicts_total{{{_BANK},worker="0",command_type="Transfer",resolution="escaped"}}'
_DROPPED: Final = f'eventcore_exporters_spans_total{{{_OTEL},worker="0",outcome="dropped",reason="queue_full"}}'
_OVERFLOW: Final = 'eventcore_series_overflow_total{service="bank",worker="0",instrument="orders.shipped"}'
CASES: Final[dict[str, list[tuple[str, str, str]]]] = {
    # Whatever its job is called; a target without the label is not eventcore's.
    "EventcoreServiceDown": [('up{job="shop",service="bank"}', "0x260", "1x260"), ('up{job="node"}', "0x260", "0x260")],
    "EventcoreStoreAway": [
        (f'eventcore_store_up{{{_BANK},worker="{worker}"}}', "0x260", good) for worker, good in ((0, "0x260"), (1, "1x260"))
    ],
    "EventcoreBreakerOpen": [(f'eventcore_store_breaker_state{{{_BANK},worker="0",state="open"}}', "1x260", "0x260")],
    "EventcoreCommandsFailingFast": _SOME_FAIL,
    "EventcoreCommandsFailing": _FEW_FAIL,
    "EventcoreCommandsFailingSlowly": _HARDLY_ANY_FAIL,
    "EventcoreConflictsEscaping": [(_ESCAPED, "0+2x260", "0x260"), (_commands("committed"), "0+98x260", "0+98x260")],
    "EventcorePoolExhausted": [(f'eventcore_store_pool_timeouts_total{{{_BANK},worker="0"}}', "0+1x260", "5x260")],
    "EventcoreAppendLockWaited": [(_health("append"), "0x260", "1x260")],
    "EventcoreProjectionUnattended": [
        (f'eventcore_projections_leader{{{_BANK},worker="{worker}",projection="balances"}}', "0x260", good)
        for worker, good in ((0, "0x260"), (1, "1x260"))
    ],
    "EventcoreProjectionStuck": [
        (f'eventcore_projections_lag{{{_BANK},worker="0",projection="balances"}}', "0+5x260", "7x260"),
        (f'eventcore_projections_position{{{_BANK},worker="0",projection="balances"}}', "42x260", "0+5x260"),
    ],
    "EventcoreProjectionBehind": [
        (f'eventcore_projections_lag_time_seconds{{{_BANK},worker="0",projection="balances"}}', "301x260", "2x260")
    ],
    "EventcoreDeadLettersWaiting": [(_health("dead_letters"), "0x260", "1x260")],
    "EventcoreExporterSilent": [
        # Worker 1 has recorded nothing for long, and worker 0 cannot deliver.
        (f'eventcore_exporters_last_success_age_seconds{{{_OTEL},worker="0",signal="spans"}}', "301x260", "9x260"),
        (f'eventcore_exporters_last_success_age_seconds{{{_OTEL},worker="1",signal="spans"}}', "900x260", "900x260"),
        (f'eventcore_exporters_spans_pending{{{_OTEL},worker="0"}}', "7x260", "7x260"),
        (f'eventcore_exporters_spans_pending{{{_OTEL},worker="1"}}', "0x260", "0x260"),
    ],
    "EventcoreSpansDropped": [(_DROPPED, "0+1x260", "5x260")],
    "EventcoreSeriesCapReached": [(_OVERFLOW, "0+1x260", "5x260")],
    "EventcoreEventLoopBlocked": [(_health("event_loop"), "0x260", "1x260")],
    "EventcoreWorkerFrozen": [('eventcore_exporters_worker_up{service="bank",worker="1"}', "0x260", "1x260")],
    "EventcoreDiskFull": [(_health("disk"), "0x260", "1x260")],
    "CollectorDown": [('up{job="collector"}', "0x260", "1x260")],
}


def _promtool() -> Path:
    try:
        return find_part("promtool3")
    except PartMissing:
        return find_part("promtool")


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [("rules.yml", rules.rules_file()), ("alertmanager.yml", rules.alertmanager_file())],
    ids=["rules", "inhibit"],
)
def test_the_committed_file_is_the_generated_one(name: str, text: str) -> None:
    assert (rules.FILES / name).read_text() == text, "run: python -m examples.observability.rules"


@pytest.mark.parametrize("scale", [1, 20, 60])
def test_prometheus_accepts_the_rules_at_every_scale(scale: float, tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(rules.rules_file(scale))
    assert f"{len(ALERTS) + len(list(recordings()))} rules found" in _run(_promtool(), "check", "rules", file)


def test_alertmanager_accepts_the_inhibitions() -> None:
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("amtool is missing: apt-get install --no-install-recommends prometheus-alertmanager")
    assert f"{len(INHIBITIONS)} inhibit rules" in _run(amtool, "check-config", rules.FILES / "alertmanager.yml")


def test_every_alert_fires_after_its_time_and_not_before_and_not_while_all_is_well(tmp_path: Path) -> None:
    shutil.copy(rules.FILES / "rules.yml", tmp_path)
    tests: list[dict[str, object]] = []
    for alert in ALERTS:
        firing = f'count(ALERTS{{alertname="{alert.name}",alertstate="firing"}})'
        for bad in (True, False):
            expected = [(alert.wait - 15, 0), (alert.wait + 45, int(bad))]
            tests.append(
                {
                    "interval": "15s",
                    "name": f"{alert.name}, {'broken' if bad else 'well'}",
                    "input_series": [
                        {"series": series, "values": broken if bad else well} for series, broken, well in CASES[alert.name]
                    ],
                    "promql_expr_test": [
                        {
                            "expr": firing,
                            "eval_time": rules.duration(at),
                            "exp_samples": [{"labels": "{}", "value": count}] if count else [],
                        }
                        for at, count in expected
                    ],
                }
            )
    file = tmp_path / "test.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}))
    _run(_promtool(), "test", "rules", file)


def test_every_alert_has_a_runbook_a_severity_and_a_unique_name() -> None:
    assert set(CASES) == {alert.name for alert in ALERTS}
    assert len(CASES) == len(ALERTS)
    for alert in ALERTS:
        page = (ROOT / rules.RUNBOOKS / f"{alert.runbook}.md").read_text()
        assert alert.name in page, f"{alert.runbook}.md does not say what {alert.name} means"
        assert alert.severity in ("page", "ticket")


def test_every_runbook_belongs_to_an_alert_and_shows_how_to_look_and_how_to_mend() -> None:
    pages = {page.stem for page in (ROOT / rules.RUNBOOKS).glob("*.md")} - {"README"}
    assert pages == {alert.runbook for alert in ALERTS}
    index = (ROOT / rules.RUNBOOKS / "README.md").read_text()
    for name in pages:
        assert f"({name}.md)" in index
        titles = re.findall(r"^## (.+)$", (ROOT / rules.RUNBOOKS / f"{name}.md").read_text(), re.MULTILINE)
        assert titles == ["What it means", "Look", "Mend", "Afterwards"], name


def test_inhibitions_name_alerts_that_exist() -> None:
    names = {alert.name for alert in ALERTS}
    for inhibition in INHIBITIONS:
        assert {inhibition.cause, *inhibition.effects} <= names
        assert inhibition.cause not in inhibition.effects


def test_rules_use_only_metrics_and_label_values_that_are_emitted() -> None:
    known = page_names(CATALOGUE.values())
    expressions = [alert.expression for alert in ALERTS] + [expression for _, expression in recordings()]
    used = {name for expression in expressions for name in metrics_of(expression)} - {"up"}
    assert used
    assert used - {name for name, _ in recordings()} <= known
