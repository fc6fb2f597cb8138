"""The cost of recording one value, compared with prometheus_client and the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import prometheus_client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks.measuring import Effort, Series, calibrated, in_turns, of_statements
from benchmarks.receivers import CountingExporter, CountingSpanExporter
from benchmarks.results import Row, Table, Target
from eventcore.recording import SECONDS
from eventcore.telemetry import Telemetry

__all__ = ["SECONDS_RECORDED", "SPAN", "SPANS_AT_ONCE", "record_path", "spans"]

# Ten durations over the whole range of the boundaries: for some contenders the cost depends on the bucket of the value.
SECONDS_RECORDED: Final = (0.0002, 0.0007, 0.0012, 0.002, 0.003, 0.004, 0.006, 0.012, 0.03, 0.15)
# They fit into the smallest queue (2,048 spans, in the SDK), so that no span is dropped during a measurement.
SPANS_AT_ONCE: Final = 2000
SPAN: Final = 'with span("ship order") as current: current.set_attribute("order.kind", "express")'
_REPEATED: Final = 10
_EVENTCORE, _PROMETHEUS, _SDK, _SDK_ALONE = "eventcore", "prometheus_client", "OTel SDK", "OTel SDK without processor"


def record_path(effort: Effort) -> Table:
    """Counter, labelled counter, histogram and span, side by side."""
    rows = []
    with _metrics() as operations:
        for name, contenders in operations.items():
            rounds = in_turns(
                {who: calibrated(of_statements(*what), len(what[0]), effort.seconds) for who, what in contenders.items()},
                effort.rounds,
            )
            rows.append(_row(name, rounds))
    rows.append(_row("span with one attribute", _spans(effort)))
    return Table(
        "Record path: nanoseconds for one operation",
        (_EVENTCORE, _PROMETHEUS, "ratio", _SDK, "ratio", "SDK, no processor", "ratio"),
        tuple(rows),
        notes=(
            "Medians; a ratio is eventcore divided by the contender on its left, the median over the rounds. "
            "The garbage collector is on.",
            "bound add: a bound series, a bound child, and the SDK's add with a ready dict of two attributes (it "
            "has no bound series) and one reader. labelled add: label values (SDK: a dict of two attributes) "
            "given at each call. Two labels everywhere.",
            f"histogram: the same {len(SECONDS)} boundaries everywhere, ten values spread over them.",
            f"span: started, made current, given one attribute and ended; all are sampled. {SPANS_AT_ONCE} spans in a "
            "row, then a flush that is not counted. eventcore: one exporter with a running pipeline. SDK: a "
            "BatchSpanProcessor with an exporter that only counts, as in an application; the target compares with "
            "this. No processor: a provider that keeps no span.",
        ),
    )


@contextmanager
def _metrics() -> Iterator[Mapping[str, Mapping[str, tuple[list[str], dict[str, Any]]]]]:
    telemetry = Telemetry(config={}, exporters=[])
    telemetry.register_exporter(CountingExporter())
    counter = telemetry.counter("orders.shipped", labels=("country", "kind"))
    histogram = telemetry.histogram("order.duration", unit="s", labels=("country", "kind"), boundaries=SECONDS)

    registry = prometheus_client.CollectorRegistry()
    prometheus_counter = prometheus_client.Counter("orders_shipped", "-", ["country", "kind"], registry=registry)
    prometheus_histogram = prometheus_client.Histogram(
        "order_duration", "-", ["country", "kind"], registry=registry, buckets=SECONDS
    )

    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    meter = provider.get_meter("benchmark")
    sdk_counter = meter.create_counter("orders.shipped")
    sdk_histogram = meter.create_histogram("order.duration", explicit_bucket_boundaries_advisory=SECONDS)
    attributes = {"country": "FR", "kind": "express"}
    try:
        yield {
            "bound add": {
                _EVENTCORE: (["series.add(1)"] * _REPEATED, {"series": counter.labels("FR", "express")}),
                _PROMETHEUS: (["child.inc(1)"] * _REPEATED, {"child": prometheus_counter.labels("FR", "express")}),
                _SDK: (["counter.add(1, attributes)"] * _REPEATED, {"counter": sdk_counter, "attributes": attributes}),
            },
            "labelled add": {
                _EVENTCORE: (['counter.labels("FR", "express").add(1)'] * _REPEATED, {"counter": counter}),
                _PROMETHEUS: (['counter.labels("FR", "express").inc(1)'] * _REPEATED, {"counter": prometheus_counter}),
                _SDK: (['counter.add(1, {"country": "FR", "kind": "express"})'] * _REPEATED, {"counter": sdk_counter}),
            },
            "histogram record": {
                _EVENTCORE: (
                    [f"series.record({value})" for value in SECONDS_RECORDED],
                    {"series": histogram.labels("FR", "express")},
                ),
                _PROMETHEUS: (
                    [f"child.observe({value})" for value in SECONDS_RECORDED],
                    {"child": prometheus_histogram.labels("FR", "express")},
                ),
                _SDK: (
                    [f"histogram.record({value}, attributes)" for value in SECONDS_RECORDED],
                    {"histogram": sdk_histogram, "attributes": attributes},
                ),
            },
        }
    finally:
        telemetry.shutdown_blocking(5.0)
        provider.shutdown()


def _spans(effort: Effort) -> dict[str, Series]:
    telemetry, received = Telemetry(config={}, exporters=[], traces_per_second="all"), CountingExporter()
    telemetry.register_exporter(received)
    if not telemetry.flush_blocking(5.0):
        raise RuntimeError("the exporter did not start")
    provider, sdk_received = TracerProvider(shutdown_on_exit=False), CountingSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(sdk_received))
    bare = TracerProvider(shutdown_on_exit=False)
    begun = {
        name: spans(begin, flush, effort.seconds)
        for name, begin, flush in (
            (_EVENTCORE, telemetry.span, lambda: telemetry.flush_blocking(5.0)),
            (_SDK, provider.get_tracer("benchmark").start_as_current_span, provider.force_flush),
            (_SDK_ALONE, bare.get_tracer("benchmark").start_as_current_span, bare.force_flush),
        )
    }
    try:
        measured = in_turns({name: run for name, (run, _) in begun.items()}, effort.rounds)
        for name, arrived in ((_EVENTCORE, received.spans), (_SDK, sdk_received.spans)):
            if (recorded := begun[name][1]()) != arrived:
                raise RuntimeError(f"{name}: only {arrived} of {recorded} spans arrived, so the measurement is invalid")
        return measured
    finally:
        telemetry.shutdown_blocking(5.0)
        provider.shutdown()
        bare.shutdown()


def spans(
    begin: Callable[..., Any], flush: Callable[[], object], seconds: float
) -> tuple[Callable[[], float], Callable[[], int]]:
    """One round of spans that takes about ``seconds``; the number of spans is the second result. ``flush`` is not timed."""
    run = of_statements([SPAN] * _REPEATED, {"span": begin})
    recorded = 0

    def once() -> float:
        nonlocal recorded
        each = run(SPANS_AT_ONCE // _REPEATED)
        recorded += SPANS_AT_ONCE
        flush()
        return each

    bursts = max(3, round(seconds / (min(once(), once()) * SPANS_AT_ONCE)))
    return lambda: sum(once() for _ in range(bursts)) / bursts, lambda: recorded


_TARGETS: Final[dict[str, dict[str, float]]] = {
    "bound add": {_PROMETHEUS: 0.35, _SDK: 0.06},
    "histogram record": {_PROMETHEUS: 0.4},
    "span with one attribute": {_SDK: 0.1},
}


def _row(name: str, measured: Mapping[str, Series]) -> Row:
    ours = measured[_EVENTCORE]

    def figures(who: str) -> tuple[str, str]:
        theirs = measured.get(who)
        return (_ns(theirs), f"{ours.ratio(theirs):.3f}") if theirs else ("–", "–")

    prometheus, to_prometheus = figures(_PROMETHEUS)
    sdk, to_sdk = figures(_SDK)
    alone, to_alone = figures(_SDK_ALONE)
    targets = tuple(
        Target(f"ratio to {who}", ours.ratio(measured[who]), bound) for who, bound in _TARGETS.get(name, {}).items()
    )
    cells = (_ns(ours), prometheus, to_prometheus, sdk, to_sdk, alone, to_alone)
    return Row(name, cells, {who: series.median for who, series in measured.items()}, targets)


def _ns(series: Series) -> str:
    return f"{series.median * 1e9:,.0f} ± {series.spread:.0%}"
