"""Which metrics one exporter gets, and with which labels: settings of its pipeline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from eventcore.exporting import CounterData, Exporter, GaugeData, HistogramData, hookimpl
from eventcore.exporting.delivery import PipelineSettings
from eventcore.exporting.hidden import HiddenInstruments
from eventcore.exporting.shaping import Shape
from eventcore.recording.values import HistogramPoint, Labels, NumberPoint
from tests.pipeline.conftest import FAST, Bench


class Keeping(Exporter):
    interval: float | None = 3600.0

    def __init__(self) -> None:
        self.points: dict[str, dict[Labels, Any]] = {}
        self.spans = 0

    def _keep(self, metrics: Sequence[Any]) -> None:
        for data in metrics:
            self.points.setdefault(data.name, {}).update({point.labels: point for point in data.points})

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        self._keep(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> None:
        self._keep(gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:
        self._keep(histograms)

    @hookimpl
    def export_spans(self, spans: Any, timeout: float) -> None:
        self.spans += len(spans)


def exported(bench: Bench, **settings: Any) -> Keeping:
    exporter = Keeping()
    bench.add(exporter, settings=msgspec.structs.replace(FAST, **settings))
    assert bench.manager.flush(5.0)
    return exporter


def count(bench: Bench, name: str, amount: int = 1, **labels: str) -> None:
    bench.registry.counter(name, unit="", description="", labels=tuple(labels)).labels(*labels.values()).add(amount)


def test_instruments_are_included_and_excluded_by_pattern(bench: Bench) -> None:
    for name in ("shop.orders", "shop.orders.failed", "shop.users", "cache.hits"):
        count(bench, name)
    assert set(exported(bench, include=("shop.*",), exclude=("*.failed",)).points) == {"shop.orders", "shop.users"}
    (pipeline,) = bench.manager.pipelines()
    assert pipeline.hidden_instruments.counts()["filtered"] == 2
    assert pipeline.hidden == {}


def test_a_signal_can_be_left_out(bench: Bench) -> None:
    count(bench, "orders")
    exporter = Keeping()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, signals=("metrics",)))
    bench.end_spans(3)
    assert bench.manager.flush(5.0)
    assert (set(exporter.points), exporter.spans) == ({"orders"}, 0)
    assert pipeline.stats().spans is None
    assert not bench.tracer.span("x").recording


def test_an_exporter_says_which_signals_it_can_take(bench: Bench) -> None:
    class MetricsOnly(Keeping):
        signals = ("metrics",)

    assert bench.add(MetricsOnly()).stats().spans is None


def test_the_points_that_differ_only_in_a_dropped_label_are_merged(bench: Bench) -> None:
    for country, city, amount in (("FR", "Paris", 1), ("FR", "Lyon", 2), ("DE", "Bonn", 4)):
        count(bench, "orders", amount, country=country, city=city)
        histogram = bench.registry.histogram("wait", unit="s", description="", labels=("city",), boundaries=(1.0, 10.0))
        histogram.labels(city).record(amount)
        level = bench.registry.up_down_counter("level", unit="", description="", labels=("city",))
        level.labels(city).add(amount)
    found = exported(bench, drop_labels=("city",)).points
    assert {labels: point.value for labels, point in found["orders"].items()} == {
        (("country", "FR"),): 3,
        (("country", "DE"),): 4,
    }
    (wait,) = found["wait"].values()
    assert (wait.count, wait.sum, wait.min, wait.max, wait.buckets) == (3, 7.0, 1, 4, (1, 2, 0))
    assert {labels: point.value for labels, point in found["level"].items()} == {(): 7}


def test_a_gauge_that_has_no_sum_keeps_its_labels_and_the_exporter_says_so(bench: Bench) -> None:
    gauge = bench.registry.gauge("temperature", unit="Cel", description="", labels=("city",))
    gauge.labels("Paris").set(20)
    gauge.labels("Lyon").set(24)
    found = exported(bench, drop_labels=("city",)).points["temperature"]
    assert {labels: point.value for labels, point in found.items()} == {(("city", "Paris"),): 20, (("city", "Lyon"),): 24}
    (pipeline,) = bench.manager.pipelines()
    assert "cannot be merged" in pipeline.hidden["temperature"]


def test_constant_labels_come_last_and_hide_no_label_of_the_instrument(bench: Bench) -> None:
    count(bench, "orders", country="FR")
    found = exported(bench, labels={"region": "eu", "country": "all"}).points["orders"]
    assert list(found) == [(("country", "FR"), ("region", "eu"))]


def test_differences_are_merged_too(bench: Bench) -> None:
    class Delta(Keeping):
        temporality = "delta"

    exporter = Delta()
    bench.add(exporter, settings=msgspec.structs.replace(FAST, drop_labels=("city",)))
    for amounts in ((1, 2), (3, 4)):
        for city, amount in zip(("Paris", "Lyon"), amounts, strict=True):
            count(bench, "orders", amount, city=city)
        assert bench.manager.flush(5.0)
        assert exporter.points["orders"][()].value == sum(amounts)


def test_the_patterns_and_labels_are_checked() -> None:
    settings = msgspec.convert({"signals": ["spans"], "labels": {"region": "eu"}, "include": ["a.*"]}, PipelineSettings)
    assert (settings.signals, settings.labels, settings.include) == (("spans",), {"region": "eu"}, ("a.*",))
    for wrong in ({"signals": ["logs"]}, {"labels": {"Region!": "eu"}}, {"drop_labels": "city"}):
        try:
            msgspec.convert(wrong, PipelineSettings)
        except msgspec.ValidationError:
            continue
        raise AssertionError(wrong)


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 5), st.booleans())), min_size=1, max_size=20))
def test_a_merged_total_counts_everything_once_and_never_falls(steps: list[dict[str, tuple[int, bool]]]) -> None:
    """A series is left out of some collections, and begins anew in others."""
    shape = Shape((), (), ("k",), {}, HiddenInstruments(logging.getLogger(__name__)))
    series: dict[str, tuple[int, int]] = {}  # value and beginning
    everything = before = 0
    for time_ns, step in enumerate(steps, 1):
        for name, (added, begins_anew) in step.items():
            value, since = series.get(name, (0, time_ns))
            if begins_anew:
                value, since = 0, time_ns
            series[name] = (value + added, since)
            everything += added
        points = tuple(NumberPoint((("k", name),), *series[name], time_ns) for name in step)
        spreads = tuple(
            HistogramPoint(labels, int(value), value, None, None, (int(value),), since, now)
            for labels, value, since, now in ((p.labels, p.value, p.start_time_ns, p.time_ns) for p in points)
        )
        (counter,) = shape.relabel([CounterData("c", "", "", ("k",), points)], are_totals=True)
        (histogram,) = shape.relabel([HistogramData("h", "", "", ("k",), (), spreads)], are_totals=True)
        total = counter.points[0].value if counter.points else 0
        assert total == everything >= before
        assert sum(point.count for point in histogram.points) == total
        before = everything
