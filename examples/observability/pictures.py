"""Draws the dashboards without Grafana: ``python -m examples.observability.pictures http://127.0.0.1:9090 --minutes 10``.

Each dashboard becomes a picture in ``--into``: every panel with the answer that Prometheus gives now, its unit and its legend.
It needs matplotlib and httpx. It shows what the queries answer; colours and layout are not those of Grafana.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from examples.observability.dashboards import expression, unit
from examples.observability.panels import BOARDS, Board, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")
_STEPS: Final = 150
_COLUMNS: Final = 3
# Longest first: the largest that fits is taken.
_SCALES: Final[dict[str, tuple[tuple[float, str], ...]]] = {
    "s": ((60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((float(1 << 30), "GiB"), (float(1 << 20), "MiB"), (1024.0, "KiB"), (1.0, "B")),
    "percentunit": ((0.01, "%"),),
    "ops": ((1e3, "k/s"), (1.0, "/s")),
    "short": ((1e6, "M"), (1e3, "k"), (1.0, "")),
}
_BASE: Final = {of_unit: next((each for each in scales if each[0] == 1.0), scales[-1]) for of_unit, scales in _SCALES.items()}
Series = dict[str, list[tuple[float, float]]]


def shown(value: float, of_unit: str) -> str:
    """A value as a person reads it.

    >>> shown(0.0042, "s"), shown(3 << 20, "bytes"), shown(0.125, "percentunit"), shown(0, "ops")
    ('4.2 ms', '3 MiB', '12.5 %', '0/s')
    """
    size, name = _scale(value, of_unit)
    return f"{value / size:.4g}{'' if name in ('', 'k', 'M', '/s', 'k/s') else ' '}{name}"


def _scale(value: float, of_unit: str) -> tuple[float, str]:
    scales = _SCALES[of_unit]
    fitting = [scale for scale in scales if abs(value) >= scale[0]]
    return fitting[0] if fitting else scales[-1] if value else _BASE[of_unit]


def ask(web: httpx.Client, panel: Panel, end: float, seconds: float, window: str) -> Series:
    """The points of every series of a panel, by legend; of a panel with numbers, the last point."""
    found: Series = {}
    for query, legend in panel.queries:
        text = expression(query).replace("$__rate_interval", window)
        text = re.sub(r"\$(service|store|worker)", ".*", text)
        asked: dict[str, str | float] = {"query": text, "start": end - seconds, "end": end, "step": seconds / _STEPS}
        answer = web.get("/api/v1/query_range", params=asked).raise_for_status().json()
        for row in answer["data"]["result"]:
            labels: dict[str, str] = row["metric"]
            name = _LABEL.sub(lambda match, labels=labels: labels.get(match[1], ""), legend)  # type: ignore[misc]
            points = [(float(at), float(value)) for at, value in row["values"] if math.isfinite(float(value))]
            if panel.stat and (not points or points[-1][0] < end - 2 * seconds / _STEPS):
                # An instant query would not have it.
                continue
            if points:
                found[name] = points
    return found


def _draw(axes: Axes, panel: Panel, series: Series, end: float) -> None:
    of_unit = unit(panel)
    axes.set_title(panel.title, fontsize=9, loc="left", fontweight="bold")
    if panel.stat or not series:
        axes.axis("off")
        lines = [f"{shown(points[-1][1], of_unit)}   {name}" for name, points in sorted(series.items())] or ["no data"]
        size = 13 if len(lines) <= 5 else 9
        for number, line in enumerate(lines[:12]):
            axes.text(0.02, 0.85 - number * (0.16 if size == 13 else 0.08), line, transform=axes.transAxes, fontsize=size)
        return
    largest = max(abs(value) for points in series.values() for _, value in points)
    divisor = _scale(largest, of_unit)[0]
    for name, points in sorted(series.items()):
        minutes, values = [(at - end) / 60 for at, _ in points], [value / divisor for _, value in points]
        axes.plot(minutes, values, linewidth=1.2, label=name.strip() or "(no legend)")
    axes.yaxis.set_major_formatter(lambda value, _: shown(value * divisor, of_unit))
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, linewidth=0.3)
    # Everything here counts from 0, and a line at 0 is seen.
    top = largest / divisor * 1.1 or 1
    axes.set_ylim(-0.02 * top, top)
    axes.set_xlabel("minutes", fontsize=6)
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def draw(board: Board, answers: dict[str, Series], end: float, file: Path) -> None:
    """Draw a dashboard; ``answers`` has the series of each panel by its title."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(board.panels) / _COLUMNS)
    figure = Figure(figsize=(16, 3.1 * rows), layout="constrained")
    figure.suptitle(f"{board.title}: {board.description}", fontsize=11, x=0.01, ha="left")
    grid: Any = figure.subplots(rows, _COLUMNS, squeeze=False)
    places = [axes for row in grid for axes in row]
    for axes, panel in zip(places, board.panels, strict=False):
        _draw(axes, panel, answers[panel.title], end)
    for axes in places[len(board.panels) :]:
        axes.axis("off")
    figure.savefig(file, dpi=70)


def draw_all(url: str, seconds: float, window: str, into: Path) -> list[str]:
    """Draw every dashboard with the last ``seconds`` of the Prometheus at ``url``, and return the panels that have no data.

    Args:
        window: of rates, such as ``1m``: four scrapes.
        into: the folder for the pictures, ``UID.png``.
    """
    into.mkdir(parents=True, exist_ok=True)
    end, empty = time.time(), []
    with httpx.Client(base_url=url, timeout=30) as web:
        for board in BOARDS:
            answers = {panel.title: ask(web, panel, end, seconds, window) for panel in board.panels}
            empty += [f"{board.uid}: {title}" for title, series in answers.items() if not series]
            draw(board, answers, end, into / f"{board.uid}.png")
    return empty


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.observability.pictures", description=__doc__)
    parser.add_argument("url", help="the address of Prometheus")
    parser.add_argument("--minutes", type=float, default=10.0, help="how much of the past is shown")
    parser.add_argument("--window", default="1m", help="of rates: four scrapes, as $__rate_interval in Grafana")
    parser.add_argument("--into", type=Path, default=Path("pictures"), help="the folder for the pictures")
    arguments = parser.parse_args()
    empty = draw_all(arguments.url, arguments.minutes * 60, arguments.window, arguments.into)
    every = sum(len(board.panels) for board in BOARDS)
    print(f"pictures are in {arguments.into}; panels with data: {every - len(empty)} of {every}; without: {empty}")


if __name__ == "__main__":
    main()
