"""What gRPC itself logs about the exporter's calls goes to the exporter's logger, and not to the standard error stream."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_VERBOSITY: Final = ("GRPC_VERBOSITY", "GRPC_TRACE")


@contextmanager
def silenced_core() -> Generator[None]:
    """Import and start gRPC inside this: its core, which is not Python, then writes nothing to the standard error stream.

    What the core would write about a call is in the text of the call's error, which the exporter
    reports. Nothing changes where gRPC is imported already, or where a variable of gRPC asks for
    these lines.
    """
    if "grpc" in sys.modules or any(name in os.environ for name in _VERBOSITY):
        yield
        return
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        yield
    finally:
        # The core has read it. Processes that the application starts must not inherit it.
        os.environ.pop("GRPC_VERBOSITY", None)


@contextmanager
def logged_by_grpc_to(logger: logging.Logger) -> Generator[None]:
    """Warnings and errors of gRPC's Python code go to ``logger``, too, while a call of the exporter is in flight."""
    handler = _Forward(logger)
    grpc_logger = logging.getLogger("grpc")
    grpc_logger.addHandler(handler)
    try:
        yield
    finally:
        grpc_logger.removeHandler(handler)


class _Forward(logging.Handler):
    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.log(record.levelno, "gRPC: %s", record.getMessage(), exc_info=record.exc_info)
