"""Delivers sample data to an exporter through the pipeline that core uses, with the values that a test chooses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec

from eventcore.exporting import CounterData, GaugeData, HistogramData, MetricData, Resource, RetryLater, SpanData
from eventcore.exporting.delivery import ExporterManager, ExporterReport, PipelineSettings, Report
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.registration import check_exporter
from eventcore.recording import Collection, Collector, IdGenerator, RateSampler, Span, Tracer
from eventcore.testing.exporters.watching import WatchedHandle

NAME: Final = "tested"
PATIENCE: Final = 10.0
"""Seconds that something may take that works: much more than it takes, also on a busy machine."""

RESOURCE: Final = Resource((("service.name", "contract"), ("service.instance.id", "contract-1"), ("shop.floor", "2 = top")))
"""What sends the sample data."""

# Short pauses, so that a test of a failure is short, too. Metrics are exported when a test asks.
_SETTINGS: Final = PipelineSettings(
    interval=3600.0, span_interval=3600.0, backoff=0.02, max_backoff=0.1, export_timeout=PATIENCE, cpu_budget=1.0
)


class SampleSource:
    """Takes the place of core's collector: gives the values that the test has set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: dict[str, MetricData] = {}

    def set(self, metrics: Iterable[MetricData]) -> None:
        """Set metrics, each in place of the one of its name."""
        with self._lock:
            self._metrics.update((data.name, data) for data in metrics)

    def collect(self, not_before: float, timeout: float) -> Collection:
        """The present values."""
        with self._lock:
            metrics = list(self._metrics.values())
        return Collection(
            time.time_ns(),
            tuple(data for data in metrics if isinstance(data, CounterData)),
            tuple(data for data in metrics if isinstance(data, GaugeData)),
            tuple(data for data in metrics if isinstance(data, HistogramData)),
        )


class _EndedSpan(msgspec.Struct, frozen=True):
    """What the pipeline takes for a span that has ended."""

    value: SpanData

    def data(self) -> SpanData:
        return self.value


class Delivery:
    """One exporter in a pipeline of core, with sample data.

    Args:
        exporter: the exporter under test; it is checked as ``register_exporter`` does.
        fail_start: whether the first start fails when the exporter's hook has returned.
        settings: changes of the pipeline's settings.

    Raises:
        InvalidExporter: the exporter does not fit the hook specification.
    """

    def __init__(self, exporter: object, *, fail_start: bool = False, **settings: Any) -> None:
        self.exporter = exporter
        self.hooks = WatchedHandle(check_exporter(exporter))
        if fail_start:
            self.hooks.fail_next("start", lambda: RetryLater(after=0.0, reason="it failed halfway"), after=True)
        self.source = SampleSource()
        self._manager = ExporterManager(Tracer(RateSampler(0), IdGenerator()), cast(Collector, self.source), RESOURCE)
        chosen = msgspec.structs.replace(_SETTINGS, **settings)
        if self.hooks.interval is None:
            chosen = msgspec.structs.replace(chosen, interval=None)
        self.offered: list[SpanData] = []
        self.pipeline: Pipeline = self._manager.add(NAME, cast(ExporterHandle, self.hooks), chosen, {})

    def wait_started(self, timeout: float = PATIENCE) -> bool:
        """Wait until the hook ``start`` has returned; whether it has."""
        return self.pipeline.started.wait(timeout)

    def record(self, *metrics: MetricData) -> None:
        """Set the values that the next cycle of metrics exports."""
        self.source.set(metrics)

    def end_spans(self, spans: Sequence[SpanData]) -> None:
        """Offer spans to the pipeline, as if they had just ended."""
        self.offered += spans
        self.pipeline.offer(cast(list[Span], [_EndedSpan(span) for span in spans]), 0)

    def flush(self, timeout: float = PATIENCE) -> ExporterReport:
        """Deliver everything, as ``Telemetry.flush`` does."""
        return self._only(self._manager.flush(timeout))

    def deliver_metrics(self, timeout: float = PATIENCE) -> bool:
        """Run one cycle of metrics, as a scrape does. Returns whether it was committed."""
        try:
            self.pipeline.export_now(timeout).result(timeout)
        except Exception:  # noqa: BLE001  # the report says why
            return False
        return True

    def replace(self, exporter: object) -> None:
        """Register another exporter under the same name, which replaces this one."""
        self.exporter = exporter
        self.hooks = WatchedHandle(check_exporter(exporter))
        self.pipeline = self._manager.add(NAME, cast(ExporterHandle, self.hooks), self.pipeline.settings, {})

    def shutdown(self, timeout: float = PATIENCE) -> ExporterReport:
        """Deliver everything and shut the exporter down, as ``Telemetry.shutdown`` does."""
        return self._only(self._manager.shutdown(timeout))

    def calls_of(self, hook: str) -> list[Any]:
        """The calls of a hook that have ended, oldest first."""
        return [call for call in self.hooks.calls if call.hook == hook]

    @staticmethod
    def _only(report: Report) -> ExporterReport:
        return report.exporters[0]


def wait_for(condition: Callable[[], Any], timeout: float = PATIENCE, pause: float = 0.01) -> Any:
    """Ask until the condition is true, or ``timeout`` seconds have passed; an exception counts as false. Returns the answer."""
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        try:
            answer = condition()
        except Exception:  # noqa: BLE001  # a receiver that is not up yet
            answer = None
        now = time.monotonic()
        if answer or now >= deadline:
            return answer
        # A condition that is expensive, such as reading a large page, is asked less often.
        time.sleep(max(pause, now - asked))


@contextmanager
def delivering(exporter: object, **settings: Any) -> Generator[Delivery]:
    """A ``Delivery`` that is shut down at the end."""
    delivery = Delivery(exporter, **settings)
    try:
        yield delivery
    finally:
        delivery.shutdown(2.0)
