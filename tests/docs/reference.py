"""``python -m tests.docs.reference`` writes the reference of ``docs/exporters.md``; a test fails while code and page differ."""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any, Final

import msgspec

from eventcore.exporting import (
    CounterData,
    Exemplar,
    Exporter,
    ExporterContext,
    ExporterHooks,
    GaugeData,
    GiveUp,
    HistogramData,
    HistogramPoint,
    NumberPoint,
    Rejected,
    Resource,
    RetryLater,
    Scope,
    SpanData,
    SpanEvent,
    SpanLink,
    TraceContext,
)
from eventcore.testing import LIMITS, ExporterSetup

PAGE: Final = Path(__file__).parents[2] / "docs" / "exporters.md"
BEGIN: Final = "<!-- The reference is generated: python -m tests.docs.reference -->"
END: Final = "<!-- end of the reference -->"

METRICS: Final = (CounterData, GaugeData, HistogramData, NumberPoint, HistogramPoint, Exemplar)
SPANS: Final = (SpanData, SpanEvent, SpanLink, TraceContext)
OTHERS: Final = (Scope, Resource, Rejected)
_ENTRY: Final = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")


def hooks() -> dict[str, Any]:
    """The hooks by name, in the order of the specification."""
    return {name: member for name, member in vars(ExporterHooks).items() if inspect.isfunction(member)}


def meanings(documented: Any, title: str = "Attributes") -> dict[str, str]:
    """What a docstring says of each attribute or argument."""
    found: dict[str, str] = {}
    _, _, section = (inspect.getdoc(documented) or "").partition(f"\n{title}:\n")
    names: list[str] = []
    for line in section.splitlines():
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith("        "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return found


def meanings_of_fields(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The meaning of each field of a struct, by its own docstring or that of a base."""
    found: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        found |= meanings(cls)
    return {field.name: found.get(field.name, "") for field in msgspec.structs.fields(struct)}


def _summary(documented: Any) -> str:
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


def _code(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _type(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(annotation)).replace("NoneType", "None")


def _fields(struct: type[msgspec.Struct]) -> list[str]:
    types = typing.get_type_hints(struct)
    lines = [f"**`{struct.__name__}`**: {_code(_summary(struct))}", "", "| field | type | meaning |", "| --- | --- | --- |"]
    for name, meaning in meanings_of_fields(struct).items():
        kind = _type(types[name])
        shown = {"tuple[tuple[str, str], ...]": "Labels"}.get(kind, "Attributes" if "tuple[bool, ...]" in kind else kind)
        lines.append(f"| `{name}` | `{shown.replace('|', chr(92) + '|')}` | {_code(meaning)} |")
    return [*lines, ""]


def _named(title: str, entries: dict[str, str]) -> list[str]:
    rows = [f"| `{name}` | {_code(meaning)} |" for name, meaning in entries.items()]
    return [title, "", "| name | meaning |", "| --- | --- |", *rows, ""]


def _methods(cls: type) -> dict[str, str]:
    return {
        f"{name}({', '.join(list(inspect.signature(member).parameters)[1:])})": _summary(member)
        for name, member in vars(cls).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def reference() -> str:
    """The generated part of the page, markers included."""
    lines = [BEGIN, "", "### Hooks by name", "", "| hook | what it is for |", "| --- | --- |"]
    for name, hook in hooks().items():
        arguments = ", ".join(list(inspect.signature(hook).parameters)[1:])
        body = " ".join((inspect.getdoc(hook) or "").partition("\nArgs:")[0].split())
        lines.append(f"| `{name}({arguments})` | {_code(body)} |")
    lines += ["", "### Metrics", "", *(line for struct in METRICS for line in _fields(struct))]
    lines += ["### Spans", "", *(line for struct in SPANS for line in _fields(struct))]
    lines += ["### Other values", "", *(line for struct in OTHERS for line in _fields(struct))]
    lines += ["### What a hook may raise", ""]
    for error in (RetryLater, GiveUp):
        lines += _named(f"**`{error.__name__}`**: {_code(_summary(error))}", meanings(error, "Args"))
    lines += ["### The context of `start`", ""]
    lines += _named(_code(_summary(ExporterContext)), meanings(ExporterContext) | _methods(ExporterContext))
    lines += ["### Attributes of an exporter", "", *_named("A class may set them; `__init__` may, too.", meanings(Exporter))]
    lines += ["### The setup of the contract", ""]
    lines += _named(_code(_summary(ExporterSetup)), meanings(ExporterSetup) | _methods(ExporterSetup))
    lines += _named("What `cannot` may declare, each with a reason of yours:", dict(LIMITS))
    return "\n".join([*lines, END])


def with_reference(page: str) -> str:
    """The page with a new reference."""
    before, _, rest = page.partition(BEGIN)
    return before + reference() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text()))
