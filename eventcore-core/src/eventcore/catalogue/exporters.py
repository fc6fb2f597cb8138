"""Metrics of exporters: pipelines count in plain numbers and callbacks show them, so nothing below imports the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

from eventcore.catalogue.metrics import ExporterMetrics
from eventcore.exporting.delivery.report import ExporterState
from eventcore.recording import Instrument
from eventcore.telemetry import AbsentExporter, Telemetry

if TYPE_CHECKING:
    from eventcore.exporting.delivery.pipeline import Pipeline

_Values: TypeAlias = "Iterator[tuple[tuple[str, ...], Any]]"
_Exporter: TypeAlias = "Pipeline | AbsentExporter"
_STATES: Final[tuple[str, ...]] = get_args(ExporterState)


def observe_exporters(telemetry: Telemetry) -> None:
    """Show the ``exporters.*``, ``traces.unsampled`` and ``series.overflow`` metrics for as long as ``telemetry`` lives.

    They belong to the telemetry and not to a store, so stores that share a telemetry show them once.
    """
    metrics = ExporterMetrics(telemetry)
    if metrics.state.callbacks():
        return
    observed: list[tuple[Instrument[Any], Callable[[_Exporter], _Values]]] = [
        (metrics.state, _state),
        (metrics.spans, _spans),
        (metrics.spans_pending, _pending),
        (metrics.cycles, _cycles),
        (metrics.cycle_duration, _cycle_durations),
        (metrics.cpu_time, _cpu_time),
        (metrics.instruments_hidden, _instruments_hidden),
        (metrics.last_success_age, _last_success_age),
    ]
    for instrument, values in observed:
        instrument.add_callback(_of_all(telemetry, values))
    metrics.traces_unsampled.add_callback(lambda: telemetry.unsampled_traces)
    metrics.series_overflow.add_callback(
        lambda: {(instrument,): count for instrument, count in telemetry.series_overflow().items()}
    )


def _of_all(telemetry: Telemetry, values: Callable[[_Exporter], _Values]) -> Callable[[], Mapping[tuple[str, ...], Any]]:
    return lambda: dict(item for pipeline in telemetry.exporters() for item in values(pipeline))


def _state(pipeline: _Exporter) -> _Values:
    current = pipeline.state
    for state in _STATES:
        yield (pipeline.name, state), int(state == current)


def _spans(pipeline: _Exporter) -> _Values:
    if (spans := pipeline.stats().spans) is not None:
        yield (pipeline.name, "recorded", ""), spans.recorded
        yield (pipeline.name, "exported", ""), spans.exported
        yield (pipeline.name, "unknown", ""), spans.unknown
        for reason, count in spans.dropped.items():
            yield (pipeline.name, "dropped", reason), count


def _pending(pipeline: _Exporter) -> _Values:
    if (spans := pipeline.stats().spans) is not None:
        yield (pipeline.name,), spans.pending


def _cycles(pipeline: _Exporter) -> _Values:
    for signal, cycles in pipeline.stats().cycles.items():
        for outcome, count in cycles.counts.items():
            yield (pipeline.name, signal, outcome), count


def _cycle_durations(pipeline: _Exporter) -> _Values:
    for signal, cycles in pipeline.stats().cycles.items():
        for outcome, cell in cycles.durations.items():
            yield (pipeline.name, signal, outcome), cell


def _cpu_time(pipeline: _Exporter) -> _Values:
    yield (pipeline.name,), pipeline.stats().cpu_seconds


def _instruments_hidden(pipeline: _Exporter) -> _Values:
    if not isinstance(pipeline, AbsentExporter):
        for reason, count in pipeline.hidden_instruments.counts().items():
            yield (pipeline.name, reason), count


def _last_success_age(pipeline: _Exporter) -> _Values:
    for signal, cycles in pipeline.stats().cycles.items():
        yield (pipeline.name, signal), cycles.last_success_age()
