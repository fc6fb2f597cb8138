"""Loggers with a limited rate, for records that others cause: the handlers behind them are the application's."""

from __future__ import annotations

import logging
import time
from typing import Final

_LIMIT: Final = 20
_PERIOD: Final = 10.0


class _RateLimit(logging.Filter):
    """Lets 20 records pass in each period. The first record of the next period says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._period_end = 0.0
        self._passed = 0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        # Without a lock: threads that log at the same instant may let one record more pass.
        now = time.monotonic()
        if now >= self._period_end:
            if self._left_out:
                record.msg = f"{record.msg} ({self._left_out} messages before this one were left out)"
            self._period_end, self._passed, self._left_out = now + _PERIOD, 0, 0
        if self._passed >= _LIMIT:
            self._left_out += 1
            return False
        self._passed += 1
        return True


def bounded_logger(name: str) -> logging.Logger:
    """The logger of that name, of which at most 20 records pass in 10 seconds."""
    logger = logging.getLogger(name)
    if not any(isinstance(present, _RateLimit) for present in logger.filters):
        logger.addFilter(_RateLimit())
    return logger
