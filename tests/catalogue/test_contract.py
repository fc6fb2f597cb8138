"""The catalogue, and what a scripted run emits, against ``contract.toml``, which is written by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from eventcore.catalogue import CATALOGUE
from eventcore.exporting import CounterData, GaugeData, HistogramData, MetricData
from eventcore.recording import Histogram, Instrument
from tests.catalogue.script import SERIES_LIMIT, Emitted, run

CONTRACT: dict[str, Any] = tomllib.loads(Path(__file__).with_name("contract.toml").read_text())
METRICS: dict[str, dict[str, Any]] = {f"eventcore.{name}": metric for name, metric in CONTRACT["metrics"].items()}
# Only a backend with a pool of connections, which PostgreSQL's has, gives this.
NEEDS_A_POOL = {
    *("eventcore.store.pool.connections", "eventcore.store.pool.limit", "eventcore.store.pool.timeouts"),
    "eventcore.store.breaker.state",
}
NEEDS_A_FILE = {"eventcore.store.io", "eventcore.store.size", "eventcore.store.disk.free", "eventcore.store.lock.wait"}
NEEDS_FAILURES = {"eventcore.commands.retries", "eventcore.store.errors"}


@pytest.fixture(scope="module")
def memory() -> Emitted:
    return run("memory:")


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return run(f"sqlite:///{tmp_path_factory.mktemp('contract') / 'store.db'}")


@pytest.fixture(params=["memory", "sqlite"])
def emitted(request: pytest.FixtureRequest) -> Emitted:
    emitted: Emitted = request.getfixturevalue(request.param)
    return emitted


def boundaries_of(metric: dict[str, Any]) -> tuple[float, ...] | None:
    return tuple(CONTRACT["buckets"][metric["buckets"]]) if "buckets" in metric else None


def kind_of(data: MetricData) -> str:
    match data:
        case CounterData():
            return "counter"
        case GaugeData(additive=additive):
            return "up_down_counter" if additive else "gauge"
        case HistogramData():
            return "histogram"


def shape_of(instrument: Instrument[Any]) -> tuple[object, ...]:
    boundaries = instrument.boundaries if isinstance(instrument, Histogram) else None
    return (instrument.kind, instrument.unit, instrument.label_names, instrument.open_labels, boundaries)


def test_an_open_store_has_the_instruments_of_the_contract(emitted: Emitted) -> None:
    assert {instrument.name: shape_of(instrument) for instrument in emitted.instruments} == {
        name: (
            metric["kind"],
            metric["unit"],
            tuple(metric["labels"]),
            {label for label, values in metric["labels"].items() if values == "open"},
            boundaries_of(metric),
        )
        for name, metric in METRICS.items()
    }


def test_what_a_run_emits_has_the_shape_and_the_label_values_of_the_contract(emitted: Emitted) -> None:
    for data in emitted.metrics:
        metric = METRICS[data.name]
        shape = (kind_of(data), data.unit, data.label_names, getattr(data, "boundaries", None))
        assert shape == (metric["kind"], metric["unit"], tuple(metric["labels"]), boundaries_of(metric)), data.name
        for point in data.points:
            for label, value in point.labels:
                values = metric["labels"][label]
                if values not in ("open", "one"):
                    assert value in CONTRACT["values"][values], f"{data.name}: {label}={value}"


def test_a_run_emits_every_metric_that_its_store_can(memory: Emitted, sqlite: Emitted) -> None:
    every = set(METRICS) - NEEDS_A_POOL
    assert {data.name for data in memory.metrics} == every - NEEDS_A_FILE
    assert {data.name for data in sqlite.metrics} == every - NEEDS_FAILURES


def test_the_values_that_the_catalogue_declares_are_those_of_the_contract() -> None:
    declared = {f"eventcore.{name}": {label: label.values for label in metric.labels} for name, metric in CATALOGUE.items()}
    assert declared == {
        name: {label: tuple(CONTRACT["values"].get(values, ())) for label, values in metric["labels"].items()}
        for name, metric in METRICS.items()
    }


def test_series_stay_below_the_cap_that_the_script_sets(emitted: Emitted) -> None:
    assert max(len(data.points) for data in emitted.metrics) < SERIES_LIMIT
