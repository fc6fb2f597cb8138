"""Asks a running stack for the answer of every panel."""

from __future__ import annotations

from examples.observability.dashboards import expression
from examples.observability.panels import BOARDS
from tests.stack.native import Stack


def queries(window: str) -> dict[str, str]:
    """The queries of all panels by dashboard, title and legend, as Grafana asks them with every service, store and worker."""
    return {
        f"{board.uid} | {panel.title} | {legend}": expression(query)
        .replace("$__rate_interval", window)
        .replace("$service", ".*")
        .replace("$store", ".*")
        .replace("$worker", ".*")
        for board in BOARDS
        for panel in board.panels
        for query, legend in panel.queries
    }


def without_data(stack: Stack, window: str) -> list[str]:
    """The panels whose query returns no series, or only values that are not numbers."""
    return [
        name for name, query in queries(window).items() if all(row["value"][1] in ("NaN", "+Inf") for row in stack.query(query))
    ]
