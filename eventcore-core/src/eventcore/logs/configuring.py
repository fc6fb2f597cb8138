"""``configure``: logging for a service that has configured none, as JSON or for a person at a terminal."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO, cast

from eventcore.errors import MissingDependency
from eventcore.logs.console import PeopleHandler
from eventcore.logs.fields import TraceContextFilter, extra_fields
from eventcore.logs.masking import DEFAULT_NAMES, MaskFilter
from eventcore.recording import Recorder

_FORMATS: Final = ("json", "console")


def configure(
    format: Literal["json", "console"] = "json",  # noqa: A002  # the word that users expect
    *,
    level: int | str = "INFO",
    stream: TextIO | None = None,
    mask: str = DEFAULT_NAMES,
    telemetry: Recorder | None = None,
) -> logging.Handler:
    """Send all log records of the process to one stream, with the fields of the running operation, and without secrets.

    Call it once, at the start of a service that has not configured logging. A second call replaces the handler of the first;
    other handlers of the root logger stay.

    Args:
        format: ``"json"``: one JSON object a line, with ``timestamp`` (UTC, ISO 8601), ``level``, ``logger``, ``message``,
            ``process.pid``, the fields of ``TraceContextFilter`` and those given by ``extra=``. ``"console"``: for people,
            coloured on a terminal.
        level: records below this level are left out: a number or a name of ``logging``.
        stream: where to write; standard error by default.
        mask: a regular expression; the values of fields whose name it finds are replaced by ``***``. Case does not count.
        telemetry: as for ``TraceContextFilter``.

    Returns:
        The handler, which the root logger has now.

    Raises:
        MissingDependency: the extra ``logs`` is not installed.
        ValueError: ``format``, ``level`` or ``mask`` is not one of the allowed values, or there is no stream to write to.

    >>> import io, json, logging
    >>> stream = io.StringIO()
    >>> handler = configure("json", stream=stream)
    >>> logging.getLogger("shop").warning("low stock", extra={"item": 17, "api_key": "abc"})
    >>> record = json.loads(stream.getvalue())
    >>> record["level"], record["message"], record["item"], record["api_key"]
    ('WARNING', 'low stock', 17, '***')
    >>> logging.getLogger().removeHandler(handler)
    """
    if format not in _FORMATS:
        raise ValueError(f"format={format!r}; expected one of {', '.join(_FORMATS)}")
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if number is None:
        raise ValueError(f"level={level!r}; expected one of {', '.join(logging.getLevelNamesMapping())}, or a number")
    if stream is None and (stream := cast(TextIO | None, sys.stderr)) is None:
        raise ValueError("stream=None; this process has no standard error, so pass a stream")
    handler = _json_handler(stream) if format == "json" else _console_handler(stream)
    handler.addFilter(TraceContextFilter(telemetry))
    handler.addFilter(MaskFilter(mask))
    cast(Any, handler).eventcore_configured = True
    root = logging.getLogger()
    for present in list(root.handlers):
        if getattr(present, "eventcore_configured", False):
            root.removeHandler(present)
    root.addHandler(handler)
    root.setLevel(number)
    return handler


def _json_handler(stream: TextIO) -> logging.Handler:
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ImportError as error:
        raise _missing("python-json-logger") from error

    class Formatter(JsonFormatter):
        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            log_data["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
            log_data["level"] = record.levelname
            log_data["logger"] = record.name
            log_data["message"] = record.getMessage()
            log_data["process.pid"] = record.process
            log_data.update(extra_fields(record))
            log_data.update({name: value for name, value in message_dict.items() if name != "exc_info"})
            if record.exc_info or record.exc_text:
                log_data["exception"] = record.exc_text or self.formatException(cast(Any, record.exc_info))

    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter(json_ensure_ascii=False))
    return handler


def _console_handler(stream: TextIO) -> logging.Handler:
    try:
        return PeopleHandler(stream)
    except ImportError as error:
        raise _missing("rich") from error


def _missing(package: str) -> MissingDependency:
    return MissingDependency(f"eventcore.logs.configure needs {package}: pip install 'eventcore-core[logs]'")
