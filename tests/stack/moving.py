"""Whether a panel moves when the fault happens that it is meant for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from examples.observability.panels import BOARDS, Panel
from tests.stack.native import Stack
from tests.stack.panels import instant

# More than half as much again, or at least a third less. What is not there counts as 0.
_MORE, _LESS = 1.5, 0.67
_WINDOW: Final = "10s"
_STEP: Final = 1.0
_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")
PANELS: Final[Mapping[str, Panel]] = {panel.title: panel for board in BOARDS for panel in board.panels}


def moved(stack: Stack, moves: Mapping[str, tuple[str, str]], quiet: float, fault: float, end: float) -> dict[str, bool]:
    """For each title in ``moves``, whether a series with this text in its legend went that way.

    Args:
        moves: the text, and ``rises`` or ``falls``.
        quiet, fault, end: the wall clock when all was well, at the fault, and after it.
    """
    return {title: _moved(stack, PANELS[title], part, way, (quiet, fault, end)) for title, (part, way) in moves.items()}


def _moved(stack: Stack, panel: Panel, part: str, way: str, times: tuple[float, float, float]) -> bool:
    quiet, fault, end = times
    before = dict(_series(stack, panel, part, quiet, fault))
    during = dict(_series(stack, panel, part, fault, end))
    nothing = [0.0]
    for legend in before.keys() | during.keys():
        if changed(way, before.get(legend, nothing), during.get(legend, nothing)):
            return True
    return False


def changed(way: str, earlier: Sequence[float], later: Sequence[float]) -> bool:
    """Whether the values of a series rise well above all that they were, or fall well below what they mostly were."""
    # A scrape that failed while all was well is a 0 among the earlier ones.
    return max(later) > max(earlier) * _MORE if way == "rises" else min(later) < median(earlier) * _LESS


def _series(stack: Stack, panel: Panel, part: str, start: float, end: float) -> Iterator[tuple[str, list[float]]]:
    """The values of the series of a panel whose legend has ``part`` in it, one a second."""
    steps = int((end - start) / _STEP) + 1
    for query, legend in panel.queries:
        for row in stack.query_range(instant(query, _WINDOW), start, start + (steps - 1) * _STEP, _STEP):
            shown = _LABEL.sub(lambda found, labels=row["metric"]: labels.get(found[1], ""), legend)  # type: ignore[misc]
            if part in shown:
                values = [value for value in (float(text) for _, text in row["values"]) if math.isfinite(value)]
                yield f"{query} {shown}", values + [0.0] * (len(values) < steps)
