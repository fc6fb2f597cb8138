"""An exporter that runs here or in a process of its own: it writes what it gets to a file, and fails when it is told to."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    GiveUp,
    HistogramData,
    Rejected,
    RetryLater,
    Secret,
    Signal,
    SpanData,
    hookimpl,
)
from eventcore.exporting.configuration.discovery import GROUP, FoundPlugin
from eventcore.exporting.configuration.sources import from_tables
from eventcore.exporting.process import ChildPlan, ProcessHandle, child
from eventcore.exporting.registration import check_exporter
from eventcore.recording.attributes import SpanLimits

PLUGIN = FoundPlugin(EntryPoint("probe", "tests.pipeline.probing:Probe", GROUP), "tests", "1.0")


class Probe(Exporter):
    """Writes a line of JSON for each start, each delivery and each shutdown to ``path``.

    Args:
        path: the file.
        token: a secret, which it writes at its start.
        fault: what goes wrong; see ``_fail``.
    """

    interval = 3600.0

    def __init__(self, path: str, token: Secret | None = None, fault: str = "") -> None:
        self.path = path
        self.token = token
        self.fault = fault
        self.held: dict[str, list[str]] = {"spans": [], "metrics": []}

    def _write(self, **what: Any) -> None:
        line = json.dumps({"pid": os.getpid(), **what}) + "\n"
        with Path(self.path).open("a") as file:
            file.write(line)

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.context = context
        token = None if self.token is None else self.token.reveal()
        resource = dict(context.resource.attributes)
        self._write(started=context.name, token=token, service=resource["service.name"], settings=dict(context.settings))
        if self.fault == "talks":
            context.logger.warning("the backend is slow today")
            context.report_hidden("orders.shipped", "its name is taken", "collision")
            threading.Timer(0.01, self._export_now).start()

    def _export_now(self) -> None:
        self.context.export_now(10.0).result(10.0)
        self._write(exported_now=True)

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        if self.fault == "cannot begin" and signal == "spans":
            raise ValueError("nothing begins here")
        self.held[signal] = []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        self.held["metrics"] += map(repr, counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:
        self.held["metrics"] += map(repr, gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:
        self.held["metrics"] += map(repr, histograms)

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Rejected | None:
        if self.fault == "refuses odd ones" and any(span.name.endswith("1") for span in spans):
            raise ValueError("an odd name")
        self.held["spans"] += [span.name if self.fault != "shows all" else repr(span) for span in spans]
        return Rejected(1, "too old") if self.fault == "rejects some" else None

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> None:
        if signal == "spans":
            self._fail()
        self._write(**{signal: self.held.pop(signal)})

    def _fail(self) -> None:
        fault = self.fault
        if fault == "later once":
            self.fault = ""
            raise RetryLater(0.01, "the backend restarts")
        if fault == "never":
            raise GiveUp("the token is wrong", unsupported=True)
        if fault == "raises":
            raise LookupError("no such backend")
        if fault == "dies":
            os._exit(3)
        if fault == "hangs":
            self._write(hangs=True)
            time.sleep(600)

        if fault == "holds the GIL":
            child._MOST_SILENT = 1.0  # type: ignore[misc]  # that of this process, which is too long for a test
            self._write(hangs=True)
            time.sleep(2.5)  # the main thread looks each second
            ctypes.PyDLL(None).sleep(600)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        self._write(shut_down=True)


def in_a_process(path: Path, **settings: Any) -> ProcessHandle:
    """The handle of a probe that runs in a process of its own."""
    given, _ = from_tables({"path": str(path), **settings})
    plan = ChildPlan(
        name="probe",
        plugin=(PLUGIN.name, PLUGIN.value, PLUGIN.distribution, PLUGIN.version),
        settings=given,
        file="eventcore.toml",
        limits=SpanLimits(),
        load_timeout=30.0,
    )
    token = settings.pop("token", None)
    probe = Probe(str(path), token=None if token is None else Secret(token), **settings)
    return ProcessHandle(check_exporter(probe, PLUGIN.origin), plan)


def written(path: Path, key: str) -> list[Any]:
    """What the probe has written under a key, oldest first."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line[key] for line in lines if key in line]
