"""A program with a running telemetry that forks: ``python -m tests.pipeline.forking JOURNAL def|async CHILDREN``.

Its exporter writes what it commits to the journal, as JSON, a line for each flush. The parent records and exports all the
while, and prints the exit codes of the children.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eventcore.exporting import CounterData, Exporter, ExporterContext, Signal, SpanData, hookimpl
from eventcore.telemetry import Telemetry

CHILD_RECORDS = 3


class Journal(Exporter):
    """Commits to a file, and listens on a port, as an exporter that is scraped does."""

    interval = 0.05

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener: socket.socket | None = None
        self.total = 0
        self.spans: list[str] = []

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.instance = dict(context.resource.attributes)["service.instance.id"]
        self.inherited = self.listener is not None
        self.listener = socket.create_server(("127.0.0.1", 0))
        context.on_fork(before=self.prepare, after_in_child=self.listener.close)

    def prepare(self) -> None:
        self.write({"prepared": True})

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        self.total = sum(int(point.value) for counter in counters if counter.name == "work" for point in counter.points)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Any:
        # A call that takes its time, as one over a network: forks come in the middle of it.
        time.sleep(0.02)
        self.spans += [f"{span.context.span_id:016x}" for span in spans]

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        self.write({"total": self.total, "spans": self.spans, "inherited": self.inherited, "instance": self.instance})
        self.spans = []

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        if self.listener is not None:
            self.listener.close()

    def write(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **line}) + "\n")


class AsyncJournal(Journal):
    """The same with hooks that run on the pipeline's event loop."""

    @hookimpl
    async def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        await asyncio.sleep(0.02)
        self.spans += [f"{span.context.span_id:016x}" for span in spans]

    @hookimpl
    async def flush(self, signal: Signal, timeout: float) -> None:
        Journal.flush(self, signal, timeout)


def record(telemetry: Telemetry, count: int) -> None:
    for _ in range(count):
        telemetry.counter("work").add(1)
        with telemetry.span("work"):
            pass


def child(telemetry: Telemetry, exporter: Journal) -> None:
    record(telemetry, CHILD_RECORDS)
    report = telemetry.shutdown_blocking(10)
    gc.collect()
    part = report["journal"]
    is_exact = part.spans_recorded == part.spans_exported == CHILD_RECORDS
    sys.exit(0 if report and is_exact else f"{report}")


def main(path: Path, kind: str, children: int) -> None:
    telemetry = Telemetry(
        config={"exporters": {"journal": {"pipeline": {"span_interval": 0.03}}}}, exporters=[], traces_per_second="all"
    )
    exporter = (AsyncJournal if kind == "async" else Journal)(path)
    telemetry.register_exporter(exporter, name="journal")
    record(telemetry, 1)
    telemetry.flush_blocking(5)
    stop = threading.Event()
    recorded = 1

    def load() -> None:
        nonlocal recorded
        while not stop.wait(0.002):
            record(telemetry, 1)
            recorded += 1

    busy = threading.Thread(target=load)
    busy.start()
    codes = []
    for _ in range(children):
        with warnings.catch_warnings():
            # Python 3.12 and later warn of threads that hold locks at the fork. For those of eventcore this is no danger: the
            # fork waits for hooks, and the child replaces every lock.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            process = os.fork()
        if not process:
            child(telemetry, exporter)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        time.sleep(0.01)
    stop.set()
    busy.join()
    report = telemetry.shutdown_blocking(10)
    sys.stdout.write(json.dumps({"codes": codes, "pid": os.getpid(), "recorded": recorded, "delivered": bool(report)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
