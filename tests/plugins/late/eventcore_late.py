"""Exporters that are late until the file that LATE_GATE names exists."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from eventcore.exporting import Exporter, ExporterContext, hookimpl


def wait_for_the_gate() -> None:
    while not Path(os.environ["LATE_GATE"]).exists():
        time.sleep(0.01)


class Prompt(Exporter):
    """Keeps the names and values of the counters that it was given."""

    def __init__(self) -> None:
        self.counters: dict[str, float] = {}
        self.spans: list[str] = []

    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> None:
        self.counters |= {counter.name: point.value for counter in counters for point in counter.points}

    @hookimpl
    def export_spans(self, spans: Any, timeout: float) -> None:
        self.spans += [span.name for span in spans]


class LateConstructor(Prompt):
    def __init__(self, port: int = 1) -> None:
        wait_for_the_gate()
        super().__init__()
        if port > 65535:
            raise ValueError(f"port is {port}; expected at most 65535")


class LateStart(Prompt):
    @hookimpl
    def start(self, context: ExporterContext) -> None:
        wait_for_the_gate()


_THE_ONLY_ONE = Prompt()


def the_only_one() -> Prompt:
    return _THE_ONLY_ONE
