"""The table of faults, and what enters them."""

from __future__ import annotations

import socket
from typing import Any, Final

from tests.testing.exporters.line_exporter import LineExporter

PLANTED: Final[dict[str, tuple[type[LineExporter], str]]] = {}
"""The exporters by name, each with the check that is meant to catch its fault."""

OPEN: Final[list[socket.socket]] = []
"""What faulty exporters have left open: kept, so that the garbage collector does not close it."""


def planted(check: str) -> Any:
    """Enter a faulty exporter into the table."""

    def enter(kind: type[LineExporter]) -> type[LineExporter]:
        PLANTED[kind.__name__] = (kind, check)
        return kind

    return enter
