"""A process of the day: it records under load, forks children, and writes down what its telemetry says at the end.

``python -m tests.day.service ENDPOINT JOURNAL SECONDS SEED``
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from eventcore.telemetry import Telemetry
from eventcore_otel import OpenTelemetryExporter
from tests.day.collector import CALL_TIMEOUT

# Small queues and short ages beside large ones: spans are lost for every reason there is.
PIPELINES: Final[Sequence[dict[str, Any]]] = (
    {"span_queue": 100_000, "max_age": 300.0},
    {"span_queue": 400, "span_batch": 100, "max_age": 300.0},
    {"span_queue": 20_000, "max_age": 3.0},
)
QUICK: Final = {"interval": 0.5, "span_interval": 0.2, "span_batch": 500, "backoff": 0.1, "max_backoff": 0.5}
# Seconds between two spans, in the first process and in a child.
_PAUSE: Final = 0.003
_CHILD_PAUSE: Final = 0.01
# Seconds that the first process has to deliver at the end of the day, when the collector is well.
_LAST_TIMEOUT: Final = 20.0


class Journal:
    """The lines that all processes write, as JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **line: Any) -> None:
        # One `write` to a file that is opened for appending: lines of several processes do not mix.
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, (json.dumps({"pid": os.getpid(), **line}) + "\n").encode())
        os.close(file)


class Recording:
    """Records until it is stopped, in a thread of its own."""

    def __init__(self, telemetry: Telemetry, pause: float) -> None:
        self.recorded = 0
        self._telemetry = telemetry
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _record(self) -> None:
        work = self._telemetry.counter("work")
        while not self._stop.wait(self._pause):
            with self._telemetry.span("work"):
                work.add(1)
            self.recorded += 1


def instance_of(telemetry: Telemetry) -> str:
    return str(dict(telemetry.resource.attributes)["service.instance.id"])


def account(telemetry: Telemetry, recorded: int, journal: Journal, timeout: float) -> None:
    """Shut the telemetry down, and write what it says."""
    begun = time.monotonic()
    report = telemetry.shutdown_blocking(timeout)
    took = time.monotonic() - begun
    part = report["otel"]
    journal.write(
        event="end",
        instance=instance_of(telemetry),
        recorded=recorded,
        timeout=timeout,
        took=took,
        delivered=part.delivered,
        said={
            "recorded": part.spans_recorded,
            "exported": part.spans_exported,
            "dropped": {reason: count for reason, count in part.spans_dropped.items() if count},
            "unknown": part.spans_unknown,
            "pending": part.spans_pending,
        },
    )


def fork(telemetry: Telemetry, journal: Journal, chance: random.Random) -> int | None:
    """Fork a child that records for some seconds. Returns its process id if it is to be killed."""
    doomed, life, timeout = chance.random() < 0.5, chance.uniform(0.3, 4.0), chance.choice((1.0, 3.0, 10.0))
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads at a fork. Eventcore replaces every lock that they may hold.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        child = os.fork()
    if child:
        return child if doomed else None
    code = 1
    try:
        journal.write(event="begin", instance=instance_of(telemetry))
        recording = Recording(telemetry, _CHILD_PAUSE)
        # One that is to be killed has no end of its own.
        time.sleep(600 if doomed else life)
        recording.stop()
        account(telemetry, recording.recorded, journal, timeout)
        code = 0
    finally:
        # What the parent has on its stack is not for the child.
        sys.stderr.flush()
        os._exit(code)


def main(endpoint: str, path: Path, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    journal = Journal(path)
    pipeline = {**QUICK, **PIPELINES[seed % len(PIPELINES)]}
    telemetry = Telemetry(config={"exporters": {"otel": {"pipeline": pipeline}}}, exporters=[], traces_per_second="all")
    telemetry.register_exporter(OpenTelemetryExporter(endpoint=endpoint, timeout=CALL_TIMEOUT), name="otel")
    journal.write(event="begin", instance=instance_of(telemetry))
    recording = Recording(telemetry, _PAUSE)
    until = time.monotonic() + seconds
    dooms: list[tuple[float, int]] = []
    while (now := time.monotonic()) < until:
        if (doomed := fork(telemetry, journal, chance)) is not None:
            dooms.append((now + chance.uniform(0.2, 3.0), doomed))
        _kill([child for moment, child in dooms if moment <= now], journal)
        dooms = [doom for doom in dooms if doom[0] > now]
        time.sleep(chance.uniform(0.3, 1.5))
    _kill([child for _, child in dooms], journal)
    recording.stop()
    account(telemetry, recording.recorded, journal, _LAST_TIMEOUT)
    _reap(journal)


def _kill(children: Sequence[int], journal: Journal) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
        journal.write(event="killed", child=child)


def _reap(journal: Journal) -> None:
    """Wait for the children, and write down how each ended."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child:
            journal.write(event="reaped", child=child, code=os.waitstatus_to_exitcode(status))
        else:
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
