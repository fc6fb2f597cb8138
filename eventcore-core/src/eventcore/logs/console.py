"""Log records for a person: one line each, with the time, the level, the trace and the fields; colours on a terminal."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from eventcore.logs.fields import extra_fields

_STYLES: Final = {"DEBUG": "dim", "INFO": "green", "WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold white on red"}
# Of a trace id, a person compares the first digits; the whole id is in the JSON form.
_SHOWN: Final = 8
# The span follows from the trace, and flags say nothing to a person.
_LEFT_OUT: Final = ("trace_id", "span_id", "trace_flags")


class PeopleHandler(logging.Handler):
    """Writes records to a stream for a person to read."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._console = Console(file=stream, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self._console.print(self._line(record))
            if traceback := record.exc_text or (
                logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            ):
                self._console.print(Text(traceback, "dim"))
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001  # as every handler of `logging` does
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> Text:
        line = Text()
        line.append(datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3], "dim")  # noqa: DTZ006  # a person's time
        line.append(f" {record.levelname:<8}", _STYLES.get(record.levelname, ""))
        fields = extra_fields(record)
        line.append(f" {str(fields.get('trace_id', ''))[:_SHOWN] or '-' * _SHOWN}", "cyan")
        line.append(f" {record.name}: ", "dim")
        line.append(record.getMessage())
        for name, value in fields.items():
            if name not in _LEFT_OUT:
                line.append(f" {name.removeprefix('eventcore.')}=", "dim").append(str(value), "cyan")
        return line
