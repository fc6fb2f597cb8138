"""An exporter whose plugin has the same name as another distribution's."""

from __future__ import annotations

from typing import Any

from eventcore.exporting import hookimpl


class JournalExporter:
    @hookimpl
    def export_counters(self, counters: Any) -> None: ...
