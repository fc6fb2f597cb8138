"""Writes the dashboards of Grafana: ``python -m examples.observability.dashboards``.

A test fails while the files in ``observability-stack/grafana/dashboards`` differ from what is written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from eventcore.catalogue import CATALOGUE
from examples.observability.panels import BOARDS, PROCESS, STORE, Board, Panel

FOLDER: Final = Path(__file__).parents[1] / "observability-stack" / "grafana" / "dashboards"
DOCS: Final = "docs"
"""Where the documentation is. Put the address of your copy here."""

_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="prometheus")
_UNITS: Final = {"s": "s", "By": "bytes"}
_NO_ID: Final = "00000000-0000-0000-0000-000000000000"
_FOREIGN: Final = frozenset({"auto", "auto_count", "auto_min", "style"})
# Three panels a row and three rows: the page fits a laptop.
_WIDTH: Final = 8
_HEIGHT: Final = 6


def expression(query: str) -> str:
    """The query of a panel with the variables of its dashboard."""
    return query.replace("<S>", STORE).replace("<E>", PROCESS)


def unit(panel: Panel) -> str:
    """The unit of a panel: its own, or that of the metric in the catalogue."""
    return panel.unit or _UNITS[CATALOGUE[panel.metric].unit]


def description(panel: Panel) -> str:
    """What is normal, and how the catalogue defines the metric."""
    defined = f"\n\n`eventcore.{panel.metric}`: {CATALOGUE[panel.metric].description}" if panel.metric else ""
    return f"{panel.advice}{defined}"


def _build(number: int, panel: Panel) -> timeseries.Panel | stat.Panel:
    built: timeseries.Panel | stat.Panel = stat.Panel() if panel.stat else timeseries.Panel()
    built.id(number).title(panel.title).description(description(panel)).unit(unit(panel)).datasource(_SOURCE)
    built.height(_HEIGHT).span(_WIDTH)
    built.links([dashboard.DashboardLink("What to do").url(f"{DOCS}/{panel.page}").target_blank(True)])
    for letter, (query, legend) in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(expression(query)).legend_format(legend).ref_id(letter)
        if "_bucket" in query:
            target.exemplar(True)
        built.with_target(target.instant() if panel.stat else target.range())
    return built


def _variables() -> Iterator[dashboard.QueryVariable]:
    chosen = 'service=~"$service"'
    for name, query in (
        ("service", "label_values(eventcore_info, service)"),
        ("store", f"label_values(eventcore_info{{{chosen}}}, store)"),
        ("worker", f"label_values(eventcore_info{{{chosen}}}, worker)"),
    ):
        variable = (
            dashboard.QueryVariable(name).query(query).datasource(_SOURCE).refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        yield variable.multi(True).include_all(True).all_value(".*")


def render(board: Board) -> str:
    """The JSON of a dashboard."""
    built = dashboard.Dashboard(board.title).uid(board.uid).description(board.description).tags(["eventcore"])
    built.time("now-1h", "now").refresh("30s").readonly()
    built.link(
        dashboard.DashboardLink("eventcore")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["eventcore"])
        .keep_time(True)
        .include_vars(True)
    )
    for variable in _variables():
        built.with_variable(variable)
    for number, panel in enumerate(board.panels, 1):
        built.with_panel(_build(number, panel))
    return json.dumps(_cleaned(json.loads(JSONEncoder().encode(built.build()))), sort_keys=True, indent=2) + "\n"


def _cleaned(value: Any) -> Any:
    """Without what Grafana's schema does not have: null for what is not set, and what older versions had."""
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items() if key not in _FOREIGN and item not in (None, _NO_ID)}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(render(board))


if __name__ == "__main__":
    main()
