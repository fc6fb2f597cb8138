"""Writes the conformance table of ``docs/opentelemetry.md``: ``python -m tests.otel.conformance``.

A test that shows a clause of a specification carries the mark ``conforms("part", "clause")``; several tests may show one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "opentelemetry.md"
BEGIN: Final = "<!-- generated from the tests by python -m tests.otel.conformance -->\n"
END: Final = "<!-- end of what is generated -->\n"
SOURCES: Final = ("tests/otel", "tests/end_to_end", "tests/pipeline", "tests/exporting")

NOT_MET: Final = (
    ("Variables", "A list in `OTEL_TRACES_EXPORTER` names several exporters.", "the first is used, with a warning"),
    ("Variables", "`OTEL_METRICS_EXEMPLAR_FILTER=always_on`.", "exemplars come from sampled spans only; a warning says so"),
    ("Variables", "A declarative configuration file.", "`eventcore.toml` configures eventcore; a warning says so"),
    ("Metrics", "Exponential histograms.", "histograms have explicit buckets; a warning says so"),
    ("OTLP", "Several requests at once, for more throughput.", "one exporter has one request in flight"),
    ("OTLP", "JSON over HTTP.", "OTLP is sent over gRPC, or as protobuf over HTTP by the SDK's exporter"),
    ("Traces", "Spans of eventcore in the application's own `TracerProvider`.", "they are exported by eventcore's pipelines"),
)
"""Clauses that are not met: part, clause, and what happens instead."""


class Shown(NamedTuple):
    """A clause and a test that shows it."""

    part: str
    clause: str
    test: str


def shown() -> list[Shown]:
    """Every clause that a test shows, by part and clause."""
    found = [each for source in SOURCES for path in sorted((ROOT / source).glob("test_*.py")) for each in _marks(path)]
    return sorted(found)


def generated() -> str:
    """The table."""
    rows: dict[tuple[str, str], list[str]] = {}
    for part, clause, test in shown():
        rows.setdefault((part, clause), []).append(f"`{test}`")
    lines = [f"| {part} | {clause} | {', '.join(tests)} |" for (part, clause), tests in rows.items()]
    lines += [f"| {part} | {clause} | **not met**: {instead} |" for part, clause, instead in NOT_MET]
    return "\n".join(["| part | clause | shown by |", "| --- | --- | --- |", *sorted(lines), ""])


def page(text: str) -> str:
    """The text of the page with what is between the markers generated anew."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page does not have the two markers {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{generated()}\n{END}{after}"


def _marks(path: Path) -> Iterator[Shown]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("mark.conforms"):
                    part, clause = (ast.literal_eval(argument) for argument in mark.args)
                    yield Shown(part, clause, node.name)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
