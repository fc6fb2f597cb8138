"""No series is lost and none is doubled: names and label values that are equal on the page, or reserved there."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventcore.exporting import CounterData, Exemplar, GaugeData, HistogramData, HistogramPoint, NumberPoint
from eventcore_prometheus.naming import Names, check_renames
from eventcore_prometheus.page import Page, PageBuilder, load_families, put_together
from tests.prometheus.test_page import counter, families, gauge, histogram, number, parse_openmetrics, samples, text

Hidden = list[tuple[str, str, str]]


def builder(hidden: Hidden | None = None, worker: int | None = None) -> PageBuilder:
    made = PageBuilder(Names(check_renames({})), lambda *why: hidden.append(why) if hidden is not None else None)
    made.worker = worker
    made.begin()
    return made


def test_a_counter_and_another_one_with_created_behind_its_name_are_both_shown() -> None:
    hidden: Hidden = []
    making = builder(hidden)
    making.counters([counter("orders", number(1)), counter("orders.created", number(2))])
    page = making.finish()
    assert {name for parsed in families(page) for name in parsed} == {"orders", "orders_created", "orders_created_total"}
    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        found = {
            sample.name: sample.value for family in parse(text(page, openmetrics=openmetrics)) for sample in family.samples
        }
        assert found == {"orders_total": 1, "orders_created_total": 2}
    assert hidden == []


@pytest.mark.parametrize("name", ["eventcore.exporters.worker.up", "eventcore_exporters.worker_up"])
def test_what_the_page_says_of_its_workers_is_not_mixed_with_an_instrument_of_that_name(name: str) -> None:
    hidden: Hidden = []
    making = builder(hidden)
    making.gauges([gauge(name, number(3, ("shelf", "9"))), gauge("eventcore.exporters.worker.upper", number(4))])
    assert [name for parsed in families(making.finish()) for name in parsed] == ["eventcore_exporters_worker_upper"] * 2
    [(lost, reason, kind)] = hidden
    assert (lost, kind) == (name, "collision")
    assert "eventcore.exporters.worker.up of the page" in reason


def test_a_counter_and_a_gauge_of_one_family_are_both_shown() -> None:
    making = builder()
    making.counters([counter("orders.total", number(1)), counter("waits.count", number(2))])
    making.gauges([gauge("orders", number(3)), gauge("orders.created", number(4))])
    making.histograms([histogram("waits", (1.0,), ((), (5, 0), 1.0))])
    page = making.finish()
    expected = {"orders_total": 1, "orders": 3, "orders_created": 4, "waits_count_total": 2, "waits_count": 5}
    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        found = {
            sample.name: sample.value for family in parse(text(page, openmetrics=openmetrics)) for sample in family.samples
        }
        assert {name: found[name] for name in expected} == expected


def test_beside_a_histogram_a_gauge_with_created_behind_the_name_keeps_the_page_from_being_openmetrics() -> None:
    making = builder()
    making.gauges([gauge("waits.created", number(4))])
    making.histograms([histogram("waits", (1.0,), ((), (5, 0), 1.0))])
    page = making.finish()
    assert not page.openmetrics
    assert "waits_created 4\n" in text(page)
    making.begin()
    making.gauges([gauge("other", number(4))])
    assert making.finish().openmetrics


def test_an_instrument_that_was_created_before_takes_its_name_back_when_it_has_values() -> None:
    hidden: Hidden = []
    making = builder(hidden)
    younger = GaugeData("orders.total", "", "", (), (number(7),), created=2)
    older = CounterData("orders", "", "", (), (number(1),), created=1)
    making.gauges([younger])
    assert "orders_total 7\n" in text(making.finish())
    for _ in range(2):
        making.begin()
        making.counters([older])
        making.gauges([younger])
        assert text(making.finish()) == "# HELP orders_total orders\n# TYPE orders_total counter\norders_total 1\n"
    making.begin()
    making.gauges([younger])
    assert text(making.finish()) == ""
    [(name, reason, kind)] = hidden
    assert (name, kind) == ("orders.total", "collision")
    assert "its name orders_total is in use by 'orders'" in reason


def test_the_order_of_creation_decides_within_one_page_too() -> None:
    hidden: Hidden = []
    making = builder(hidden)
    making.counters([CounterData("orders", "", "", (), (number(1),), created=5)])
    making.gauges([GaugeData("orders.total", "", "", (), (number(7),), created=2)])
    assert text(making.finish()) == "# HELP orders_total orders.total\n# TYPE orders_total gauge\norders_total 7\n"
    assert [name for name, _, _ in hidden] == ["orders"]


@pytest.mark.parametrize("chunk", [1, 10])
def test_label_values_that_are_equal_when_they_are_cleaned_make_one_series(chunk: int) -> None:
    hidden: Hidden = []
    making = builder(hidden)
    values = ("a\x00", "b", "a\ud800", "a\ufffd", "a?")
    points = [number(2**index, ("who", value)) for index, value in enumerate(values)]
    spreads = [((("who", value),), (1, 2**index), 1.5) for index, value in enumerate(values)]
    for start in range(0, len(values), chunk):
        making.counters([counter("orders", *points[start : start + chunk])])
        making.gauges([gauge("level", *points[start : start + chunk])])
        making.histograms([histogram("wait", (1.0,), *spreads[start : start + chunk])])
    for parsed in families(making.finish()):
        assert samples(parsed["orders"]) == {
            ("orders_total", ("who", "a\ufffd")): 1 + 4 + 8,
            ("orders_total", ("who", "b")): 2,
            ("orders_total", ("who", "a?")): 16,
        }
        assert samples(parsed["level"])["level", ("who", "a\ufffd")] == 1
        found = samples(parsed["wait"])
        assert found["wait_count", ("who", "a\ufffd")] == 3 + 13
        assert found["wait_sum", ("who", "a\ufffd")] == 4.5
        assert len(parsed["wait"].samples) == 3 * 4
    assert [(name, kind) for name, _, kind in hidden] == [("level", "invalid")]


def test_a_label_that_another_one_has_already_gets_another_name() -> None:
    making = builder(worker=3)
    making.counters([counter("orders", number(1, ("worker", "me"), ("exported.worker", "you")))])
    making.histograms([histogram("wait", (1.0,), ((("le", "x"), ("a.b", "1"), ("a_b", "2")), (1, 0), 0.5))])
    lines = text(making.finish()).splitlines()
    assert 'orders_total{worker="3",exported_worker="me",exported_exported_worker="you"} 1' in lines
    assert 'wait_bucket{worker="3",exported_le="x",a_b="1",exported_a_b="2",le="1.0"} 1' in lines


TRACE, SPAN = 0xABC, 0xDEF
IDS = f'trace_id="{TRACE:032x}",span_id="{SPAN:016x}"'


def exemplar(value: float) -> Exemplar:
    return Exemplar(value, 1_700_000_000_123_456_789, TRACE, SPAN)


def test_exemplars_stand_behind_counters_and_the_buckets_that_they_belong_to_and_only_in_openmetrics() -> None:
    making = builder()
    counted = NumberPoint((("who", "x # {y"),), 3, 0, 0, (exemplar(1),))
    making.counters([CounterData("orders", "", "", ("who",), (counted, number(1, ("who", "z"))))])
    making.gauges([GaugeData("level", "", "", (), (NumberPoint((), 3, 0, 0, (exemplar(1),)),))])
    spread = HistogramPoint(
        (("who", 'a"\u2028\x0b} # {'),), 6, 9.5, None, None, (1, 2, 3), 0, 0, (exemplar(0.1), exemplar(7.0))
    )
    other = HistogramPoint((("who", "b"),), 1, 1.0, None, None, (0, 1, 0), 0, 0, (exemplar(1.0),))
    making.histograms([HistogramData("wait", "s", "", ("who",), (0.1, 1.0), (spread, other))])
    page = making.finish()
    assert "trace_id" not in text(page)
    shown = text(page, openmetrics=True)
    assert f'orders_total{{who="x # {{y"}} 3 # {{{IDS}}} 1 1700000000.123\n' in shown
    assert f'le="0.1"}} 1 # {{{IDS}}} 0.1 1700000000.123\n' in shown
    found = {
        (sample.name, sample.labels.get("le"), sample.labels.get("who")): sample.exemplar.value
        for family in parse_openmetrics(shown)
        for sample in family.samples
        if sample.exemplar is not None
    }
    strange = 'a"\u2028\x0b} # {'
    assert found == {
        ("orders_total", None, "x # {y"): 1,
        ("wait_seconds_bucket", "0.1", strange): 0.1,
        ("wait_seconds_bucket", "+Inf", strange): 7.0,
        ("wait_seconds_bucket", "1.0", "b"): 1.0,
    }
    plain, openmetrics = families(page)
    assert plain.keys() == openmetrics.keys()


def test_a_counter_without_a_type_has_no_exemplars() -> None:
    making = builder()
    points = (NumberPoint((), 3, 0, 0, (exemplar(1),)),)
    making.counters([CounterData("orders", "", "", (), points), CounterData("orders.created", "", "", (), points)])
    shown = text(making.finish(), openmetrics=True)
    assert shown.count("trace_id") == 1
    assert {family.name: family.type for family in parse_openmetrics(shown)} == {
        "orders": "counter",
        "orders_created_total": "unknown",
    }


def test_the_pages_of_several_workers_make_one_page_with_the_series_of_all() -> None:
    def page_of(worker: int) -> Page:
        making = builder(worker=worker)
        counted = NumberPoint((), worker + 1, 0, 0, (exemplar(1),))
        making.counters([CounterData("orders", "", "Help.", (), (counted,))])
        making.histograms([histogram("wait", (1.0,), ((("who", "a"),), (worker, 1), 0.5), unit="s")])
        if worker == 1:
            making.gauges([gauge("only.here", number(1))])
        return making.finish()

    page = put_together([family for worker in range(4) for family in load_families(page_of(worker).dump())])
    for parsed in families(page):
        assert samples(parsed["orders"]) == {("orders_total", ("worker", str(n))): n + 1 for n in range(4)}
        assert samples(parsed["only_here"]) == {("only_here", ("worker", "1")): 1}
        assert samples(parsed["wait_seconds"])["wait_seconds_count", ("who", "a"), ("worker", "3")] == 4
    assert text(page, openmetrics=True).count(IDS) == 4
    assert text(page).count("# TYPE") == 3
