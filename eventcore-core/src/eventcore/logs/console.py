"""Log records for a person: one line each, with the time, the level, the trace and the fields; colours on a terminal."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final, TextIO

from eventcore.logs.fields import extra_fields

if TYPE_CHECKING:
    from rich.text import Text

_STYLES: Final = {"DEBUG": "dim", "INFO": "green", "WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold white on red"}
# C0 and C1, what reorders a text, what ends a line in some programs, and halves of surrogate pairs.
_CONTROL: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
# Of a trace id, a person compares the first digits; the whole id is in the JSON form.
_SHOWN: Final = 8
# The span follows from the trace, and flags say nothing to a person.
_LEFT_OUT: Final = ("trace_id", "span_id", "trace_flags")


class PeopleHandler(logging.Handler):
    """Writes records to a stream for a person to read."""

    def __init__(self, stream: TextIO) -> None:
        # An extra: imported when it is used.
        from rich.console import Console
        from rich.text import Text

        super().__init__()
        self._text = Text
        self._console = Console(file=stream, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self._console.print(self._line(record))
            if traceback := record.exc_text or (
                logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            ):
                self._console.print(self._text("\n".join(map(_printable, traceback.split("\n"))), "dim"))
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001  # as every handler of `logging` does
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> Text:
        line = self._text()
        line.append(datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3], "dim")  # noqa: DTZ006  # a person's time
        line.append(f" {record.levelname:<8}", _STYLES.get(record.levelname, ""))
        fields = extra_fields(record)
        line.append(f" {_printable(str(fields.get('trace_id', '')))[:_SHOWN] or '-' * _SHOWN}", "cyan")
        line.append(f" {_printable(record.name)}: ", "dim")
        line.append(_printable(record.getMessage()))
        for name, value in fields.items():
            if name not in _LEFT_OUT:
                name = _printable(str(name).removeprefix("eventcore."))
                line.append(f" {name}=", "dim").append(_printable(str(value)), "cyan")
        return line


def _printable(text: str) -> str:
    """The text with control characters escaped: those in a request could forge a record, or steer the terminal."""
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")
