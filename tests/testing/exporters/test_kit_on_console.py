"""The console exporter passes the contract; what it prints to a stream is read back."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Final

import pytest

from eventcore.exporting.console import ConsoleExporter
from eventcore.testing import ExporterContract, ExporterSetup, Received, ReceivedPoint, ReceivedSpan
from eventcore.testing.exporters.contract import ValueContract

_SCALES: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ROW: Final = re.compile(r"(?P<name>[a-z][a-z0-9_.]*)(?:\{(?P<labels>.*)\})?(?P<columns>(?: {2,}\S+(?: \S+)?)+)")
_SPAN: Final = re.compile(r"\d\d:\d\d:\d\d\.\d{3} {2,}\S+ \S+  (?P<name>.*?)  .*trace [0-9a-f]{32}(?:  error: .*)?")
_FOR_PEOPLE: Final = "the console prints for people"


class ConsoleSetup(ExporterSetup):
    """Reads back what is printed to standard output, which is a file."""

    # The mutants need not wait long for what never comes.
    patience = float(os.environ.get("EVENTCORE_KIT_PATIENCE", "10"))
    cannot: ClassVar = {
        **dict.fromkeys(("units", "descriptions", "start_times", "times", "min_max", "buckets"), _FOR_PEOPLE),
        **dict.fromkeys(("scopes", "exemplars", "resource"), _FOR_PEOPLE),
        "precision": "it prints three or four digits of a fraction",
        **dict.fromkeys(
            ("span_ids", "span_parents", "span_kinds", "span_times", "span_attributes", "span_events", "span_links"),
            _FOR_PEOPLE,
        ),
        "span_statuses": "it prints errors only",
        **dict.fromkeys(("outages", "stalls", "waits"), "a stream of the process is never down"),
    }
    tolerance = 0.006
    quantiles = (0.5, 0.95, 0.99)
    has_rates = True

    def __init__(self, path: Path, use: Callable[[], None]) -> None:
        self.path = path
        self.use = use

    def make(self) -> object:
        # Here and not in the fixture: pytest sets standard output again when a test begins.
        self.use()
        return ConsoleExporter(stream="stdout", rows=100_000)

    def text(self, text: str) -> str:
        return text if text.isprintable() else repr(text)[1:-1]

    def received(self) -> Received:
        points: list[ReceivedPoint] = []
        spans: list[ReceivedSpan] = []
        kind = ""
        for line in self.path.read_text().splitlines():
            if (title := line.split("  ")[0].strip()) in ("counter", "gauge", "histogram"):
                kind = title
            elif (span := _SPAN.fullmatch(line)) is not None:
                spans.append(ReceivedSpan(name=span["name"]))
            elif line:
                points.append(_point(kind, line))
        return Received(points, spans)


def _point(kind: str, line: str) -> ReceivedPoint:
    row = _ROW.fullmatch(line)
    assert row is not None, f"a row that nobody expects: {line!r}"
    labels = dict(pair.split("=", 1) for pair in re.split(r", (?=[a-z][a-z0-9_.]*=)", row["labels"])) if row["labels"] else {}
    first, *others = [column.strip() for column in re.split(r" {2,}", row["columns"]) if column.strip()]
    if kind != "histogram":
        rate = _number(others[0]) if others and others[0] != "-" else None
        return ReceivedPoint(name=row["name"], labels=labels, kind=kind, value=_number(first), rate=rate)
    count = int(first.replace(",", ""))
    total = _number(others[0]) * count if count else 0.0
    quantiles = {q: _number(text) for q, text in zip(ConsoleSetup.quantiles, others[1:], strict=True) if text != "-"}
    return ReceivedPoint(name=row["name"], labels=labels, kind=kind, count=count, sum=total, quantiles=quantiles)


def _number(text: str) -> float:
    number, _, unit = text.replace(",", "").partition(" ")
    if not unit and number.lstrip("-").isdecimal():
        return int(number)
    return float(number) * _SCALES.get(unit, 1.0)


class PlainTerminalSetup(ConsoleSetup):
    """A terminal that has neither colours nor other characters than ASCII, and very long lines."""

    def text(self, text: str) -> str:
        return super().text(text).encode("ascii", "backslashreplace").decode()


class Terminal(io.TextIOWrapper):
    """Writes to a file, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestOnAPlainTerminal(ValueContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsoleSetup]:
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("COLUMNS", "100000")
        with Terminal((tmp_path / "printed").open("wb"), encoding="ascii", newline="\n") as stream:
            yield PlainTerminalSetup(tmp_path / "printed", lambda: monkeypatch.setattr(sys, "stdout", stream))
            monkeypatch.undo()


class TestConsole(ExporterContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsoleSetup]:
        with (tmp_path / "printed").open("w", encoding="utf-8", newline="\n") as stream:
            yield ConsoleSetup(tmp_path / "printed", lambda: monkeypatch.setattr(sys, "stdout", stream))
            monkeypatch.undo()
