"""The short form of the day, and that its comparison finds what does not add up."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.day.__main__ import run, weather
from tests.day.collector import STATES
from tests.day.ledger import compare

A, B, C = b"a", b"b", b"c"


def end(said: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The account of a process that recorded three spans: two were exported and one dropped."""
    account = {"recorded": 3, "exported": 2, "dropped": {"gave_up": 1}, "unknown": 0, "pending": 0} | (said or {})
    line = {"event": "end", "pid": 1, "instance": "i", "recorded": 3, "timeout": 3.0, "took": 1.0, "delivered": True}
    return line | {"said": account} | changes


def deviations(*lines: dict[str, Any], taken: Counter[bytes] | None = None, total: int = 3) -> list[str]:
    begin = {"event": "begin", "pid": 1, "instance": "i"}
    arrived = Counter({A: 1, B: 2}) if taken is None else taken
    rows, problems = compare([begin, *lines], {"i": arrived}, {"i": total})
    return problems + [deviation for row in rows for deviation in row.deviations]


def test_an_account_that_adds_up_has_no_deviation() -> None:
    assert deviations(end()) == []
    assert deviations(end({"exported": 1, "unknown": 1})) == []
    # What was killed owes no account.
    assert deviations({"event": "killed", "pid": 9, "child": 1}) == []


@pytest.mark.parametrize(
    ("line", "taken", "total", "expected"),
    [
        (end(), Counter({A: 1}), 3, "1 spans arrived, but it says 2 exported"),
        (end(), Counter({A: 1, B: 1, C: 1}), 3, "3 spans arrived, but it says 2 exported"),
        (end(), Counter({A: 1, B: 3}), 3, "a span arrived 3 times"),
        (end({"exported": 1}), Counter({A: 1}), 3, "recorded is not exported + dropped + unknown"),
        (end({"exported": 1, "pending": 1}), Counter({A: 1}), 3, "recorded is not exported + dropped + unknown"),
        (end(recorded=4), None, 3, "it recorded 4 spans, and says 3"),
        (end(), None, 2, "its counter is 3, and the collector has 2"),
        (end(delivered=False), None, 4, "its counter is 3, and the collector has 4"),
        (end({"dropped": {"shutdown": 1}}), None, 3, "it says that all is delivered"),
        (end(took=9.0), None, 3, "its shutdown(3) took 9.0 s"),
        (end(instance="j"), None, 3, "its instance id has changed"),
        ({"event": "reaped", "pid": 9, "child": 1, "code": 1}, None, 3, "ended with code 1"),
    ],
)
def test_the_comparison_finds(line: dict[str, Any], taken: Counter[bytes] | None, total: int, expected: str) -> None:
    assert expected in " ".join(deviations(line, taken=taken, total=total))


def test_the_comparison_finds_a_process_without_an_account_and_spans_of_nobody() -> None:
    assert deviations() == ["was not killed, and wrote no account"]
    begin = {"event": "begin", "pid": 1, "instance": "i"}
    _, problems = compare([begin, end()], {"i": Counter({A: 1, B: 1}), "j": Counter({A: 1})}, {"i": 3})
    assert problems == [
        "spans or metrics of instances that no process has: j",
        "1 spans arrived from more than one process",
    ]


def test_every_state_comes_in_every_half_minute() -> None:
    day = list(weather(60, random.Random(1)))
    assert Counter(state for state, _ in day) == dict.fromkeys(STATES, 2)


@pytest.mark.once
@pytest.mark.timing
@pytest.mark.timeout(180)
def test_the_accounts_of_a_short_day_add_up(tmp_path: Path) -> None:
    day = run(12.0, 5, tmp_path)
    assert (tmp_path / "errors.log").stat().st_size < 1_000_000
    assert {row.pid: row.deviations for row in day.rows if row.deviations} == {}
    assert day.problems == []
    assert sum(row.fate == "ended" for row in day.rows) > 3
    assert any(row.fate == "killed" for row in day.rows)
