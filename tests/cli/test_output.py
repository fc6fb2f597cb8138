"""What the commands print fits the terminal, and no word of it is broken."""

from __future__ import annotations

import io

import pytest

from eventcore.cli.output import Output
from eventcore.errors import Fault


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


TITLES = ["exporter", "state", "what"]
ROWS = [["prometheus", "ok", "the address was free, and http://127.0.0.1:9464/metrics showed the test metric of the check"]]


def terminal_of(monkeypatch: pytest.MonkeyPatch, columns: int) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    return terminal


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_a_long_text_is_broken_between_words(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = terminal_of(monkeypatch, columns)
    Output(as_json=False).table(TITLES, ROWS)
    text = terminal.getvalue()
    assert max(map(len, text.splitlines())) <= columns
    assert text.split() == [*TITLES, *" ".join(ROWS[0]).split()]


def test_a_terminal_that_is_too_narrow_for_columns_shows_a_row_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch, 36)
    Output(as_json=False).table(TITLES, ROWS)
    assert terminal.getvalue().splitlines()[:3] == [
        "exporter  prometheus",
        "state     ok",
        "what      the address was free, and",
    ]


def test_a_fault_is_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch, 40)
    Output(as_json=False).faults([Fault("eventcore.toml", "exporters.prometheus.port", "expected a number from 0 to 65535")])
    assert max(map(len, terminal.getvalue().splitlines())) <= 42
    assert "exporters.prometheus.port" in terminal.getvalue()


def test_a_program_gets_each_row_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", "40")
    Output(as_json=False).table(TITLES, ROWS)
    assert ROWS[0][-1] in stream.getvalue()
