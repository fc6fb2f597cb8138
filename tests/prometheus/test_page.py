"""The page, read back by the parsers of prometheus_client: values, escaping, formats, chunks and cycles."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventcore.exporting import CounterData, GaugeData, HistogramData, HistogramPoint, Labels, NumberPoint
from eventcore_prometheus.naming import Names, check_renames
from eventcore_prometheus.page import Page, PageBuilder
from eventcore_prometheus.rendering import go_float

# prometheus_client has no types for this one.
parse_openmetrics: Callable[[str], Iterator[Metric]] = _parse_openmetrics

TIME = 1_700_000_000_000_000_000


def builder(collisions: list[tuple[str, ...]] | None = None) -> PageBuilder:
    return PageBuilder(Names(check_renames({})), lambda *why: collisions.append(why) if collisions is not None else None)


def number(value: float, *labels: tuple[str, str], time_ns: int = TIME) -> NumberPoint:
    return NumberPoint(labels, value, TIME, time_ns)


def counter(name: str, *points: NumberPoint, unit: str = "", description: str = "Help.") -> CounterData:
    return CounterData(name, unit, description, tuple(label for label, _ in points[0].labels), points)


def gauge(name: str, *points: NumberPoint, unit: str = "", description: str = "Help.") -> GaugeData:
    return GaugeData(name, unit, description, tuple(label for label, _ in points[0].labels), points)


def histogram(
    name: str, boundaries: tuple[float, ...], *points: tuple[Labels, tuple[int, ...], float], unit: str = ""
) -> HistogramData:
    made = tuple(HistogramPoint(labels, sum(counts), total, None, None, counts, TIME, TIME) for labels, counts, total in points)
    return HistogramData(name, unit, "Help.", tuple(label for label, _ in points[0][0]), boundaries, made)


def text(page: Page, *, openmetrics: bool = False) -> str:
    joined = b"".join(page.pieces(openmetrics))
    assert len(joined) == page.size(openmetrics)
    return joined.decode()


def families(page: Page) -> Iterator[dict[str, Metric]]:
    """The page as both parsers read it; their results must be equal."""
    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        yield {family.name: family for family in parse(text(page, openmetrics=openmetrics))}


def samples(family: Metric) -> dict[tuple[Any, ...], float]:
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in family.samples}


def test_a_page_is_exactly_what_the_formats_say() -> None:
    making = builder()
    making.counters([counter("orders.shipped", number(3, ("ship.to", "FR")))])
    making.gauges([gauge("store.size", number(0.5), unit="By")])
    making.histograms([histogram("wait", (0.1, 1.0), ((), (1, 2, 3), 9.5), unit="s")])
    page = making.finish()
    assert text(page) == (
        "# HELP orders_shipped_total Help.\n# TYPE orders_shipped_total counter\n"
        'orders_shipped_total{ship_to="FR"} 3\n'
        "# HELP store_size_bytes Help.\n# TYPE store_size_bytes gauge\n"
        "store_size_bytes 0.5\n"
        "# HELP wait_seconds Help.\n# TYPE wait_seconds histogram\n"
        'wait_seconds_bucket{le="0.1"} 1\nwait_seconds_bucket{le="1.0"} 3\nwait_seconds_bucket{le="+Inf"} 6\n'
        "wait_seconds_sum 9.5\nwait_seconds_count 6\n"
    )
    assert text(page, openmetrics=True) == (
        "# HELP orders_shipped Help.\n# TYPE orders_shipped counter\n"
        'orders_shipped_total{ship_to="FR"} 3\n'
        "# HELP store_size_bytes Help.\n# TYPE store_size_bytes gauge\n# UNIT store_size_bytes bytes\n"
        "store_size_bytes 0.5\n"
        "# HELP wait_seconds Help.\n# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n"
        'wait_seconds_bucket{le="0.1"} 1\nwait_seconds_bucket{le="1.0"} 3\nwait_seconds_bucket{le="+Inf"} 6\n'
        "wait_seconds_sum 9.5\nwait_seconds_count 6\n"
        "# EOF\n"
    )


def test_an_empty_page_is_valid_in_both_formats() -> None:
    page = builder().finish()
    assert text(page) == ""
    assert text(page, openmetrics=True) == "# EOF\n"
    assert gzip.decompress(b"".join(page.compressed(True))) == b"# EOF\n"


_words = st.text(st.characters(codec="utf-8"), max_size=30)


@given(values=st.lists(_words, min_size=1, max_size=3, unique=True), description=_words)
def test_any_label_value_and_any_description_can_be_read_back(values: list[str], description: str) -> None:
    making = builder()
    making.counters(
        [counter("orders", *(number(index, ("a.b", value)) for index, value in enumerate(values)), description=description)]
    )
    making.histograms([histogram("wait", (1.0,), *(((("who", value),), (1, 0), 0.5) for value in values))])
    # Prometheus stops reading at a zero byte, so the page has the replacement character instead.
    shown = [value.replace("\x00", "\ufffd") for value in values]
    page = making.finish()
    for parsed in families(page):
        expected = {("orders_total", ("a_b", value)): number for value, number in zip(shown, range(len(values)), strict=True)}
        assert samples(parsed["orders"]) == expected
        assert {sample.labels["who"] for sample in parsed["wait"].samples} == set(shown)
    help_text = next(parse_openmetrics(text(page, openmetrics=True))).documentation
    assert help_text == (description.strip() or "orders").replace("\x00", "\ufffd")


@given(st.one_of(st.floats(), st.integers()))
def test_any_value_can_be_read_back(value: float) -> None:
    making = builder()
    making.gauges([gauge("level", number(value))])
    try:
        expected = float(value)
    except OverflowError:
        expected = math.copysign(math.inf, value)
    for parsed in families(making.finish()):
        (sample,) = parsed["level"].samples
        assert float(sample.value) == expected or (math.isnan(expected) and math.isnan(sample.value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1.0"),
        (0.0001, "0.0001"),
        (1e-7, "1e-07"),
        (123456.5, "123456.5"),
        (1234567.5, "1.2345675e+06"),
        (-16777216.0, "-1.6777216e+07"),
        (1e6, "1e+06"),
        (1e22, "1e+22"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_floats_are_written_as_go_writes_them(value: float, expected: str) -> None:
    assert go_float(value) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_float_is_lost(value: float) -> None:
    assert float(go_float(value)) == value


@given(st.lists(st.integers(min_value=0, max_value=10**9), min_size=4, max_size=4), st.floats(min_value=0, max_value=1e300))
def test_buckets_are_cumulative_and_agree_with_the_count(counts: list[int], total: float) -> None:
    making = builder()
    making.histograms([histogram("wait", (0.5, 1.0, 2e6), ((("who", "100%"),), tuple(counts), total), unit="s")])
    for parsed in families(making.finish()):
        found = samples(parsed["wait_seconds"])
        running = 0
        for limit, count in zip(("0.5", "1.0", "2e+06", "+Inf"), counts, strict=True):
            running += count
            assert found["wait_seconds_bucket", ("le", limit), ("who", "100%")] == running
        assert found["wait_seconds_count", ("who", "100%")] == sum(counts)
        assert found["wait_seconds_sum", ("who", "100%")] == total


@pytest.mark.parametrize(("boundaries", "total"), [((-1.0, 1.0), 5.0), ((0.0, 1.0), -5.0)])
def test_a_histogram_of_negative_values_has_no_sum_since_openmetrics_forbids_it(
    boundaries: tuple[float, ...], total: float
) -> None:
    making = builder()
    making.histograms([histogram("drift", boundaries, ((), (1, 1, 1), total))])
    for parsed in families(making.finish()):
        assert {sample.name for sample in parsed["drift"].samples} == {"drift_bucket"}


def test_the_chunks_of_one_instrument_make_one_family() -> None:
    making = builder()
    points = [number(index, ("n", str(index))) for index in range(100)]
    for start in range(0, 100, 7):
        making.counters([counter("orders", *points[start : start + 7])])
    page = making.finish()
    assert text(page).count("# TYPE orders_total counter") == 1
    for parsed in families(page):
        assert samples(parsed["orders"]) == {("orders_total", ("n", str(index))): index for index in range(100)}


def test_a_cycle_that_is_tried_again_shows_every_series_once() -> None:
    making = builder()
    data = [counter("a", number(1, ("n", "1")), number(2, ("n", "2"))), counter("b", number(3))]
    making.counters([data[0]])
    making.begin()
    making.counters(data)
    assert text(making.finish()).count("a_total{") == 2


def test_nothing_is_left_of_a_cycle_that_was_given_up() -> None:
    making = builder()
    making.gauges([gauge("gone", number(1))])
    making.begin()
    making.counters([counter("here", number(1, time_ns=TIME + 1))])
    page = making.finish()
    assert "gone" not in text(page)
    assert "here_total 1" in text(page)


def test_two_instruments_with_one_exposed_name_never_make_an_invalid_page() -> None:
    collisions: list[tuple[str, ...]] = []
    making = builder(collisions)
    for cycle in range(3):
        making.counters(
            [counter("orders", number(1, time_ns=TIME + cycle)), counter("orders.total", number(2, time_ns=TIME + cycle))]
        )
        making.gauges([gauge("orders.total", number(3, time_ns=TIME + cycle))])
        page = making.finish()
        for parsed in families(page):
            assert samples(parsed["orders"]) == {("orders_total",): 1}
    taken = "its name orders_total is in use by 'orders'; give one of them another name (setting 'rename')"
    assert collisions == [("orders.total", taken, "collision")]
    assert making.hidden == {"orders.total": "collision"}


def test_a_large_page_comes_in_pieces_and_compresses_to_the_same() -> None:
    making = builder()
    points = tuple(((("n", str(index)),), (index, 1), 1.0) for index in range(2000))
    for start in range(0, 2000, 50):
        making.histograms([histogram("wait", (1.0,), *points[start : start + 50])])
    page = making.finish()
    whole = text(page, openmetrics=True)
    assert max(len(piece) for piece in page.pieces(True)) < 200_000
    assert gzip.decompress(b"".join(page.compressed(True))).decode() == whole
    assert page.compressed(True) is page.compressed(True)
