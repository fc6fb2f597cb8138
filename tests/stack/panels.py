"""Asks a running stack for the answer of every panel."""

from __future__ import annotations

import math
from collections.abc import Mapping

from examples.observability.dashboards import expression
from examples.observability.panels import BOARDS
from tests.stack.native import Stack


def queries(window: str) -> dict[str, str]:
    """The queries of all panels by dashboard, title and legend, as Grafana asks them with every service, store and worker."""
    return {
        f"{board.uid} | {panel.title} | {legend}": instant(query, window)
        for board in BOARDS
        for panel in board.panels
        for query, legend in panel.queries
    }


def instant(query: str, window: str) -> str:
    """A query of a panel with every service, store and worker, and with this window for its rates."""
    text = expression(query).replace("$__rate_interval", window)
    return text.replace("$service", ".*").replace("$store", ".*").replace("$worker", ".*")


def without_data(stack: Stack, asked: Mapping[str, str]) -> dict[str, str]:
    """Those of ``asked`` that return no series, or only values that are not finite numbers."""
    return {name: query for name, query in asked.items() if not any(_is_finite(row["value"][1]) for row in stack.query(query))}


def _is_finite(value: str) -> bool:
    return math.isfinite(float(value))
