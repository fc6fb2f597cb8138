"""What processes write down while they run: lines that a kill can only cut off at the end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias, final

import msgspec

__all__ = ["Acknowledged", "Begun", "Entry", "Failed", "LineLog", "read_commands", "read_seen", "repaired"]

_SEEN: Final = re.compile(r"(\d+) ([0-9a-f]{32})")


class Begun(msgspec.Struct, tag="begun", frozen=True):
    """A command is handed to the store."""

    id: str
    kind: str


class Acknowledged(msgspec.Struct, tag="acknowledged", frozen=True):
    """The store has told that it is carried out: position, event id, stream and version of each event."""

    id: str
    events: list[tuple[int, str, str, int]]
    attempts: int
    at: float


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The store has told that it is not; ``uncertain``: that its events may stand all the same."""

    id: str
    error: str
    uncertain: bool


Entry: TypeAlias = Begun | Acknowledged | Failed
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Entry).decode


@final
class LineLog:
    """A file that lines are added to; each is with the operating system when ``add`` returns, so that no kill takes it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def add(self, entry: Entry) -> None:
        """One line for one entry."""
        self._file.write(_encode(entry) + b"\n")

    def saw(self, events: Iterable[tuple[int, str]]) -> None:
        """A line for the position and id of each event."""
        # What was cut off by a kill must not run into the next line.
        self._file.write("".join(f"\n{position} {event_id}\n" for position, event_id in events).encode())

    def close(self) -> None:
        """No more lines."""
        self._file.close()


def repaired(path: Path) -> list[tuple[int, str]]:
    """The events in a log of what was seen, after a half line at its end has been cut off."""
    if path.exists():
        whole = path.read_bytes()
        if not whole.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(whole.rfind(b"\n") + 1)
    return list(read_seen(path))


def read_seen(path: Path) -> Iterator[tuple[int, str]]:
    """The events in a log of what was seen, in order of the lines; what is no whole line was never written."""
    for line in path.read_text().split("\n") if path.exists() else ():
        if found := _SEEN.fullmatch(line):
            yield int(found[1]), found[2]


def read_commands(paths: Iterable[Path]) -> tuple[Mapping[str, Begun], Mapping[str, Acknowledged | Failed]]:
    """What was begun, and what became of it as far as a process lived to write it down, by command."""
    begun: dict[str, Begun] = {}
    ended: dict[str, Acknowledged | Failed] = {}
    for path in paths:
        for line in path.read_bytes().split(b"\n")[:-1]:
            entry = _decode(line)
            if isinstance(entry, Begun):
                begun[entry.id] = entry
            else:
                ended[entry.id] = entry
    return begun, ended


def now() -> float:
    """Seconds on a clock that all processes of a machine share."""
    return time.monotonic()
