"""Writes the rules of Prometheus and the inhibitions of Alertmanager: ``python -m examples.observability.rules``.

A test fails while ``rules.yml`` or ``alertmanager.yml`` differs from what is written here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from examples.observability.alerts import ALERTS, INHIBITIONS, recordings

FILES: Final = Path(__file__).parents[1] / "observability-stack"
INTERVAL: Final = 15.0
"""Seconds between scrapes in production."""
RUNBOOKS: Final = "docs/runbooks"
"""Where the runbook pages are, in the repository. Put the address of your copy here."""

_GENERATED: Final = "# Generated from examples/observability/alerts.py: python -m examples.observability.rules\n"
_ROUTE: Final = """\
# Alerts are shown by Alertmanager's API and page. Put your pager's receiver in place of `operator`.
route:
  receiver: operator
  group_by: [service]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 4h

receivers:
  - name: operator

inhibit_rules:
"""
_TIME: Final = re.compile(r"\{([ws]):(\d+)\}")


def duration(seconds: float) -> str:
    """A duration as Prometheus writes it, such as ``5m``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(1, round(seconds * 1000))}ms"


def scaled(expression: str, scale: float) -> str:
    """``expression`` with its times: ``{w:300}`` is a window, ``{s:300}`` a number of seconds."""

    def write(found: re.Match[str]) -> str:
        seconds = float(found[2]) / scale
        return duration(seconds) if found[1] == "w" else f"{seconds:g}"

    return _TIME.sub(write, expression)


def _quoted(text: str) -> str:
    """``text`` as YAML."""
    return "'" + text.replace("'", "''") + "'"


def rules_file(scale: float = 1.0) -> str:
    """The file of rules, with all times ``scale`` times shorter."""
    lines = [_GENERATED, "groups:\n", "  - name: eventcore-recordings\n", "    rules:\n"]
    for name, expression in recordings():
        lines.append(f"      - record: {name}\n        expr: {_quoted(scaled(expression, scale))}\n")
    lines += ["  - name: eventcore-alerts\n", "    rules:\n"]
    for alert in ALERTS:
        lines.append(
            f"      - alert: {alert.name}\n"
            f"        expr: {_quoted(scaled(alert.expression, scale))}\n"
            f"        for: {duration(alert.wait_at(scale))}\n"
            f"        keep_firing_for: {duration(alert.keep / scale)}\n"
            f"        labels:\n          severity: {alert.severity}\n"
            f"        annotations:\n          summary: {_quoted(alert.summary)}\n"
            f"          runbook_url: {RUNBOOKS}/{alert.runbook}.md\n"
        )
    return "".join(lines)


def alertmanager_file() -> str:
    """The configuration of Alertmanager."""
    lines = [_GENERATED, _ROUTE]
    for each in INHIBITIONS:
        effects = "|".join(each.effects)
        lines.append(
            f"  - source_matchers: ['alertname=\"{each.cause}\"']\n"
            f"    target_matchers: ['alertname=~\"{effects}\"']\n"
            f"    equal: [{', '.join(each.equal)}]\n"
        )
    return "".join(lines)


def main() -> None:
    (FILES / "rules.yml").write_text(rules_file())
    (FILES / "alertmanager.yml").write_text(alertmanager_file())


if __name__ == "__main__":
    main()
