"""The pictures of dashboards: what Prometheus answers, with the legends, units and numbers of the panels."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from examples.observability.panels import BOARDS, Panel
from examples.observability.pictures import ask, draw, shown

pytestmark = pytest.mark.once

_LATENCY = Panel("How long?", "commands.duration", (("rate(x{<S>}[$__rate_interval])", "p99 {{worker}}"),), "", "telemetry.md")
_STATE = Panel(
    "In which state?", "exporters.state", (("x{<E>} == 1", "{{exporter}}: {{state}}"),), "", "telemetry.md", "short", True
)


def _prometheus(*rows: tuple[dict[str, str], list[tuple[float, str]]], asked: list[str] | None = None) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(request.url.params["query"])
        return httpx.Response(200, json={"data": {"result": [{"metric": labels, "values": values} for labels, values in rows]}})

    return httpx.Client(base_url="http://prometheus", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0042, "s", "4.2 ms"),
        (2e-7, "s", "0.2 µs"),
        (90, "s", "1.5 min"),
        (3 << 20, "bytes", "3 MiB"),
        (0.125, "percentunit", "12.5 %"),
        (0, "ops", "0/s"),
        (1500, "ops", "1.5k/s"),
        (7, "short", "7"),
    ],
)
def test_a_value_is_shown_with_its_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_a_series_has_the_legend_of_its_labels_and_only_finite_points() -> None:
    asked: list[str] = []
    with _prometheus(({"worker": "1"}, [(10.0, "NaN"), (11.0, "0.5")]), asked=asked) as web:
        assert ask(web, _LATENCY, 100.0, 90.0, "5s") == {"p99 1": [(11.0, 0.5)]}
    assert asked == ['rate(x{service=~".*",store=~".*",worker=~".*"}[5s])']


def test_a_number_that_has_ended_is_not_shown() -> None:
    ended, now = {"exporter": "otel", "state": "failing"}, {"exporter": "otel", "state": "running"}
    with _prometheus((ended, [(50.0, "1")]), (now, [(100.0, "1")])) as web:
        assert list(ask(web, _STATE, 100.0, 90.0, "5s")) == ["otel: running"]


def test_every_dashboard_can_be_drawn_also_without_data(tmp_path: Path) -> None:
    board = BOARDS[0]
    answers = {panel.title: {"a": [(0.0, 1.0), (60.0, 2.0)]} if number % 2 else {} for number, panel in enumerate(board.panels)}
    file = tmp_path / "board.png"
    draw(board, answers, 60.0, file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size < 200_000
