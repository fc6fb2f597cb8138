"""Loggers for what others cause: a flood is cut and counted, because handlers are shared with the application."""

from __future__ import annotations

import logging
import time
from typing import Final

_MOST: Final = 20
_PERIOD: Final = 10.0


class _FloodGate(logging.Filter):
    """Lets some records through in each period; the first of the next period says how many were cut."""

    def __init__(self) -> None:
        super().__init__()
        self._period_end = 0.0
        self._passed = 0
        self._cut = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now >= self._period_end:
            if self._cut:
                record.msg = f"{record.msg} ({self._cut} messages before this one were left out)"
            self._period_end, self._passed, self._cut = now + _PERIOD, 0, 0
        if self._passed >= _MOST:
            self._cut += 1
            return False
        self._passed += 1
        return True


def exporter_logger(name: str) -> logging.Logger:
    """The logger ``eventcore.exporters.NAME``, of which at most 20 records pass in 10 seconds."""
    return bounded_logger(f"eventcore.exporters.{name}")


def bounded_logger(name: str) -> logging.Logger:
    """The logger of that name, of which at most 20 records pass in 10 seconds."""
    logger = logging.getLogger(name)
    if not any(isinstance(known, _FloodGate) for known in logger.filters):
        logger.addFilter(_FloodGate())
    return logger
