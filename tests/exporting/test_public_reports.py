"""Faults of other plugin hosts and telemetry SDKs, as their public trackers report them. Each must not happen here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from eventcore.exporting import RetryLater, SpanData, hookimpl
from eventcore.telemetry import Telemetry

# A store with the plugin `journal`, in a process of its own.
STORE = """
import asyncio
from eventcore import open_store

async def main():
    async with open_store("memory:") as store:
        print(*(exporter.name for exporter in store.telemetry.exporters() if exporter.state == "running"))

asyncio.run(main())
"""

# A process whose backend never answers, and which ends without a shutdown.
NEVER_ANSWERS = """
import threading
from eventcore.exporting import hookimpl
from eventcore.telemetry import Telemetry

called = threading.Event()

class Silent:
    @hookimpl
    def export_spans(self, spans):
        called.set()
        threading.Event().wait()

telemetry = Telemetry(exporters="none", traces_per_second="all")
telemetry.register_exporter(Silent(), name="silent")
with telemetry.span("work"):
    pass
assert called.wait(10)
print("done", flush=True)
"""


class Backend:
    """An exporter that keeps its spans; ``before`` runs at the beginning of every export."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.spans: list[SpanData] = []
        self._before = before

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        self._before()
        self.spans += spans


class FailsOnce(Backend):
    """It refuses the first batch, and tells when."""

    def __init__(self) -> None:
        super().__init__(self._refuse)
        self.refused = threading.Event()

    def _refuse(self) -> None:
        if not self.refused.is_set():
            self.refused.set()
            raise RetryLater(None, "504 Gateway Timeout")


@pytest.fixture
def start() -> Iterator[Callable[[object], Telemetry]]:
    started: list[Telemetry] = []

    def begin(exporter: object) -> Telemetry:
        # Each pause between two attempts lasts longer than the test.
        pipeline = {"span_interval": 0.02, "backoff": 60.0, "max_backoff": 60.0}
        telemetry = Telemetry(config={"exporters": {"backend": {"pipeline": pipeline}}}, exporters=[], traces_per_second="all")
        telemetry.register_exporter(exporter, name="backend")
        started.append(telemetry)
        return telemetry

    yield begin
    for telemetry in started:
        telemetry.shutdown_blocking(1.0)


def the_span(telemetry: Telemetry, backend: Backend) -> SpanData:
    assert telemetry.flush_blocking(10)
    (span,) = backend.spans
    return span


def test_closing_a_generator_inside_a_span_is_no_error(start: Callable[[object], Telemetry]) -> None:
    """open-telemetry/opentelemetry-python#4484: ``GeneratorExit`` made the span an error.

    ``tests/recording/test_spans.py`` has the whole kind.
    """
    telemetry = start(backend := Backend())

    def rows() -> Iterator[int]:
        with telemetry.span("read rows"):
            yield 1
            yield 2

    reading = rows()
    next(reading)
    reading.close()  # type: ignore[attr-defined]  # it is a generator
    span = the_span(telemetry, backend)
    assert (span.status, span.events) == ("unset", ())


def test_a_successful_exit_inside_a_span_is_no_error(start: Callable[[object], Telemetry]) -> None:
    """open-telemetry/opentelemetry-python#4493: ``sys.exit(0)`` made the span an error."""
    telemetry = start(backend := Backend())
    with pytest.raises(SystemExit), telemetry.span("main"):
        sys.exit(0)
    span = the_span(telemetry, backend)
    assert (span.status, span.events) == ("unset", ())


def test_an_exception_without_a_text_reaches_the_caller_and_the_span_is_sent(start: Callable[[object], Telemetry]) -> None:
    """DataDog/dd-trace-py#12307: a span was never sent when the ``__str__`` of the exception raised."""

    class Untold(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    telemetry = start(backend := Backend())
    with pytest.raises(Untold), telemetry.span("fails"):
        raise Untold
    span = the_span(telemetry, backend)
    assert span.status == "error"
    assert "Untold" in span.status_description


def test_a_recorded_exception_has_its_own_stack_trace(start: Callable[[object], Telemetry]) -> None:
    """open-telemetry/opentelemetry-python#3762: the trace of the exception that is being handled was recorded in its place."""

    def fails_first() -> None:
        raise ValueError("first")

    telemetry = start(backend := Backend())
    with pytest.raises(ValueError, match="first") as first:
        fails_first()
    with telemetry.span("retry") as span:
        try:
            raise TypeError("second")
        except TypeError:
            span.record_exception(first.value)
        span.record_exception(first.value)
    for event in the_span(telemetry, backend).events:
        attributes = dict(event.attributes)
        stack_trace = str(attributes["exception.stacktrace"])
        assert attributes["exception.type"] == "ValueError"
        assert "in fails_first" in stack_trace
        assert "second" not in stack_trace


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        pytest.param(b"", "missing or empty", id="saulpw/visidata#1529"),
        pytest.param(
            "Metadata-Version: 2.1\nName: legacy\nVersion: 1.0\nAuthor: Jos\u00e9\n".encode("latin-1"),
            "not UTF-8",
            id="open-telemetry/opentelemetry-packaging#116",
        ),
    ],
)
def test_the_metadata_of_an_unrelated_distribution_stops_no_plugin_and_is_named(
    plugin_site: Callable[[str], Path], tmp_path: Path, metadata: bytes, problem: str
) -> None:
    """Two reports: metadata without a name, and metadata in Latin-1. Both hosts found no plugin and named no file.

    saulpw/visidata#1529 and open-telemetry/opentelemetry-packaging#116. ``test_damaged_distributions.py`` has all kinds of
    damage.
    """
    damaged = tmp_path / "legacy-1.0.dist-info"
    damaged.mkdir()
    (damaged / "METADATA").write_bytes(metadata)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "OTEL_"))}
    path = os.pathsep.join([str(tmp_path), str(plugin_site("journal")), *filter(None, sys.path)])

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": path, "EVENTCORE_EXPORTERS": "journal"},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", STORE) == "journal\n"
    (line,) = [line for line in run("-m", "eventcore", "plugins").splitlines() if str(damaged / "METADATA") in line]
    assert problem in line


@pytest.mark.timing
def test_shutdown_interrupts_the_pause_before_a_retry_and_delivers(start: Callable[[object], Telemetry]) -> None:
    """openai/openai-agents-python#3354: a shutdown waited its whole timeout for an exporter that paused before a retry."""
    telemetry = start(backend := FailsOnce())
    with telemetry.span("work"):
        pass
    assert backend.refused.wait(10)
    begun = time.monotonic()
    report = telemetry.shutdown_blocking(10)
    assert time.monotonic() - begun < 5
    assert report
    assert [span.name for span in backend.spans] == ["work"]


def test_shutdown_delivers_the_spans_that_are_on_their_way(start: Callable[[object], Telemetry]) -> None:
    """open-telemetry/opentelemetry-java#6160: a shutdown cancelled the call in flight, and dropped all spans of the queue."""
    in_a_call, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        in_a_call.set()
        assert go_on.wait(10)

    telemetry = start(backend := Backend(wait))
    with telemetry.span("in flight"):
        pass
    assert in_a_call.wait(10)
    with telemetry.span("queued"):
        pass
    threading.Timer(0.3, go_on.set).start()
    report = telemetry.shutdown_blocking(10)
    assert [span.name for span in backend.spans] == ["in flight", "queued"]
    assert (report.delivered, report["backend"].spans_exported, sum(report["backend"].spans_dropped.values())) == (True, 2, 0)


@pytest.mark.timing
def test_a_process_ends_although_its_backend_never_answers() -> None:
    """open-telemetry/opentelemetry-python#2284: a process never ended: the shutdown at its end waited for the exporter."""
    process = subprocess.Popen([sys.executable, "-c", NEVER_ANSWERS], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        begun = time.monotonic()
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert time.monotonic() - begun < 10


def test_spans_that_end_after_the_shutdown_are_not_sent_and_counted(start: Callable[[object], Telemetry]) -> None:
    """open-telemetry/opentelemetry-python#5512: they were passed to the exporter that was shut down, or dropped uncounted."""
    telemetry = start(backend := Backend())
    late = telemetry.span("late")
    with telemetry.span("in time"):
        pass
    assert telemetry.shutdown_blocking(10)
    late.end()
    part = telemetry.shutdown_blocking(10)["backend"]
    assert [span.name for span in backend.spans] == ["in time"]
    assert (part.spans_recorded, part.spans_exported, part.spans_dropped["shutdown"], part.spans_pending) == (2, 1, 1, 0)
