"""2,600 instruments with hostile names, labels and values: every format, read back by both parsers, value for value."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventcore.recording import Collector, InstrumentRegistry
from eventcore.recording.instruments import Counter, Gauge, Histogram, Instrument, UpDownCounter
from eventcore_prometheus.naming import Names, check_renames
from eventcore_prometheus.page import Page, PageBuilder
from tests.prometheus.test_page import parse_openmetrics, text

INSTRUMENTS = 2600
Series = dict[tuple[tuple[str, str], ...], Any]

_WORDS = (
    "orders",
    "total",
    "created",
    "count",
    "sum",
    "bucket",
    "info",
    "ms",
    "seconds",
    "le",
    "x9",
    "target",
    "process",
    "a_b",
)
_UNITS = ("", "s", "ms", "By", "{order}", "1", "%", "By/s", "mm[H2O]", "{a}/{b}", "//", "100%")
_LABELS = ("who", "worker", "a.b", "exported.le", "job", "instance", "le.x", "quantile_")
_TEXTS = (
    *(
        "",
        " ",
        '"',
        "\\",
        "\n",
        "\r",
        "\t",
        "\x00",
        "\x0b",
        "\x85",
        "\u2028",
        "\ufffd",
        "\ud800",
        "\udfff",
        "?",
        "é",
        "日本",
        "🎈",
    ),
    *("%", "%s", "%%", "{x=", '"} 1 # {a="b"} 1', "_overflow_", "# EOF", "\n# EOF\n", "le", 'a="b",', "NaN", "\\n", "x" * 300),
)
_NUMBERS = (0, 1, -1, 2**53, 2**53 + 1, 2**63, 0.1, 1e-7, 1e6, 1e22, 123456789.125, 5e-324, 1.7e308, -0.0)


Made = tuple[Page, dict[str, Instrument[Any]], set[str]]


def make(*, openmetrics: bool) -> Made:
    """A page, the instruments by name, and those that the builder left out.

    For OpenMetrics, no gauge has ``created`` behind its name: beside a histogram, it would have no name there.
    """
    # A fixed seed: a failure can be repeated.
    choose = random.Random(14)
    registry = InstrumentRegistry(series_limit=20, total_series_limit=100_000)
    instruments: dict[str, Instrument[Any]] = {}
    for _ in range(INSTRUMENTS * 4):
        if len(instruments) == INSTRUMENTS:
            break
        name = choose.choice("._").join(choose.choice(_WORDS) for _ in range(choose.randint(1, 5)))
        if name.replace(".", "_") in {known.replace(".", "_") for known in list(instruments)[-50:]}:
            continue
        try:
            instruments[name] = _create(choose, registry, name, openmetrics)
        except Exception:  # noqa: BLE001  # the name is taken, in another shape
            continue
        _record(choose, instruments[name])
    assert len(instruments) == INSTRUMENTS
    hidden: set[str] = set()
    builder = PageBuilder(Names(check_renames({})), lambda name, reason, kind: hidden.add(name))
    builder.begin()
    collection = Collector(registry).collect(0.0, 30.0)
    # Several chunks an instrument, as a pipeline makes them.
    for chunk in _chunks(collection.counters):
        builder.counters(chunk)
    for chunk in _chunks(collection.gauges):
        builder.gauges(chunk)
    for chunk in _chunks(collection.histograms):
        builder.histograms(chunk)
    return builder.finish(), instruments, hidden


def _create(choose: random.Random, registry: InstrumentRegistry, name: str, openmetrics: bool) -> Instrument[Any]:
    labels = tuple(choose.sample(_LABELS, choose.randint(0, 3)))
    shape: dict[str, Any] = {"unit": choose.choice(_UNITS), "description": choose.choice(_TEXTS), "labels": labels}
    kind = choose.choice(("counter", "gauge", "up_down_counter", "histogram"))
    if openmetrics and name.endswith("created"):
        kind = "counter"
    if kind == "histogram":
        shape["boundaries"] = choose.choice(((), (0.1, 1.0), (-5.0, 0.0, 5.0), (1e-9, 1.0, 1e6, 2e16)))
    found: Instrument[Any] = getattr(registry, kind)(name, **shape)
    return found


def _record(choose: random.Random, instrument: Instrument[Any]) -> None:
    for _ in range(choose.randint(1, 4)):
        cell = instrument.labels(*(choose.choice(_TEXTS) for _ in instrument.label_names))
        if isinstance(instrument, Histogram):
            for _ in range(choose.randint(1, 3)):
                cell.record(choose.choice([number for number in _NUMBERS if number < 1e300]))
        elif isinstance(instrument, Counter):
            cell.add(choose.choice([number for number in _NUMBERS if 0 <= number < 2**64]))
        elif isinstance(instrument, UpDownCounter):
            cell.add(choose.choice([number for number in _NUMBERS if number < 2**64]))
        else:
            cell.set(choose.choice(_NUMBERS))


def _chunks(metrics: Any) -> Iterator[list[Any]]:
    import msgspec

    for data in metrics:
        for start in range(0, len(data.points), 2):
            yield [msgspec.structs.replace(data, points=data.points[start : start + 2])]


def _shown(value: str) -> str:
    return "".join("\ufffd" if char == "\x00" or "\ud800" <= char <= "\udfff" else char for char in value)


def _labels(instrument: Instrument[Any], key: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted((name.replace(".", "_"), _shown(value)) for name, value in zip(instrument.label_names, key, strict=True))
    )


def _expected(instrument: Instrument[Any]) -> Series:
    """What the cells hold, by the labels as they are shown; equal ones are added, of gauges the first one counts."""
    series: Series = {}
    for cell in instrument._cells():
        if cell.current() is None:
            continue  # the overflow series of a gauge has no value
        labels = _labels(instrument, tuple(value for _, value in cell.labels))
        if isinstance(instrument, Histogram):
            total, _, _, *buckets = cell.current()
            old_total, old = series.get(labels, (0.0, [0] * len(buckets)))
            series[labels] = (old_total + total, [one + other for one, other in zip(old, buckets, strict=True)])
        elif isinstance(instrument, Gauge):
            series.setdefault(labels, cell.current())
        else:
            series[labels] = series.get(labels, 0) + cell.current()
    return series


def _families(page: Page, openmetrics: bool) -> Iterator[Metric]:
    yield from (parse_openmetrics if openmetrics else parse_text)(text(page, openmetrics=openmetrics))


@pytest.mark.once
@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])
def test_every_series_of_every_instrument_is_there_once_with_its_labels_and_values(openmetrics: bool) -> None:
    page, instruments, hidden = make(openmetrics=openmetrics)
    assert page.openmetrics == openmetrics
    found: dict[str, Series] = {}
    for family in _families(page, openmetrics):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in series, f"{sample.name}{sample.labels} is there twice"
            series[labels] = sample.value
    names = Names(check_renames({}))
    compared = 0
    by_age = sorted(instruments.values(), key=lambda instrument: instrument.created)
    kinds = {"counter": "counter", "gauge": "gauge", "up_down_counter": "gauge", "histogram": "histogram"}
    for instrument in by_age:
        if not (expected := _expected(instrument)):
            continue  # a gauge whose only value went to its overflow series, which has none
        exposed = names.find(kinds[instrument.kind], instrument.name, instrument.unit, instrument.created)  # type: ignore[arg-type]
        if exposed is None:
            assert instrument.name in hidden
            continue
        if isinstance(instrument, Histogram):
            _compare_histogram(found, exposed.family, instrument, expected)
        else:
            shown = found.pop(exposed.sample)
            assert {labels: float(value) for labels, value in expected.items()} == shown, instrument.name
        compared += len(expected)
    assert found == {}, "nothing else is on the page"
    assert compared > 3000
    assert len(hidden) < INSTRUMENTS // 5


def _compare_histogram(found: dict[str, Series], family: str, instrument: Histogram, expected: Series) -> None:
    buckets = found.pop(f"{family}_bucket")
    sums, counts = found.pop(f"{family}_sum", {}), found.pop(f"{family}_count", {})
    assert len(buckets) == len(expected) * (len(instrument.boundaries) + 1)
    for labels, (total, numbers) in expected.items():
        for limit, count in zip((*instrument.boundaries, math.inf), accumulate(numbers), strict=True):
            same = [
                value
                for key, value in buckets.items()
                if tuple(pair for pair in key if pair[0] != "le") == labels and float(dict(key)["le"]) == limit
            ]
            assert same == [count], (instrument.name, labels, limit)
        if total >= 0 and not (instrument.boundaries and instrument.boundaries[0] < 0):
            assert (sums[labels], counts[labels]) == (total, sum(numbers))
        else:
            assert labels not in sums
            assert labels not in counts
