"""A program whose exporter forks in its ``start``: ``python -m tests.pipeline.forking_hook JOURNAL``.

Every process that calls ``start`` writes its process id to the journal.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from eventcore.exporting import CounterData, Exporter, ExporterContext, hookimpl
from eventcore.telemetry import Telemetry

# Without a limit the processes would go on after the end of a test that fails.
MOST_STARTS = 5


class Forking(Exporter):
    """Forks a helper when it starts, which wants to deliver what it records."""

    interval = 0.05
    said = ""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.telemetry: Telemetry | None = None

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        with self.journal.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(self.journal.read_text().split()) >= MOST_STARTS:
            return
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 and later warn of every fork beside threads.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            process = os.fork()
        if not process:
            assert self.telemetry is not None
            report = self.telemetry.flush_blocking(1)
            is_refused = not report and "forked by a hook" in report["forking"].reason
            os.write(writing, b"NOT delivered: forked by a hook" if is_refused else str(report).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            type(self).said = answer.read()
        os.waitpid(process, 0)

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        pass


def main(journal: Path) -> None:
    telemetry = Telemetry(exporters=[])
    exporter = Forking(journal)
    exporter.telemetry = telemetry
    telemetry.register_exporter(exporter, name="forking")
    # Not the shutdown alone: in a child of a telemetry that is shut down, there is no exporter to speak of.
    telemetry.flush_blocking(10)
    report = telemetry.shutdown_blocking(10)
    sys.stdout.write(json.dumps({"pid": os.getpid(), "child": Forking.said, "delivered": bool(report)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
