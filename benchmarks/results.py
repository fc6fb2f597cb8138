"""Results: tables with targets and verdicts, as text and as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Row", "Table", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a figure: at most, or at least, ``bound``. ``of`` names the figure."""

    of: str
    figure: float
    bound: float
    at_most: bool = True

    @property
    def reached(self) -> bool:
        """Whether the figure keeps to the bound."""
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound

    @property
    def verdict(self) -> str:
        """``reached``, or by how much the figure misses the bound, as a share of it."""
        if self.reached:
            return "reached"
        return f"missed by {abs(self.figure - self.bound) / self.bound:.1%}"

    def __str__(self) -> str:
        return f"{self.of} {self.figure:.3g} (target {'≤' if self.at_most else '≥'} {self.bound:g}): {self.verdict}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its name, its cells as text, their values, and its targets."""

    name: str
    cells: tuple[str, ...]
    values: dict[str, float] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """One comparison, with notes on how it was measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The table as text."""
        lines = [("", *self.columns), *((row.name, *row.cells) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        out = [self.title, "=" * len(self.title)]
        for number, line in enumerate(lines):
            out.append(_aligned(line, widths))
            if number == 0:
                out.append("  ".join("-" * width for width in widths))
        targets = [f"  {row.name}: {target}" for row in self.rows for target in row.targets]
        if targets:
            out += ["", "Targets", *targets]
        if self.notes:
            out += ["", *(textwrap.fill(note, 118, initial_indent="  ", subsequent_indent="    ") for note in self.notes)]
        return "\n".join(out)

    def plain(self) -> dict[str, Any]:
        """The table as plain data, for JSON."""
        return {
            "title": self.title,
            "rows": [
                {
                    "name": row.name,
                    "values": row.values,
                    "targets": [{**asdict(target), "reached": target.reached} for target in row.targets],
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
        }


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    name, *cells = line
    aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
    return "  ".join((name.ljust(widths[0]), *aligned)).rstrip()
