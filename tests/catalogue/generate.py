"""Writes the tables of ``docs/telemetry.md`` from the catalogue: ``python -m tests.catalogue.generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from eventcore.catalogue import CATALOGUE
from eventcore.catalogue.declaring import Metric
from eventcore.recording import Label

PAGE: Final = Path(__file__).parents[2] / "docs" / "telemetry.md"
BEGIN: Final = "<!-- generated from the catalogue by python -m tests.catalogue.generate -->\n"
END: Final = "<!-- end of what is generated -->\n"


def generated() -> str:
    """The tables of metrics and of labels."""
    return "\n".join([*_metrics(), "", *_labels(), ""])


def page(text: str) -> str:
    """The text of the page with what is between the markers generated anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"the page does not have the two markers {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{generated()}\n{END}{after}"


def _metrics() -> list[str]:
    rows = [
        f"| `eventcore.{metric.name}` | {metric.kind.replace('up_down', 'up-down').replace('_', ' ')} | `{metric.unit}` "
        f"| {', '.join(f'`{label}`' for label in metric.labels) or '–'} | {metric.description} |"
        for metric in CATALOGUE.values()
    ]
    return ["| metric | kind | unit | labels | meaning |", "| --- | --- | --- | --- | --- |", *rows]


def _labels() -> list[str]:
    used: dict[tuple[str, tuple[str, ...], bool], list[Metric[Any]]] = {}
    for metric in CATALOGUE.values():
        for label in metric.labels:
            used.setdefault((label, label.values, label.open), []).append(metric)
    rows = [
        f"| `{name}` | {_values(Label(name, values, open=is_open))} | {_some(metrics)} |"
        for (name, values, is_open), metrics in used.items()
    ]
    return ["| label | values | of |", "| --- | --- | --- |", *rows]


def _values(label: Label) -> str:
    if label.open:
        return "open: from the application"
    return ", ".join(f"`{value}`" if value else "empty" for value in label.values) or "one a store or a database"


def _some(metrics: list[Metric[Any]]) -> str:
    names = [f"`{metric.name}`" for metric in metrics]
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
