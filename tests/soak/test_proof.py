"""Each proof accepts rows and logs that are right, and finds every single thing that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from tests.soak.logs import Acknowledged, Begun, Failed
from tests.soak.proof import (
    CHAIN,
    Failover,
    Findings,
    Row,
    digest,
    prove_commands,
    prove_log,
    prove_outside,
    prove_redacted,
    prove_seen,
    prove_tally,
)


def row(position: int, stream: str, version: int, command: str, number: int = 0, of: int = 1, **seen: int) -> Row:
    return Row(position, stream, version, f"{position:032x}", "soak.Noted", command, number, of, seen, 7)


A1, A2 = digest(0, f"{1:032x}"), digest(digest(0, f"{1:032x}"), f"{2:032x}")
ROWS = [
    row(1, "a", 1, "one", 0, 2, a=0, b=0),
    row(2, "a", 2, "one", 1, 2, a=0, b=0),
    row(3, "b", 1, "two", a=A2, b=0),
]
BEGUN = {name: Begun(name, "Note") for name in ("one", "two", "three")}
ENDED: dict[str, Acknowledged | Failed] = {
    "one": Acknowledged("one", [(1, f"{1:032x}", "a", 1), (2, f"{2:032x}", "a", 2)], 1, 10.0),
    "two": Failed("two", "StoreUnavailable", uncertain=True),
    "three": Failed("three", "ConcurrencyConflict", uncertain=False),
}
SEEN = [(row.position, row.event_id) for row in ROWS]

Prove = Callable[[Findings], None]


def changed(at: int, **fields: object) -> list[Row]:
    return [msgspec.structs.replace(row, **fields) if row.position == at else row for row in ROWS]


def log(rows: Sequence[Row]) -> Prove:
    return lambda findings: prove_log(rows, findings)


def commands(rows: Sequence[Row], failover: Failover | None = None, **ended: Acknowledged | Failed) -> Prove:
    return lambda findings: prove_commands(rows, BEGUN, ENDED | ended, findings, failover)


def seen(found: Sequence[tuple[int, str]], failover: Failover | None = None) -> Prove:
    return lambda findings: prove_seen("reader", found, ROWS, findings, failover)


def outside(found: Sequence[tuple[int, str]]) -> Prove:
    return lambda findings: prove_outside(found, ROWS, findings)


def tally(**table: tuple[int, int, int]) -> Prove:
    return lambda findings: prove_tally("tally", table, ROWS, findings)


def redacted(at: float, rows: Sequence[Row] = ROWS, failover: Failover | None = None) -> Prove:
    return lambda findings: prove_redacted({rows[0].event_id: at}, rows, findings, failover)


FAILOVER = Failover(fork=3, at=11.0, behind=8.0)
LOST = Acknowledged("three", [(4, f"{9:032x}", "b", 2)], 1, 10.0)


@pytest.mark.parametrize(
    "prove",
    [
        log(ROWS),
        commands(ROWS),
        commands(ROWS, FAILOVER, three=LOST),
        seen(SEEN),
        seen([*SEEN, (4, f"{9:032x}")], FAILOVER),
        redacted(9.0),
        redacted(9.0, changed(1, text=1000), FAILOVER),
        outside([*SEEN[:2], *SEEN]),
        tally(a=(2, 14, 1 * 31 + 2), b=(1, 7, 3 % CHAIN)),
    ],
)
def test_right_rows_and_logs_have_no_violation(prove: Prove) -> None:
    findings = Findings()
    prove(findings)
    assert findings.violations == []


@pytest.mark.parametrize(
    ("prove", "violation"),
    [
        pytest.param(log([*ROWS[:1], *ROWS[2:]]), "position 3 is stored where 2 belongs", id="gap in positions"),
        pytest.param(log(changed(2, version=3)), "a has version 3 after 1", id="gap in versions"),
        pytest.param(log(changed(3, event_id=f"{1:032x}")), "is stored twice", id="same event twice"),
        pytest.param(log(changed(3, seen={"a": A1})), "decided on a state of a other", id="decision on an older state"),
        pytest.param(commands(ROWS[:1]), "one: 1 of 2 events are stored", id="half a command"),
        pytest.param(commands(changed(3, command="four")), "four: its events are stored, and no process", id="unknown command"),
        pytest.param(commands(ROWS[2:]), "one: acknowledged as", id="acknowledged and lost"),
        pytest.param(commands(changed(1, event_id="f" * 32)), "one: acknowledged as", id="acknowledged as another event"),
        pytest.param(commands(ROWS, two=Failed("two", "Conflict", uncertain=False)), "two: refused", id="refused and stored"),
        pytest.param(
            commands(ROWS, Failover(fork=3, at=9.0, behind=8.0), three=LOST),
            "three: acknowledged",
            id="lost after the failover",
        ),
        pytest.param(
            commands(ROWS, Failover(fork=4, at=11.0, behind=8.0), three=LOST), "three: acknowledged", id="lost before the fork"
        ),
        pytest.param(redacted(9.0, changed(1, text=1000)), "was redacted, and has a text of 1000", id="redacted in vain"),
        pytest.param(redacted(7.0, changed(1, text=1000), FAILOVER), "was redacted", id="redacted before the standby lagged"),
        pytest.param(redacted(12.0, changed(1, text=1000), FAILOVER), "was redacted", id="redacted after the failover"),
        pytest.param(seen(SEEN[1:]), "saw position 2 where 1 belongs", id="a reader that missed one"),
        pytest.param(seen([SEEN[0], *SEEN]), "saw position 1 where 2 belongs", id="a reader that saw one twice"),
        pytest.param(seen(SEEN[:2]), "has seen 2 of 3", id="a reader that did not get to the end"),
        pytest.param(seen([(1, "f" * 32), *SEEN[1:]]), "another event is stored", id="a reader that saw what is not there"),
        pytest.param(outside([SEEN[0], SEEN[2]]), "applied position 3 after 1", id="a projection that missed one"),
        pytest.param(outside(SEEN[:2]), "has applied 2 of 3", id="a projection that did not get to the end"),
        pytest.param(outside([(1, "f" * 32)]), "another event is stored", id="a projection that applied what is not there"),
        pytest.param(tally(a=(3, 21, 33), b=(1, 7, 3)), "tally: a is (3, 21, 33)", id="an event that was counted twice"),
        pytest.param(tally(a=(2, 14, 33)), "tally: b is None", id="a stream that was not counted"),
        pytest.param(tally(a=(2, 14, 63), b=(1, 7, 3)), "tally: a is (2, 14, 63)", id="events in another order"),
    ],
)
def test_each_wrong_thing_is_a_violation(prove: Prove, violation: str) -> None:
    findings = Findings()
    prove(findings)
    assert [found for found in findings.violations if violation in found], findings.violations
