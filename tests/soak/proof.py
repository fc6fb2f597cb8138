"""What must hold after a run, as functions of the database's rows and the processes' logs.

Nothing here uses eventcore: the store is not a witness of itself.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

import msgspec

from tests.soak.logs import Acknowledged, Begun, Failed

CHAIN: Final = 1_000_003
"""The modulus of the chain of positions that projections keep for each stream."""

_SHOWN: Final = 20


def digest(before: int, event_id: str) -> int:
    """Return the digest of a stream that ends with this event, from the digest before it; it depends on the order of events."""
    return zlib.crc32(event_id.encode(), before)


class Row(msgspec.Struct, frozen=True):
    """An event as the database stores it, with what it records of its command (``domain.Part``), and the length of its text."""

    position: int
    stream: str
    version: int
    event_id: str
    event_type: str
    command: str
    number: int
    of: int
    seen: dict[str, int]
    amount: int
    text: int = 0


class Failover(msgspec.Struct, frozen=True):
    """A failover to a standby that lagged.

    A command acknowledged before ``at`` at a position above ``fork`` may be lost, and a redaction acknowledged between
    ``behind``, when the standby began to lag, and ``at``.
    """

    fork: int
    at: float
    behind: float


@final
class Findings:
    """Counts of what was checked, and the first violations."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []

    def violated(self, violation: str) -> None:
        """Note a violation."""
        self.counts["violations"] += 1
        if len(self.violations) < _SHOWN:
            self.violations.append(violation)


def prove_log(rows: Sequence[Row], findings: Findings) -> None:
    """Positions and versions have no gaps, and every command was decided on the state right before its events."""
    versions: Counter[str] = Counter()
    digests: dict[str, int] = defaultdict(int)
    event_ids: set[str] = set()
    for expected, row in enumerate(rows, 1):
        if row.position != expected:
            findings.violated(f"position {row.position} is stored where {expected} belongs")
            return
        if row.version != versions[row.stream] + 1:
            findings.violated(f"position {row.position}: {row.stream} has version {row.version} after {versions[row.stream]}")
        if row.event_id in event_ids:
            findings.violated(f"position {row.position}: event {row.event_id} is stored twice")
        if row.number == 0:
            for stream, seen in row.seen.items():
                findings.counts["decisions checked"] += 1
                if seen != digests[stream]:
                    findings.violated(
                        f"position {row.position}: {row.command} was decided on a state of {stream} other than "
                        f"the stored one at version {versions[stream]}"
                    )
        event_ids.add(row.event_id)
        versions[row.stream] = row.version
        digests[row.stream] = digest(digests[row.stream], row.event_id)
    findings.counts["events"] = len(rows)
    findings.counts["streams"] = len(versions)
    findings.counts["longest stream"] = max(versions.values(), default=0)


def prove_commands(
    rows: Sequence[Row],
    begun: Mapping[str, Begun],
    ended: Mapping[str, Acknowledged | Failed],
    findings: Findings,
    failover: Failover | None = None,
) -> None:
    """A command's events are all stored, one after another, or none is.

    Events of an acknowledged command are stored, those of a refused one are not. A command whose process was killed, or
    whose error says that it may have committed, is in doubt: both are right.
    """
    stored: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        stored[row.command].append(row)
    counts = findings.counts
    for command, found in stored.items():
        first, count = found[0].position, found[0].of
        if [(row.number, row.position, row.of) for row in found] != [(n, first + n, count) for n in range(count)]:
            findings.violated(f"{command}: {len(found)} of {count} events are stored, at {[row.position for row in found]}")
        if command not in begun:
            findings.violated(f"{command}: its events are stored, and no process has begun it")
    for command in begun:
        end, found = ended.get(command), stored.get(command, [])
        counts["commands"] += 1
        if isinstance(end, Acknowledged):
            found_events = [(row.position, row.event_id, row.stream, row.version) for row in found]
            if found_events == end.events:
                counts["acknowledged"] += 1
                counts["acknowledged events"] += len(found_events)
                counts["attempts of acknowledged"] += end.attempts
            elif failover is not None and not found and end.at < failover.at and end.events[0][0] > failover.fork:
                counts["acknowledged, lost by the failover"] += 1
            else:
                findings.violated(f"{command}: acknowledged as {end.events}, and stored as {found_events}")
        elif end is None or end.uncertain:
            how = "killed" if end is None else end.error
            counts[f"in doubt ({how}), {'stored' if found else 'not stored'}"] += 1
        else:
            counts[f"refused ({end.error})"] += 1
            if found:
                findings.violated(f"{command}: refused with {end.error}, and stored at {[row.position for row in found]}")


def prove_seen(
    name: str, seen: Sequence[tuple[int, str]], rows: Sequence[Row], findings: Findings, failover: Failover | None = None
) -> None:
    """A reader has seen every position once and in order, each with the stored event."""
    findings.counts["events seen by readers"] += len(seen)
    for expected, (position, event_id) in enumerate(seen, 1):
        if position != expected:
            findings.violated(f"{name}: saw position {position} where {expected} belongs")
            return
        if failover is not None and position > failover.fork:
            continue
        if position > len(rows) or rows[position - 1].event_id != event_id:
            findings.violated(f"{name}: saw {event_id} at position {position}, where another event is stored")
            return
    if failover is None and len(seen) != len(rows):
        findings.violated(f"{name}: has seen {len(seen)} of {len(rows)} events")


def is_poison(position: int) -> bool:
    """Whether the unruly projection never applies the event at this position."""
    return position % 197 == 0


def prove_dead_letters(found: Sequence[int], reached: int, findings: Findings) -> None:
    """The dead letters of the unruly projection are the events that it never applies, and no other."""
    expected = [position for position in range(1, reached + 1) if is_poison(position)]
    findings.counts["dead letters"] = len(found)
    if list(found) != expected:
        findings.violated(f"unruly: the dead letters are {found[:20]}, expected {expected[:20]}")


def prove_redacted(
    redacted: Mapping[str, float], rows: Iterable[Row], findings: Findings, failover: Failover | None = None
) -> None:
    """The text of every event that was redacted is gone; ``redacted`` says when that was acknowledged."""
    texts = {row.event_id: row.text for row in rows}
    findings.counts["large events"] = sum(1 for text in texts.values() if text)
    for event_id, at in redacted.items():
        findings.counts["redacted"] += 1
        if texts.get(event_id) and failover is not None and failover.behind < at < failover.at:
            findings.counts["redacted, lost by the failover"] += 1
        elif texts.get(event_id):
            findings.violated(f"{event_id}: was redacted, and has a text of {texts[event_id]} characters")


def prove_outside(applied: Iterable[tuple[int, str]], rows: Sequence[Row], findings: Findings) -> None:
    """A projection with a read model outside the store has applied every event at least once, first in order."""
    last = again = 0
    for position, event_id in applied:
        if position > len(rows) or rows[position - 1].event_id != event_id:
            findings.violated(f"outside: applied {event_id} at position {position}, where another event is stored")
            return
        if position <= last:
            again += 1
        elif position == last + 1:
            last = position
        else:
            findings.violated(f"outside: applied position {position} after {last}")
            return
    findings.counts["events applied outside, again"] += again
    findings.counts["events applied outside"] += last
    if last != len(rows):
        findings.violated(f"outside: has applied {last} of {len(rows)} events")


def prove_tally(name: str, table: Mapping[str, tuple[int, int, int]], rows: Iterable[Row], findings: Findings) -> None:
    """The table of a projection equals the fold over all its events: their number, their sum, and the chain of positions."""
    fold: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        events, amount, chain = fold.get(row.stream, (0, 0, 0))
        fold[row.stream] = (events + 1, amount + row.amount, (chain * 31 + row.position) % CHAIN)
    findings.counts[f"events in projection {name}"] += sum(events for events, _, _ in table.values())
    for stream in sorted(fold.keys() | table.keys()):
        if fold.get(stream) != table.get(stream):
            findings.violated(f"{name}: {stream} is {table.get(stream)} in the table, {fold.get(stream)} by all events")
