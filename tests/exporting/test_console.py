from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from eventcore.exporting import (
    CounterData,
    GaugeData,
    HistogramData,
    HistogramPoint,
    NumberPoint,
    SpanData,
    TraceContext,
)
from eventcore.exporting.configuration.signature import bind_settings
from eventcore.exporting.console import ConsoleExporter, quantile
from eventcore.exporting.registration import check_exporter

SECOND = 1_000_000_000


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def counter(value: int, at: int, *, start: int = 0, labels: tuple[tuple[str, str], ...] = ()) -> CounterData:
    return CounterData("orders.shipped", "{order}", "", (), (NumberPoint(labels, value, start * SECOND, at * SECOND),))


def span(name: str = "ship", **more: Any) -> SpanData:
    return SpanData(name, "internal", TraceContext(trace_id=255, span_id=1), 0, SECOND, SECOND + 1_500_000, **more)


def printed(exporter: ConsoleExporter, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exporter.flush("metrics")
    exporter.flush("spans")
    return capsys.readouterr().err.splitlines()


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def test_it_is_an_exporter_of_everything_with_settings_of_its_own() -> None:
    handle = check_exporter(ConsoleExporter(interval=2.5))
    assert handle.kinds == ("counters", "gauges", "histograms", "spans")
    assert handle.interval == 2.5
    assert bind_settings(ConsoleExporter, {}) == ({}, [])


def test_a_counter_shows_its_total_and_its_rate_since_the_last_table(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter()
    exporter.export_counters([counter(1000, at=10)])
    assert [cells(line) for line in printed(exporter, capsys)] == [
        ["counter", "total", "per second"],
        ["orders.shipped", "1,000", "100.0"],
        [""],
    ]
    exporter.export_counters([counter(1050, at=20)])
    assert cells(printed(exporter, capsys)[1]) == ["orders.shipped", "1,050", "5.0"]
    exporter.export_counters([counter(30, at=30, start=25)])
    assert cells(printed(exporter, capsys)[1]) == ["orders.shipped", "30", "6.0"]


def test_gauges_and_histograms_show_their_values_in_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter()
    exporter.export_gauges([GaugeData("disk.free", "By", "", (), (NumberPoint((("disk", "sda"),), 2048, 0, 1),))])
    point = HistogramPoint((), count=4, sum=0.008, min=0.001, max=0.004, buckets=(2, 2, 0), start_time_ns=0, time_ns=1)
    empty = HistogramPoint((("a", "b"),), count=0, sum=0.0, min=None, max=None, buckets=(0, 0, 0), start_time_ns=0, time_ns=1)
    exporter.export_histograms([HistogramData("wait", "s", "", (), (0.002, 0.004), (point, empty))])
    assert [cells(line) for line in printed(exporter, capsys)] == [
        ["gauge", "value"],
        ["disk.free{disk=sda}", "2,048 By"],
        [""],
        ["histogram", "count", "mean", "p50", "p95", "p99"],
        ["wait", "4", "2 ms", "2 ms", "3.8 ms", "3.96 ms"],
        ["wait{a=b}", "0", "-", "-", "-", "-"],
        [""],
    ]


def test_a_span_is_one_line_with_its_duration_and_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter()
    exporter.export_spans([span(attributes=(("country", "FR"),)), span("fail", status="error", status_description="gone")])
    first, second = printed(exporter, capsys)
    assert cells(first)[1:] == ["1.5 ms", "ship", "country=FR", f"trace {255:032x}"]
    assert second.endswith("error: gone")


def test_what_is_too_much_for_one_screen_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter(rows=2)
    exporter.export_spans([span() for _ in range(7)])
    exporter.export_counters([counter(1, at=1, labels=(("n", str(n)),)) for n in range(5)])
    lines = printed(exporter, capsys)
    assert "... and 3 more series" in lines
    assert lines[-1] == "... and 5 more spans"
    assert sum("orders.shipped" in line for line in lines) == 2


def test_metrics_or_spans_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ConsoleExporter(metrics=False, spans=False)
    quiet.export_counters([counter(1, at=1)])
    quiet.export_spans([span()])
    assert printed(quiet, capsys) == []


def test_it_prints_where_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter(stream="stdout")
    exporter.export_counters([counter(1, at=1)])
    exporter.flush("metrics")
    captured = capsys.readouterr()
    assert "orders.shipped" in captured.out
    assert captured.err == ""


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        exporter = ConsoleExporter()
        exporter.export_counters([counter(1, at=1)])
        exporter.flush("metrics")
        return terminal.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[1mcounter" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown()


def test_what_a_terminal_would_obey_is_not_sent_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter()
    exporter.export_counters([counter(1, at=1, labels=(("country", "\x1b[2Jé"),))])
    line = printed(exporter, capsys)[1]
    assert "orders.shipped{country=\\x1b[2Jé}" in line


def test_a_stream_that_cannot_write_a_character_gets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    exporter = ConsoleExporter()
    exporter.export_counters([counter(1, at=1, labels=(("country", "é"),))])
    exporter.flush("metrics")
    assert b"country=\\xe9" in raw.getvalue()


def test_a_cycle_that_could_not_be_printed_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(Terminal):
        def write(self, text: str) -> int:
            raise OSError("no space left")

    exporter = ConsoleExporter()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        exporter.export_counters([counter(10, at=10)])
        with pytest.raises(OSError, match="no space"):
            exporter.flush("metrics")
    exporter.export_counters([counter(10, at=10)])
    assert [cells(line) for line in printed(exporter, capsys)][1:] == [["orders.shipped", "10", "1.0"], [""]]


@pytest.mark.parametrize(("q", "expected"), [(0.0, 1.0), (0.5, 2.0), (0.75, 3.5), (1.0, 5.0)])
def test_quantiles_lie_evenly_in_their_bucket_and_within_what_was_seen(q: float, expected: float) -> None:
    point = HistogramPoint((), count=4, sum=0.0, min=1.0, max=5.0, buckets=(2, 0, 2), start_time_ns=0, time_ns=1)
    assert quantile(point, (2.0, 2.0), q) == expected


def test_spans_are_indented_below_their_parents_which_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    def one(name: str, own: int, parent: int, began: int) -> SpanData:
        return SpanData(name, "internal", TraceContext(trace_id=255, span_id=own), parent, began, began + 1000)

    exporter = ConsoleExporter()
    # As they end: children before their parents. The parent of the last one is in another process.
    exporter.export_spans(
        [one("read", 3, 2, 3), one("append", 4, 2, 4), one("execute", 2, 1, 2), one("request", 1, 0, 1), one("other", 9, 77, 5)]
    )
    lines = printed(exporter, capsys)
    found = [re.sub(r"^\S+ +\S+ \S+ {2}", "", line) for line in lines]
    assert [(len(line) - len(line.lstrip()), cells(line)[0]) for line in found] == [
        (0, "request"),
        (2, "execute"),
        (4, "read"),
        (4, "append"),
        (0, "other"),
    ]
    assert [f"trace {255:032x}" in line for line in lines] == [True, False, False, False, True]


def test_ids_in_a_circle_lose_no_span(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter()
    for own, parent in ((1, 2), (2, 1)):
        exporter.export_spans([SpanData(f"span {own}", "internal", TraceContext(255, own), parent, 1, 2)])
    assert len(printed(exporter, capsys)) == 2


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal_and_break_no_word(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    labels = (("store", "default"), ("operation", "commit_checkpoint"), ("db.system.name", "postgresql"), ("outcome", "error"))
    point = HistogramPoint(labels, count=123_456_789, sum=1.0, min=0.001, max=0.5, buckets=(1, 2), start_time_ns=0, time_ns=1)
    exporter = ConsoleExporter()
    exporter.export_histograms([HistogramData("eventcore.store.operation.duration", "s", "", (), (0.01,), (point,))])
    exporter.flush("metrics")
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    words = set(re.split(r"[\s,{}]+", terminal.getvalue()))
    assert {"eventcore.store.operation.duration", "operation=commit_checkpoint", "db.system.name=postgresql"} <= words
    assert lines[1].split()[-5] == "123,456,789" or lines[1].split()[1] == "123,456,789"
