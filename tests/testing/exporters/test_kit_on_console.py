"""The console exporter passes the contract; what it prints to a stream is read back."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import pytest

from eventcore.exporting.console import ConsoleExporter
from eventcore.testing import ExporterContract, ExporterSetup, Received, ReceivedPoint, ReceivedSpan
from eventcore.testing.exporters.contract import ValueContract

_SCALES: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ROW: Final = re.compile(r"(?P<name>[a-z][a-z0-9_.]*)(?:\{(?P<labels>.*)\})?(?P<columns>(?: {2,}\S+(?: \S+)?)+)")
_SPAN: Final = re.compile(r"\d\d:\d\d:\d\d\.\d{3} {2,}\S+ \S+  (?:  )*(?P<name>\S.*?)  .*")
_COLUMNS: Final = {"counter": 2, "gauge": 1, "histogram": 5}
WIDTH: Final = 40
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
        "span_states": _FOR_PEOPLE,
        **dict.fromkeys(("outages", "stalls", "waits"), "a stream of the process is never down"),
        **dict.fromkeys(("rejections", "refusals", "cuts"), "a stream of the process takes everything"),
        **dict.fromkeys(("rotations", "lost_secrets"), "the console has no secrets"),
    }
    tolerance = 0.006
    quantiles = (0.5, 0.95, 0.99)
    has_rates = True
    label_pattern = r", (?=[a-z][a-z0-9_.]*=)"

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
        for line in self.lines():
            if (title := line.split("  ")[0].strip()) in ("counter", "gauge", "histogram"):
                kind = title
            elif (span := _SPAN.fullmatch(line)) is not None:
                spans.append(ReceivedSpan(name=span["name"]))
            elif line:
                points.append(self.point(kind, line))
        return Received(points, spans)

    def lines(self) -> Iterator[str]:
        return iter(self.path.read_text().splitlines())

    def point(self, kind: str, line: str) -> ReceivedPoint:
        row = _ROW.fullmatch(line)
        assert row is not None, f"a row that nobody expects: {line!r}"
        labels = dict(pair.split("=", 1) for pair in re.split(self.label_pattern, row["labels"])) if row["labels"] else {}
        first, *others = [column.strip() for column in re.split(r" {2,}", row["columns"]) if column.strip()]
        if kind != "histogram":
            rate = _number(others[0]) if others and others[0] != "-" else None
            return ReceivedPoint(name=row["name"], labels=labels, kind=kind, value=_number(first), rate=rate)
        count = int(first.replace(",", ""))
        total = _number(others[0]) * count if count else 0.0
        quantiles = {q: _number(text) for q, text in zip(self.quantiles, others[1:], strict=True) if text != "-"}
        return ReceivedPoint(name=row["name"], labels=labels, kind=kind, count=count, sum=total, quantiles=quantiles)


def _number(text: str) -> float:
    number, _, unit = text.replace(",", "").partition(" ")
    if not unit and number.lstrip("-").isdecimal():
        return int(number)
    return float(number) * _SCALES.get(unit, 1.0)


class PlainTerminalSetup(ConsoleSetup):
    """A narrow terminal that has neither colours nor other characters than ASCII: long names go on in the lines below."""

    label_pattern = r", ?(?=[a-z][a-z0-9_.]+=)"

    def text(self, text: str) -> str:
        # Lines are broken at spaces, too.
        return super().text(text).replace(" ", "").encode("ascii", "backslashreplace").decode()

    def received(self) -> Received:
        received = super().received()
        return Received(received.points, [ReceivedSpan(name=span.name.replace(" ", "")) for span in received.spans])

    def lines(self) -> Iterator[str]:
        rows: list[tuple[str, str]] = []
        columns = 0
        for line in super().lines():
            title = line.split("  ")[0].strip()
            columns = _COLUMNS.get(title, columns)
            if line.startswith("  "):
                self.check_width(line)
                rows[-1] = rows[-1][0] + line.strip(), rows[-1][1]
            elif title not in _COLUMNS and (row := re.fullmatch(rf"(.*?)((?: {{2,}}\S+(?: \S+)?){{{columns}}})", line)):
                self.check_width(row[1].rstrip())
                rows.append((row[1].rstrip(), row[2]))
            else:
                rows.append((line, ""))
        return (name + numbers for name, numbers in rows)

    def point(self, kind: str, line: str) -> ReceivedPoint:
        point = super().point(kind, line)
        return msgspec.structs.replace(point, labels={name: text.replace(" ", "") for name, text in point.labels.items()})

    @staticmethod
    def check_width(line: str) -> None:
        assert len(line) <= WIDTH or re.fullmatch(r"[^{,.]*[{,.]?", line.strip()), f"a line that could be broken: {line!r}"


class Terminal(io.TextIOWrapper):
    """Writes to a file, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestOnAPlainTerminal(ValueContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsoleSetup]:
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("COLUMNS", f"{WIDTH}")
        with Terminal((tmp_path / "printed").open("wb"), encoding="ascii", newline="\n") as stream:
            yield PlainTerminalSetup(tmp_path / "printed", lambda: monkeypatch.setattr(sys, "stdout", stream))
            monkeypatch.undo()


class TestConsole(ExporterContract):
    @pytest.fixture
    def exporter_setup(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsoleSetup]:
        with (tmp_path / "printed").open("w", encoding="utf-8", newline="\n") as stream:
            yield ConsoleSetup(tmp_path / "printed", lambda: monkeypatch.setattr(sys, "stdout", stream))
            monkeypatch.undo()
