"""The contract of exporters: processes that are forked and work side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.registration import check_exporter
from eventcore.telemetry import Telemetry
from eventcore.testing.exporters.contract.fixtures import ContractFixtures
from eventcore.testing.exporters.contract.processes import Child
from eventcore.testing.exporters.delivery import wait_for
from eventcore.testing.exporters.received import ReceivedPoint
from eventcore.testing.exporters.recording import RecordingExporter
from eventcore.testing.exporters.samples import sample_counter, sample_gauge, sample_histogram
from eventcore.testing.exporters.setup import ExporterSetup

_AMOUNTS: Final = {"parent": 1, "first": 2, "second": 4}
"""What each process records."""

_LISTENS: Final = "0A"
"""The state of a listening socket in ``/proc/net/tcp``."""


class WorkerContract(ContractFixtures):
    """Tests of a parent and its forked workers, all of which run."""

    def test_a_forked_child_lets_go_of_what_its_parent_listens_on(self, exporter_setup: ExporterSetup) -> None:
        self.needs(exporter_setup, "forks")
        before = _listening()
        with _telemetry(exporter_setup) as (telemetry, _):
            telemetry.flush_blocking(exporter_setup.patience)
            mine = _listening() - before
            if not mine:
                pytest.skip("the exporter listens nowhere")
            code = Child(lambda: not mine & _listening()).wait(exporter_setup.patience)
        assert code == 0, (
            "a forked child has the listening socket of its parent: connections hang there, and the parent's next start finds "
            "its address in use. Close it in context.on_fork(after_in_child=...)"
        )

    def test_a_parent_and_its_forked_workers_deliver_side_by_side(self, exporter_setup: ExporterSetup) -> None:
        self.needs(exporter_setup, "forks")
        with _telemetry(exporter_setup) as (telemetry, handle):
            if handle.interval is None:
                self.needs(exporter_setup, "workers")
            # Spans are recorded, and exemplars with them, where an exporter takes them.
            telemetry.register_exporter(RecordingExporter(), name="beside")
            # An exporter that adds a label for each process may call it so.
            counter = telemetry.counter("worked.total", labels=("worker",), exemplars=True)
            gauge = telemetry.gauge("worked.now", labels=("worker",))
            histogram = telemetry.histogram("worked.duration", unit="s", labels=("worker",))

            def work(process: str) -> bool:
                amount = _AMOUNTS[process]
                gauge.labels(process).set(amount)
                for _ in range(amount):
                    histogram.labels(process).record(0.25)
                with telemetry.span(f"span of {process}"):
                    counter.labels(process).add(amount)
                return bool(telemetry.flush_blocking(exporter_setup.patience))

            def live(process: str) -> Callable[[Callable[[], None]], bool]:
                def alive(tell: Callable[[], None]) -> bool:
                    worked = work(process)
                    tell()
                    return worked and bool(telemetry.shutdown_blocking(exporter_setup.patience))

                return alive

            telemetry.flush_blocking(exporter_setup.patience)
            children = [Child.that_waits(live(process)) for process in _AMOUNTS if process != "parent"]
            try:
                assert all(child.has_worked(exporter_setup.patience) for child in children), "each child must deliver"
                assert work("parent"), "the parent must deliver beside its children"
                problems: list[str] = []

                def arrived() -> bool:
                    problems[:] = _problems(exporter_setup, handle)
                    return not problems

                if not wait_for(arrived, exporter_setup.patience):
                    problems = problems or _problems(exporter_setup, handle)
            finally:
                codes = [child.wait(exporter_setup.patience) for child in children]
        assert not problems, "what each process has recorded must be there while all of them run:\n  " + "\n  ".join(problems)
        assert codes == [0, 0], f"a worker must end in time, and deliver: exit codes {codes}"


@contextmanager
def _telemetry(setup: ExporterSetup) -> Generator[tuple[Telemetry, ExporterHandle]]:
    exporter = setup.make()
    telemetry = Telemetry(config=os.devnull, exporters=[], traces_per_second="all")
    telemetry.register_exporter(exporter, name="tested")
    try:
        yield telemetry, check_exporter(exporter)
    finally:
        telemetry.shutdown_blocking(setup.patience)


def _problems(setup: ExporterSetup, handle: ExporterHandle) -> list[str]:
    """What of the processes is missing or wrong in the backend."""
    received = setup.received()
    problems: list[str] = []
    labels: dict[str, Any] = {"labels": ("worker",)}
    samples: dict[str, tuple[Any, Callable[[ReceivedPoint], Any]]] = {
        "counters": (sample_counter("worked.total", {}, unit="", **labels), lambda point: point.value),
        "gauges": (sample_gauge("worked.now", {}, unit="", **labels), lambda point: point.value),
        "histograms": (sample_histogram("worked.duration", {}, **labels), lambda point: point.count),
    }
    for kind, (data, value_of) in samples.items():
        if kind not in handle.kinds:
            continue
        name, adds = setup.metric_name(data), kind != "gauges" and handle.temporality != "cumulative" and not setup.adds_up
        for process, amount in _AMOUNTS.items():
            key = setup.label_name("worker")
            points = [point for point in received.points if point.name == name and point.labels.get(key) == setup.text(process)]
            values = [value_of(point) or 0 for point in points] or [0]
            if (got := sum(values) if adds else values[-1]) != amount:
                problems.append(f"{name} of {process}: {got}; expected {amount}")
            elif kind == "counters" and "exemplars" not in setup.cannot and not any(point.exemplars for point in points):
                problems.append(f"{name} of {process}: the exemplar is missing")
    if "spans" in handle.kinds:
        names = [span.name for span in received.spans]
        wanted = [setup.text(f"span of {process}") for process in _AMOUNTS]
        problems += [f"{name!r} arrived {names.count(name)} times" for name in wanted if names.count(name) != 1]
    return problems


def _listening() -> set[str]:
    """The listening sockets of this process, by inode; none where the system does not tell."""
    if not Path("/proc/self/fd").exists():
        return set()
    states = [
        *((fields[9], fields[3] == _LISTENS) for fields in _table("tcp")),
        *((fields[9], fields[3] == _LISTENS) for fields in _table("tcp6")),
        *((fields[6], bool(int(fields[3], 16) & 0x10000)) for fields in _table("unix")),  # __SO_ACCEPTCON
    ]
    listening = {inode for inode, listens in states if listens}
    mine: set[str] = set()
    for file in Path("/proc/self/fd").iterdir():
        try:
            target = str(file.readlink())
        except OSError:
            continue  # the folder itself
        mine.add(target.removeprefix("socket:[").removesuffix("]"))
    return mine & listening


def _table(protocol: str) -> list[list[str]]:
    path = Path("/proc/self/net") / protocol
    return [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []
