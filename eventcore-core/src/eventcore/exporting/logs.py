"""Loggers with a limited rate and size, for records that others cause: the handlers behind them are the application's."""

from __future__ import annotations

import logging
import time
from typing import Final

from eventcore.ground import cut, name_in_message, text_of, traceback_of

_LIMIT: Final = 20
_PERIOD: Final = 10.0
_MAX_MESSAGE: Final = 4096
_PLAIN: Final = (str, int, float, bool, type(None))


class _Bounds(logging.Filter):
    """Lets 20 records pass in each period, cut to a size. The first record of the next period says how many were left out.

    A handler may format what a plugin gave: a value or an exception whose text raises, or is 20 MB long. So the texts are made
    here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._period_end = 0.0
        self._passed = 0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        # Without a lock: threads that log at the same instant may let one record more pass.
        now = time.monotonic()
        left_out = 0
        if now >= self._period_end:
            left_out, self._left_out = self._left_out, 0
            self._period_end, self._passed = now + _PERIOD, 0
        if self._passed >= _LIMIT:
            self._left_out += 1
            return False
        self._passed += 1
        _make_plain(record)
        if left_out:
            record.msg = f"{record.msg} ({left_out} messages before this one were left out)"
        name_in_message(record)
        return True


def _make_plain(record: logging.LogRecord) -> None:
    """Replace what could raise, or is too long, by text."""
    try:
        message = record.getMessage()
        fits = len(message) <= _MAX_MESSAGE and message.isascii()
    except BaseException:  # noqa: BLE001  # arguments that do not fit the message, or whose text raises
        message, fits = text_of(record.msg, _MAX_MESSAGE), False
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        message = " ".join([message, *(text_of(argument, 200) for argument in arguments)])
    plain = isinstance(record.args, tuple) and all(type(argument) in _PLAIN for argument in record.args)
    # The arguments stay where they are harmless: some handlers group records by the message without them.
    if not (fits and plain and type(record.msg) is str):
        # `msg` is formatted only if there are arguments, so that a percent sign in it is none.
        record.msg, record.args = cut(message, _MAX_MESSAGE), None
    if record.exc_info and record.exc_info[1] is not None:
        # Handlers show `exc_text`. With `exc_info`, some of them would format the exception themselves.
        record.exc_text, record.exc_info = traceback_of(record.exc_info[1]), None


def bounded_logger(name: str) -> logging.Logger:
    """The logger of that name, of which at most 20 records pass in 10 seconds, each cut to 4,096 characters."""
    logger = logging.getLogger(name)
    if not any(isinstance(present, _Bounds) for present in logger.filters):
        logger.addFilter(_Bounds())
    return logger
