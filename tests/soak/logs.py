"""The logs of processes: one line an entry; a kill can cut off only the last line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias, final

import msgspec

_SEEN: Final = re.compile(r"(\d+) ([0-9a-f]{32})")


class Begun(msgspec.Struct, tag="begun", frozen=True):
    """A command is about to be executed."""

    id: str
    kind: str


class Acknowledged(msgspec.Struct, tag="acknowledged", frozen=True):
    """The store has returned a result: position, event id, stream and version of each event."""

    id: str
    events: list[tuple[int, str, str, int]]
    attempts: int
    at: float


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The store has raised an error; ``uncertain``: its events may be stored all the same."""

    id: str
    error: str
    uncertain: bool


class Redacted(msgspec.Struct, tag="redacted", frozen=True):
    """The text of an event was removed."""

    event_id: str
    at: float


Entry: TypeAlias = Begun | Acknowledged | Failed | Redacted
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Entry).decode


@final
class LineLog:
    """A file of lines. A line is with the operating system when ``add`` returns, so that a kill does not lose it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def add(self, entry: Entry) -> None:
        """Write one line for one entry."""
        self._file.write(_encode(entry) + b"\n")

    def saw(self, events: Iterable[tuple[int, str]]) -> None:
        """Write a line with the position and id of each event."""
        # Begin with a newline: an earlier process may have been killed in the middle of a line.
        self._file.write("".join(f"\n{position} {event_id}\n" for position, event_id in events).encode())

    def close(self) -> None:
        self._file.close()


def repaired(path: Path) -> list[tuple[int, str]]:
    """Cut an incomplete line off the end of a reader's log, and return the events in the log."""
    if path.exists():
        whole = path.read_bytes()
        if not whole.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(whole.rfind(b"\n") + 1)
    return list(read_seen(path))


def read_seen(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the events in a reader's log, in the order of its lines; incomplete lines are ignored."""
    for line in path.read_text().split("\n") if path.exists() else ():
        if found := _SEEN.fullmatch(line):
            yield int(found[1]), found[2]


def read_commands(paths: Iterable[Path]) -> tuple[Mapping[str, Begun], Mapping[str, Acknowledged | Failed]]:
    """Return, by command id, what was begun, and the outcome if the process lived to write it."""
    begun: dict[str, Begun] = {}
    ended: dict[str, Acknowledged | Failed] = {}
    for path in paths:
        for line in path.read_bytes().split(b"\n")[:-1]:
            entry = _decode(line)
            if isinstance(entry, Begun):
                begun[entry.id] = entry
            elif not isinstance(entry, Redacted):
                ended[entry.id] = entry
    return begun, ended


def read_redacted(paths: Iterable[Path]) -> dict[str, float]:
    """Return the ids of the events whose text was removed, each with the time when that was acknowledged."""
    entries = (_decode(line) for path in paths for line in path.read_bytes().split(b"\n")[:-1])
    return {entry.event_id: entry.at for entry in entries if isinstance(entry, Redacted)}


def now() -> float:
    """Return seconds of a clock that all processes of a machine share."""
    return time.monotonic()
