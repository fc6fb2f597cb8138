"""What encoding for OTLP takes: eventcore-otel's encoder, protobuf's own objects, and the encoder of OpenTelemetry's SDK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from benchmarks.measuring import Effort, Series, calibrated, in_turns, of_statements
from benchmarks.results import Row, Table, Target
from eventcore.exporting import (
    CounterData,
    HistogramData,
    HistogramPoint,
    MetricData,
    NumberPoint,
    SpanData,
    TraceContext,
)
from eventcore_otel.encoding import Encoder
from eventcore_otel.sdk.translation import Translator
from tests.otel import reference

__all__ = ["otlp_encoding"]

_ITEMS: Final = 200
_START: Final = 1_700_000_000_000_000_001
_NOW: Final = _START + 60_000_000_000
_RESOURCE: Final = (("service.name", "shop"), ("service.instance.id", "i-1"))
_SHARES: Final = {"protobuf": 0.5, "SDK": 0.2}
"""The most of their time that eventcore's encoder may take."""
_BOUNDS: Final = tuple(0.0001 * 2**n for n in range(15))


def otlp_encoding(effort: Effort) -> Table:
    """Spans as a command has them, and points as the catalogue has them: microseconds for one."""
    spans = [_span(number) for number in range(_ITEMS)]
    labels = [
        (("command.type", f"Command{number}"), ("outcome", "committed"), ("store", "default")) for number in range(_ITEMS)
    ]
    numbers = CounterData("commands", "{command}", "", (), tuple(NumberPoint(each, 5, _START, _NOW) for each in labels))
    buckets = tuple(range(16))
    histograms = HistogramData(
        "durations",
        "s",
        "",
        (),
        _BOUNDS,
        tuple(HistogramPoint(each, 120, 7.5, 0.1, 5.0, buckets, _START, _NOW) for each in labels),
    )
    rows: list[Row] = []
    for name, contenders in (
        ("span", _of_spans(spans)),
        ("number", _of_metrics(numbers)),
        ("histogram", _of_metrics(histograms)),
    ):
        measured = in_turns({each: _timed(run, effort) for each, run in contenders.items()}, effort.rounds)
        rows += [_row(name, each, series, measured["eventcore"]) for each, series in measured.items()]
    return Table(
        "Encoding for OTLP",
        ("one item", "ratio to eventcore"),
        tuple(rows),
        notes=(
            f"{_ITEMS} items in one chunk; a span has five attributes and a correlation id of its own, a histogram 16 buckets. "
            "protobuf: messages made of dictionaries, and serialized, as before. SDK: its encoder and serialization, of data "
            "classes that exist already; SDK with data classes: also making these of eventcore's values.",
        ),
    )


def _span(number: int) -> SpanData:
    attributes = (
        ("eventcore.command.type", "TransferMoney"),
        ("eventcore.command.attempts", 1),
        ("eventcore.command.outcome", "committed"),
        ("eventcore.streams", 2),
        ("eventcore.events", 2),
    )
    context = TraceContext(0xABC0_0000_0000_0001_0000_0000_0000_0000 + number, number + 1, 1)
    return SpanData("execute TransferMoney", "internal", context, 7, _START, _NOW, attributes, correlation_id=f"{number:032x}")


def _of_spans(spans: Sequence[SpanData]) -> dict[str, Callable[[], object]]:
    encoder, translator = Encoder(), Translator(_RESOURCE)
    translated = [translator.span(span) for span in spans]
    return {
        "eventcore": lambda: encoder.spans(spans),
        "protobuf": lambda: reference.trace_request(_RESOURCE, spans).SerializeToString(),
        "SDK": lambda: encode_spans(translated).SerializeToString(),
        "SDK with data classes": lambda: encode_spans([translator.span(span) for span in spans]).SerializeToString(),
    }


def _of_metrics(data: CounterData | HistogramData) -> dict[str, Callable[[], object]]:
    encoder, translator = Encoder(), Translator(_RESOURCE)
    metrics: list[MetricData] = [data]
    translated = translator.metrics(translator.gather(metrics))

    def ours() -> object:
        encoder.begin_metrics()
        return encoder.counters([data]) if isinstance(data, CounterData) else encoder.histograms([data])

    return {
        "eventcore": ours,
        "protobuf": lambda: reference.metrics_request(_RESOURCE, metrics).SerializeToString(),
        "SDK": lambda: encode_metrics(translated).SerializeToString(),
        "SDK with data classes": lambda: encode_metrics(translator.metrics(translator.gather(metrics))).SerializeToString(),
    }


def _timed(run: Callable[[], object], effort: Effort) -> Callable[[], float]:
    timed = calibrated(of_statements(["run()"], {"run": run}), 1, effort.seconds)
    return lambda: timed() / _ITEMS


def _row(item: str, contender: str, series: Series, ours: Series) -> Row:
    targets = (Target("eventcore's share", ours.ratio(series), _SHARES[contender]),) if contender in _SHARES else ()
    cells = (f"{series.median * 1e6:.2f} µs ± {series.spread:.0%}", "–" if series is ours else f"{series.ratio(ours):.1f}")
    return Row(f"{item}, {contender}", cells, {"seconds": series.median}, targets)
