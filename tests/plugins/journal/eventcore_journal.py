"""Writes what it is given into a file, one JSON object a line, so that a test can read it in another process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from eventcore.exporting import ExporterContext, Secret, hookimpl


class Backend:
    """Something that only code can make."""


class JournalExporter:
    def __init__(
        self,
        path: Path | None = None,
        level: Literal["all", "metrics"] = "all",
        token: Secret | None = None,
        headers: dict[str, Secret] | None = None,
        tags: dict[str, str] | None = None,
        buckets: list[float] | None = None,
        compress: bool = False,
        port: int = 8125,
        backend: Backend | None = None,
        interval: float = 0.05,
    ) -> None:
        self.path = path
        self.level = level
        self.token = token
        self.headers = headers or {}
        self.tags = tags or {}
        self.buckets = buckets or []
        self.compress = compress
        self.port = port
        self.backend = backend
        self.interval = interval
        self._lines: list[dict[str, Any]] = []

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self._lines.append({"hook": "start", "name": context.name, "settings": repr(dict(context.settings))})

    @hookimpl
    def export_counters(self, counters: Any) -> None:
        self._lines += [
            {"hook": "export_counters", "name": counter.name, "labels": dict(point.labels), "value": point.value}
            for counter in counters
            for point in counter.points
        ]

    @hookimpl
    def export_spans(self, spans: Any) -> None:
        self._lines += [{"hook": "export_spans", "name": span.name} for span in spans]

    @hookimpl
    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
