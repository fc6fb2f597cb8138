"""A program with an exporter in a process of its own: it says which processes there are, and waits to be killed."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from eventcore.exporting.delivery import ExporterManager
from eventcore.ground import around_fork
from eventcore.recording import Collector, IdGenerator, InstrumentRegistry, RateSampler, Resource, Tracer
from tests.pipeline.conftest import FAST
from tests.pipeline.probing import in_a_process

RESOURCE = Resource((("service.name", "test"),))


def exporter_process(manager: ExporterManager) -> int:
    assert manager.wait_started(30.0)
    handle: Any = manager.pipelines()[0].handle
    return int(handle._process.pid)


def deliver(tracer: Tracer, manager: ExporterManager, count: int) -> None:
    for number in range(count):
        tracer.span(f"span {number}").end()
    assert manager.flush(20.0)


def main() -> None:
    """Run until killed."""
    [path] = sys.argv[1:]
    tracer, registry = Tracer(RateSampler("all"), IdGenerator()), InstrumentRegistry()
    manager = ExporterManager(tracer, Collector(registry), RESOURCE)
    around_fork(
        manager,
        before=ExporterManager.before_fork,
        after_in_parent=ExporterManager.after_fork_in_parent,
        after_in_child=lambda each: each.restart_in_child(RESOURCE),
    )
    manager.add("probe", in_a_process(Path(path)), FAST, {})
    said = {"exporter": exporter_process(manager), "child": 0, "child_exporter": 0}
    deliver(tracer, manager, 1)
    reading, writing = os.pipe()
    said["child"] = os.fork()
    if not said["child"]:
        process = exporter_process(manager)
        deliver(tracer, manager, 2)
        os.write(writing, str(process).encode())
        time.sleep(60)
        os._exit(0)
    said["child_exporter"] = int(os.read(reading, 20))
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    time.sleep(60)


if __name__ == "__main__":
    main()
