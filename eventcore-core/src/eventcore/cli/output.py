"""The output of the commands: text and tables for people, or one JSON object for programs."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO, final

import msgspec

from eventcore.errors import Fault

# The version of the JSON of all commands.
_VERSION: Final = 1
_COLOURS: Final = {"ok": "32", "loaded": "32", "loading": "33", "failed": "31"}

# Characters of the last column, however narrow the terminal is.
_NARROWEST: Final = 20


@final
class Output:
    """Prints to the standard output of the time when it was made, also while ``sys.stdout`` is redirected."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stream: TextIO = sys.stdout
        # On a terminal, long texts are broken between words; elsewhere a program may read the lines.
        self._width = shutil.get_terminal_size().columns if self._stream.isatty() else None
        self._coloured = self._stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def answer(self, code: int, fields: Any, print_text: Callable[[], None], error: str | None = None) -> int:
        """Print the answer of a command, and return its exit code.

        Args:
            code: the exit code.
            fields: a struct or a mapping: in JSON, what follows ``version``, ``ok`` and ``error``.
            print_text: prints the answer when JSON was not asked for.
            error: why the command could not do what it was asked for, although there is more to show.
        """
        if self.as_json:
            answer = {"version": _VERSION, "ok": code == 0, "error": error, **msgspec.to_builtins(fields)}
            self._write([msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()])
        else:
            print_text()
        return code

    def fail(self, code: int, error: str) -> int:
        """Print why the command could not do what it was asked for, in one shape for all commands; return its exit code."""
        return self.answer(code, {}, lambda: self.error(error), error)

    def line(self, text: str = "") -> None:
        self._write([text])

    def error(self, text: str) -> None:
        """Print a text on standard error."""
        sys.stderr.write(f"eventcore: {text}\n")

    def faults(self, faults: Sequence[Fault]) -> None:
        """Print every fault of the configuration."""
        if faults:
            listed = [line for fault in faults for line in self._broken(f"- {fault}", 2)]
            self._write([f"{count_faults(faults)}:", *(f"  {line}" for line in listed), ""])

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]], if_empty: str = "") -> None:
        """Print rows under titles, or the line ``if_empty`` when there are no rows.

        The last column may have several lines, which are printed below each other.
        """
        if not rows:
            self._write([if_empty] if if_empty else [])
            return
        widths = [max(len(line[column]) for line in (titles, *rows)) for column in range(len(titles) - 1)]
        indent = "  " * len(widths) + " " * sum(widths)
        if self._width is not None and len(indent) + _NARROWEST > self._width:
            self._blocks(titles, rows)
            return
        lines = [self._paint("1", _columns(titles, widths))]
        for row in rows:
            first, *more = [line for text in row[-1].splitlines() for line in self._broken(text, len(indent))] or [""]
            state = next((_COLOURS[cell] for cell in row if cell in _COLOURS), None)
            text = _columns([*row[:-1], first], widths)
            lines += [self._paint(state, text) if state is not None else text, *(indent + part.strip() for part in more)]
        self._write([*lines, ""])

    def _blocks(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print each row as a block, a line for each cell: the terminal is too narrow for columns."""
        width = max(map(len, titles)) + 2
        for row in rows:
            state = next((_COLOURS[cell] for cell in row if cell in _COLOURS), None)
            lines: list[str] = []
            for title, cell in zip(titles, row, strict=True):
                first, *more = [line for text in cell.splitlines() for line in self._broken(text, width)] or [""]
                lines += [f"{title.ljust(width)}{first}".rstrip(), *(" " * width + part.strip() for part in more)]
            self._write([*(self._paint(state, line) if state is not None else line for line in lines), ""])

    def _broken(self, text: str, indent: int) -> list[str]:
        """The text in lines that fit the terminal behind an indent. No word is broken: names and addresses can be copied."""
        if self._width is None:
            return [text]
        width = max(_NARROWEST, self._width - indent)
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    def _write(self, lines: Sequence[str]) -> None:
        encoding = self._stream.encoding or "utf-8"
        for line in lines:
            self._stream.write(f"{line}\n".encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()


def count_faults(faults: Sequence[Fault]) -> str | None:
    """How many faults the configuration has, as a text; ``None`` when it has none."""
    return f"The configuration has {len(faults)} fault{'s' if len(faults) > 1 else ''}" if faults else None


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[-1]]).rstrip()
