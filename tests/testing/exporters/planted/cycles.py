"""Faults with cycles: half ones, retries, unknown outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventcore.exporting import Secret, Signal, hookimpl
from tests.testing.exporters.line_exporter import LineExporter
from tests.testing.exporters.planted.table import planted


@planted("test_spans_arrive_once_after_half_a_cycle")
class KeepsWhatAFailedCycleHasLeft(LineExporter):
    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        pass


@planted("test_spans_arrive_once_after_a_cycle_that_failed_before")
class SkipsWhatItHasSeen(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.seen: set[int] = set()

    @hookimpl
    def export_spans(self, spans: Sequence[Any], timeout: float) -> None:
        super().export_spans([span for span in spans if span.context.span_id not in self.seen], timeout)
        self.seen.update(span.context.span_id for span in spans)


@planted("test_a_failed_cycle_of_metrics_is_not_delivered_by_one_of_spans")
class FlushesBothSignals(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        super().flush("metrics", timeout)
        super().flush("spans", timeout)


@planted("test_a_failed_cycle_of_spans_is_not_delivered_by_one_of_metrics")
class FlushesSpansWithMetrics(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        super().flush("spans", timeout)
        super().flush(signal, timeout)


@planted("test_after_an_unknown_outcome_no_span_arrives_more_than_twice")
class SendsARetryTwice(LineExporter):
    attempt = 1

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        super().begin(signal, attempt)
        self.attempt = attempt

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        super().send(content, timeout)
        if self.attempt > 1:
            super().send(content, timeout)
