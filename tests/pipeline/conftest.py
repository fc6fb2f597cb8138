"""Exporters of every temperament, driven through the real manager."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from eventcore.exporting import CounterData, Exporter, ExporterContext, Signal, SpanData, hookimpl
from eventcore.exporting.delivery import ExporterManager, Pipeline, PipelineSettings
from eventcore.exporting.registration import check_exporter
from eventcore.recording import Collector, IdGenerator, InstrumentRegistry, RateSampler, Resource, Tracer

FAST = PipelineSettings(span_interval=0.02, backoff=0.02, max_backoff=0.05, export_timeout=5.0)


def eventually(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Poll until the condition holds, and return what it gave."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true within {timeout} s")
        time.sleep(0.005)
    return answer


class Bench:
    """A tracer, a registry and a manager, as Telemetry binds them."""

    def __init__(self) -> None:
        self.tracer = Tracer(RateSampler("all"), IdGenerator())
        self.registry = InstrumentRegistry()
        self.manager = ExporterManager(self.tracer, Collector(self.registry), Resource((("service.name", "test"),)))

    def add(
        self, exporter: object, name: str = "exporter", settings: PipelineSettings = FAST, *, wait: bool = True
    ) -> Pipeline:
        pipeline = self.manager.add(name, check_exporter(exporter), settings, {})
        if wait:
            assert pipeline.started.wait(10)
        return pipeline

    def end_spans(self, count: int) -> None:
        for number in range(count):
            self.tracer.span(f"span {number}").end()

    def count(self, amount: int = 1) -> None:
        self.registry.counter("counted", unit="", description="", labels=()).add(amount)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.manager.shutdown(1.0)


class Collecting(Exporter):
    """Keeps what it is given; ``before`` runs at the beginning of every export hook."""

    interval: float | None = 3600.0

    def __init__(self, before: Callable[[], Any] = lambda: None) -> None:
        self.before = before
        self.counters: list[CounterData] = []
        self.spans: list[SpanData] = []
        self.calls: list[str] = []
        self.context: ExporterContext | None = None

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.context = context
        self.calls.append("start")

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Any:
        self.calls.append("export_counters")
        answer = self.before()
        self.counters.extend(counters)
        return answer

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> Any:
        self.calls.append("export_spans")
        answer = self.before()
        self.spans.extend(spans)
        return answer

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> None:
        self.calls.append("flush")

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        self.calls.append("shutdown")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Hooks wait for it; it opens at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()
