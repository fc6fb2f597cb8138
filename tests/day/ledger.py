"""Compares what every process says of its spans with what the collector took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

# What may come on top of the timeout of a shutdown, in seconds: the processes share two cores with all others.
NOISE: Final = 2.0


class Row(msgspec.Struct):
    """One process.

    Attributes:
        pid: its number.
        instance: its instance id; empty when it was killed before it could write it.
        fate: ``ended`` or ``killed``.
        end: what it wrote at its end; ``None`` when it was killed.
        arrived: how many different spans of it the collector has.
        copies: how often a span of it arrived at most.
        total: the highest total of its counter that the collector has.
        deviations: what does not add up.
    """

    pid: int
    instance: str = ""
    fate: str = "ended"
    end: dict[str, Any] | None = None
    arrived: int = 0
    copies: int = 0
    total: int = 0
    deviations: list[str] = []


def compare(
    lines: Iterable[Mapping[str, Any]], taken: Mapping[str, Counter[bytes]], totals: Mapping[str, int]
) -> tuple[list[Row], list[str]]:
    """One row for each process, and what does not add up of all together.

    Args:
        lines: what the processes wrote.
        taken: how often each span arrived, by instance.
        totals: the highest total of the counter, by instance.
    """
    rows = _rows(lines)
    for row in rows:
        spans = taken.get(row.instance, Counter[bytes]())
        row.arrived, row.copies, row.total = len(spans), max(spans.values(), default=0), totals.get(row.instance, 0)
        row.deviations += _deviations(row)
    problems: list[str] = []
    known = {row.instance for row in rows}
    strangers = [instance for instance in {*taken, *totals} if instance not in known]
    if len(strangers) > sum(not row.instance for row in rows):
        problems.append(f"spans or metrics of instances that no process has: {', '.join(sorted(strangers))}")
    senders: defaultdict[bytes, int] = defaultdict(int)
    for spans in taken.values():
        for span in spans:
            senders[span] += 1
    if shared := sum(count > 1 for count in senders.values()):
        problems.append(f"{shared} spans arrived from more than one process")
    if len(instances := [row.instance for row in rows if row.instance]) > len(set(instances)):
        problems.append("two processes have the same instance id")
    return rows, problems


def _rows(lines: Iterable[Mapping[str, Any]]) -> list[Row]:
    rows: dict[int, Row] = {}

    def row(pid: int) -> Row:
        return rows.setdefault(pid, Row(pid))

    for line in lines:
        match line["event"]:
            case "begin":
                row(line["pid"]).instance = line["instance"]
            case "end":
                row(line["pid"]).end = dict(line)
            case "killed":
                row(line["child"]).fate = "killed"
            case _:
                found = row(line["child"])
                if found.fate != "killed" and line["code"]:
                    found.deviations.append(f"ended with code {line['code']}")
    return list(rows.values())


def _deviations(row: Row) -> Iterable[str]:
    if row.copies > 2:
        yield f"a span arrived {row.copies} times"
    if row.fate == "killed":
        return
    if row.end is None:
        yield "was not killed, and wrote no account"
        return
    end, said = row.end, row.end["said"]
    dropped, unknown = sum(said["dropped"].values()), said["unknown"]
    if end["instance"] != row.instance:
        yield "its instance id has changed"
    if said["recorded"] != end["recorded"]:
        yield f"it recorded {end['recorded']} spans, and says {said['recorded']}"
    if said["recorded"] != said["exported"] + dropped + unknown or said["pending"]:
        yield "recorded is not exported + dropped + unknown after the shutdown"
    if not said["exported"] <= row.arrived <= said["exported"] + unknown:
        yield f"{row.arrived} spans arrived, but it says {said['exported']} exported and {unknown} unknown"
    if row.total > end["recorded"] or (end["delivered"] and row.total != end["recorded"]):
        yield f"its counter is {end['recorded']}, and the collector has {row.total}"
    if end["delivered"] and "shutdown" in said["dropped"]:
        yield f"it says that all is delivered, and dropped {said['dropped']['shutdown']} spans at its shutdown"
    if end["took"] > end["timeout"] + NOISE:
        yield f"its shutdown({end['timeout']:g}) took {end['took']:.1f} s"


def table(rows: Iterable[Row]) -> str:
    """A line for each process."""
    lines = [
        f"{'process':>8} {'fate':8}{'recorded':>9}{'exported':>9}{'unknown':>8}{'arrived':>8}{'copies':>7}  dropped, deviations"
    ]
    for row in rows:
        nothing = {"recorded": "", "exported": "", "unknown": "", "dropped": {}}
        said: dict[str, Any] = row.end["said"] if row.end else nothing
        dropped = ", ".join(f"{count} {reason}" for reason, count in said["dropped"].items())
        lines.append(
            f"{row.pid:>8} {row.fate:8}{said['recorded']:>9}{said['exported']:>9}{said['unknown']:>8}{row.arrived:>8}"
            f"{row.copies:>7}  {'; '.join(filter(None, [dropped, *(f'DEVIATION: {each}' for each in row.deviations)]))}"
        )
    return "\n".join(lines)
