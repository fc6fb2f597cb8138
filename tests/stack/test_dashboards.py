"""The dashboards: generated from one source; each panel has a unit, a definition and a link, and uses emitted names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from eventcore.catalogue import CATALOGUE
from examples.observability import dashboards
from examples.observability.panels import BOARDS, Board
from tests.stack.names import metrics_of, page_names

pytestmark = pytest.mark.once

ROOT: Final = Path(__file__).parents[2]
_EACH: Final = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


def _panels(board: Board) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(dashboards.render(board))["panels"]
    return panels


@_EACH
def test_the_committed_dashboard_is_the_generated_one(board: Board) -> None:
    committed = (dashboards.FOLDER / f"{board.uid}.json").read_text()
    assert committed == dashboards.render(board), "run: python -m examples.observability.dashboards"


def test_no_other_dashboard_is_committed() -> None:
    assert {path.stem for path in dashboards.FOLDER.iterdir()} == {board.uid for board in BOARDS}


@_EACH
def test_every_panel_asks_a_question_and_has_a_unit_a_description_and_a_page(board: Board) -> None:
    for panel in _panels(board):
        assert panel["title"].endswith("?")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len(panel["description"]) > 20 or "`" not in panel["description"]
        [link] = panel["links"]
        assert (ROOT / link["url"]).is_file(), link["url"]


@_EACH
def test_a_dashboard_fits_a_laptop_and_has_the_three_variables(board: Board) -> None:
    content = json.loads(dashboards.render(board))
    assert [variable["name"] for variable in content["templating"]["list"]] == ["service", "store", "worker"]
    # A unit of height is 38 pixels, margin included.
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in content["panels"]) * 38 <= 800


@_EACH
def test_a_dashboard_uses_only_metrics_that_are_emitted_and_every_query_the_variables(board: Board) -> None:
    known = page_names(CATALOGUE.values())
    for panel in _panels(board):
        for target in panel["targets"]:
            used = metrics_of(target["expr"])
            assert used
            assert used <= known, target["expr"]
            assert re.search(r'service=~"\$service"', target["expr"])
            assert "vector(0)" not in target["expr"]
