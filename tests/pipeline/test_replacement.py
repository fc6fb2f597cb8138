"""An exporter that is registered under a name in use takes over what the one before it has not delivered."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest

from eventcore import Telemetry
from eventcore.exporting import CounterData, ExporterContext, Rejected, hookimpl
from eventcore.exporting.delivery import Pipeline
from tests.pipeline.conftest import FAST, Bench, Collecting, eventually


def account(pipeline: Pipeline) -> dict[str, int]:
    counts = pipeline.queue.counts()
    assert counts.recorded == counts.exported + sum(counts.dropped.values()) + counts.unknown + counts.pending
    unknown = {"unknown": counts.unknown} if counts.unknown else {}
    return {"exported": counts.exported, "pending": counts.pending} | unknown | {k: v for k, v in counts.dropped.items() if v}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Successors wait a moment only for the exporter that they replace."""
    monkeypatch.setattr("eventcore.exporting.delivery.worker._PREDECESSOR_LIMIT", 0.2)


class Hanging(Collecting):
    """Hangs in its first export of spans until the gate opens, and answers then as if all had been delivered."""

    def __init__(self, gate: threading.Event, answer: Any = None) -> None:
        super().__init__(lambda: gate.wait(30) and answer)


class Listening(Collecting):
    """Holds a port from start to shutdown."""

    taken: threading.Lock

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        if not self.taken.acquire(blocking=False):
            raise OSError("port 9464 is taken")

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        time.sleep(0.05)
        self.taken.release()


class Other(Collecting):
    pass


@pytest.mark.parametrize(("name", "records"), [(None, 1), ("second", 0)])
async def test_a_second_exporter_of_the_same_name_is_one_record_that_names_both(
    caplog: pytest.LogCaptureFixture, name: str | None, records: int
) -> None:
    async with Telemetry(exporters="none", config={}) as telemetry:
        first = Collecting()
        telemetry.register_exporter(first, name="page")
        telemetry.register_exporter(first, name="page")
        telemetry.register_exporter(Other(), name=name or "page")
    replaced = [record for record in caplog.records if "replaces" in record.getMessage()]
    assert [(record.name, record.levelname) for record in replaced] == [("eventcore.exporters.page", "WARNING")] * records
    for record in replaced:
        assert record.getMessage() == (
            f"{__name__}.Other, registered now, replaces {Collecting.__module__}.Collecting, which is shut down; "
            "to keep both, give one of them a name="
        )


async def test_replacing_the_exporter_of_the_configuration_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "eventcore.exporters")
    async with Telemetry(exporters=["console"], config={"exporters": {"console": {"interval": 3600}}}) as telemetry:
        telemetry.register_exporter(Collecting(), name="console")
    [record] = [record for record in caplog.records if "replaces" in record.getMessage()]
    assert record.levelname == "INFO"
    assert "ConsoleExporter of the configuration" in record.getMessage()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answer", [None, Rejected(3, "too late")])
def test_the_late_answer_of_an_exporter_stuck_in_a_hook_changes_nothing(
    bench: Bench, gate: threading.Event, answer: Rejected | None
) -> None:
    stuck = Hanging(gate, answer)
    old = bench.add(stuck, "replaced")
    bench.end_spans(3)
    eventually(lambda: old.in_flight == 3)
    new = Collecting()
    pipeline = bench.add(new, "replaced")
    bench.end_spans(2)
    assert bench.manager.flush(5.0)["replaced"].delivered
    assert len(new.spans) == 5
    assert account(pipeline) == {"exported": 5, "pending": 0}
    gate.set()
    eventually(old.finished.is_set)
    assert account(pipeline) == {"exported": 5, "pending": 0}
    assert stuck.calls.count("export_spans") == 1
    report = bench.manager.shutdown(5.0)["replaced"]
    assert report.delivered
    assert (report.spans_recorded, report.spans_exported, report.spans_unknown) == (5, 5, 0)


@pytest.mark.usefixtures("impatient")
def test_a_late_answer_while_the_successor_has_the_spans_in_flight_commits_none_of_them(
    bench: Bench, gate: threading.Event
) -> None:
    old = bench.add(Hanging(gate), "replaced")
    bench.end_spans(3)
    eventually(lambda: old.in_flight)
    second_gate = threading.Event()
    new = Hanging(second_gate)
    pipeline = bench.add(new, "replaced")
    eventually(lambda: pipeline.in_flight == 3)
    gate.set()
    eventually(old.finished.is_set)
    assert account(pipeline) == {"exported": 0, "pending": 3}
    assert (old.in_flight, pipeline.in_flight) == (0, 3)
    second_gate.set()
    assert bench.manager.flush(5.0)
    assert account(pipeline) == {"exported": 3, "pending": 0}


@pytest.mark.usefixtures("impatient")
def test_three_in_a_row_behind_one_that_hangs_deliver_everything_once(bench: Bench, gate: threading.Event) -> None:
    first = bench.add(Hanging(gate), "replaced")
    bench.end_spans(3)
    eventually(lambda: first.in_flight)
    skipped = Collecting()
    second = bench.add(skipped, "replaced", wait=False)
    bench.end_spans(3)
    last = Collecting()
    third = bench.add(last, "replaced", wait=False)
    bench.end_spans(3)
    report = bench.manager.flush(10.0)["replaced"]
    assert report.delivered
    assert (report.spans_recorded, report.spans_exported) == (9, 9)
    gate.set()
    eventually(first.finished.is_set)
    eventually(second.finished.is_set)
    assert skipped.calls == []
    assert len(last.spans) == 9
    assert account(third) == account(first) == {"exported": 9, "pending": 0}


def test_in_a_chain_each_exporter_releases_its_port_before_the_next_one_starts(bench: Bench) -> None:
    Listening.taken = threading.Lock()
    exporters = [Listening() for _ in range(4)]
    pipelines = []
    for exporter in exporters:
        pipelines.append(bench.add(exporter, "listening", wait=False))
        bench.end_spans(5)
    assert pipelines[-1].started.wait(10)
    assert bench.manager.flush(5.0)["listening"].spans_exported == 20
    assert sum(len(exporter.spans) for exporter in exporters) == 20
    # A start that found the port taken would have been tried again and logged.
    assert not any(pipeline.status.start_error for pipeline in pipelines)
    assert bench.manager.shutdown(5.0)
    assert Listening.taken.acquire(blocking=False)


def test_spans_that_end_after_the_replacement_go_to_the_successor_alone(bench: Bench, gate: threading.Event) -> None:
    first_call = threading.Event()

    def wait() -> None:
        first_call.set()
        gate.wait(30)

    old = Collecting(wait)
    bench.add(old, "replaced", msgspec.structs.replace(FAST, span_batch=1))
    bench.end_spans(3)
    assert first_call.wait(10)
    new = Collecting()
    bench.add(new, "replaced", wait=False)
    bench.end_spans(4)
    bench.manager._distributor.distribute()
    gate.set()
    assert bench.manager.flush(10.0)
    assert [span.name for span in old.spans] == ["span 0", "span 1", "span 2"]
    assert [span.name for span in new.spans] == ["span 0", "span 1", "span 2", "span 3"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("capacity", "kept"), [(2, 2), (5, 5), (100, 10)])
def test_a_successor_of_another_capacity_accounts_for_what_it_cannot_take(
    bench: Bench, gate: threading.Event, capacity: int, kept: int
) -> None:
    settings = msgspec.structs.replace(FAST, span_queue=10)
    old = bench.add(Hanging(gate), "replaced", settings)
    bench.end_spans(10)
    eventually(lambda: old.in_flight)
    new = Collecting()
    pipeline = bench.add(new, "replaced", msgspec.structs.replace(FAST, span_queue=capacity))
    assert bench.manager.flush(5.0)["replaced"].delivered
    assert [span.name for span in new.spans] == [f"span {number}" for number in range(kept)]
    # The predecessor may have delivered those that the successor has no room for.
    expected = {"exported": kept, "pending": 0} | ({"unknown": 10 - kept} if kept < 10 else {})
    assert account(pipeline) == expected


class CountersOnly:
    interval = 3600.0

    def __init__(self) -> None:
        self.counters: list[CounterData] = []

    @hookimpl
    def export_counters(self, counters: list[CounterData]) -> None:
        self.counters += counters


@pytest.mark.usefixtures("impatient")
def test_a_successor_that_takes_no_spans_accounts_for_what_it_inherited_when_it_stops(
    bench: Bench, gate: threading.Event
) -> None:
    old = bench.add(Hanging(gate), "replaced")
    bench.end_spans(3)
    eventually(lambda: old.in_flight)
    pipeline = bench.add(CountersOnly(), "replaced")
    bench.end_spans(5)
    report = bench.manager.flush(5.0)["replaced"]
    assert (report.spans_recorded, report.spans_pending) == (3, 3)
    assert pipeline.stats().spans is None
    final = bench.manager.shutdown(5.0)["replaced"]
    assert not final.delivered
    assert (final.spans_recorded, final.spans_unknown, final.spans_pending) == (3, 3, 0)
    gate.set()
    eventually(old.finished.is_set)
    assert account(pipeline) == {"exported": 0, "unknown": 3, "pending": 0}


def test_a_successor_of_an_exporter_that_took_no_spans_takes_all_that_end_from_now_on(bench: Bench) -> None:
    bench.add(CountersOnly(), "replaced")
    bench.end_spans(3)
    bench.manager.flush(5.0)
    new = Collecting()
    pipeline = bench.add(new, "replaced")
    bench.end_spans(2)
    assert bench.manager.flush(5.0)["replaced"].delivered
    assert len(new.spans) == 2
    assert account(pipeline) == {"exported": 2, "pending": 0}


def test_shutdown_while_the_predecessor_still_hangs_counts_what_it_holds_as_unknown(
    bench: Bench, gate: threading.Event
) -> None:
    old = bench.add(Hanging(gate), "replaced")
    bench.end_spans(3)
    eventually(lambda: old.in_flight)
    bench.add(Collecting(), "replaced", wait=False)
    bench.end_spans(2)
    begun = time.monotonic()
    report = bench.manager.shutdown(0.4)["replaced"]
    assert time.monotonic() - begun < 0.7
    assert not report.delivered
    assert (report.spans_recorded, report.spans_unknown, report.spans_dropped["shutdown"], report.spans_pending) == (5, 3, 2, 0)
    gate.set()
    eventually(old.finished.is_set)
    assert account(old) == {"exported": 0, "unknown": 3, "shutdown": 2, "pending": 0}


def test_removing_a_successor_before_it_started_delivers_or_accounts_for_all_spans(bench: Bench, gate: threading.Event) -> None:
    old = bench.add(Hanging(gate), "replaced")
    bench.end_spans(3)
    eventually(lambda: old.in_flight)
    pipeline = bench.add(Collecting(), "replaced", wait=False)
    bench.end_spans(2)
    report = bench.manager.remove("replaced", 0.3)
    assert not report.delivered
    assert (report.spans_unknown, report.spans_dropped["shutdown"]) == (3, 2)
    gate.set()
    eventually(old.finished.is_set)
    assert account(pipeline) == {"exported": 0, "unknown": 3, "shutdown": 2, "pending": 0}
