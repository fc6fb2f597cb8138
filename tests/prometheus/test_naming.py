"""Prometheus names: the published ones, the rules, and renames."""

from __future__ import annotations

import pytest

from eventcore import open_store
from eventcore.errors import ConfigurationError
from eventcore_prometheus import PrometheusExporter
from eventcore_prometheus.naming import Kind, Names, check_renames, unit_words


def exposed(kind: Kind, name: str, unit: str, rename: dict[str, str] | None = None) -> str:
    found = Names(check_renames(rename or {})).find(kind, name, unit)
    assert found is not None
    return found.sample


@pytest.mark.parametrize(
    ("kind", "name", "unit", "expected"),
    [
        ("counter", "eventcore.commands.total", "{command}", "eventcore_commands_total"),
        ("histogram", "eventcore.commands.duration", "s", "eventcore_command_duration_seconds"),
        ("counter", "eventcore.events.written", "{event}", "eventcore_events_written_total"),
        ("gauge", "eventcore.streams.active", "{stream}", "eventcore_streams_active"),
    ],
)
def test_the_four_published_names_never_change(kind: Kind, name: str, unit: str, expected: str) -> None:
    assert exposed(kind, name, unit) == expected


@pytest.mark.parametrize(
    ("kind", "name", "unit", "expected"),
    [
        ("gauge", "eventcore.store.size", "By", "eventcore_store_size_bytes"),
        ("counter", "eventcore.store.io", "By", "eventcore_store_io_bytes_total"),
        ("counter", "eventcore.exporters.cpu.time", "s", "eventcore_exporters_cpu_time_seconds_total"),
        ("gauge", "eventcore.exporters.state", "{state}", "eventcore_exporters_state"),
        ("gauge", "eventcore.projections.state", "1", "eventcore_projections_state"),
        ("gauge", "eventcore.info", "1", "eventcore_info"),
        ("gauge", "eventcore.projections.lag.time", "s", "eventcore_projections_lag_time_seconds"),
        ("histogram", "eventcore.commands.attempts", "{attempt}", "eventcore_commands_attempts"),
        ("counter", "orders.seconds.total", "s", "orders_seconds_total"),
        ("counter", "orders.shipped", "", "orders_shipped_total"),
        ("gauge", "net.rate", "By/s", "net_rate_bytes_per_second"),
        ("gauge", "orders.rate", "{order}/min", "orders_rate_per_minute"),
        ("gauge", "water.level", "mm[H2O]", "water_level_mm_H2O"),
    ],
)
def test_a_name_gets_its_unit_and_counters_one_total(kind: Kind, name: str, unit: str, expected: str) -> None:
    assert exposed(kind, name, unit) == expected


def test_units_that_only_name_what_is_counted_do_not_show() -> None:
    assert [unit_words(unit) for unit in ("", "1", "{order}", "{order}/{day}")] == ["", "", "", ""]


def test_a_user_can_rename_an_instrument_by_its_name_in_code() -> None:
    rename = {"orders.shipped": "shop_shipped_total", "orders.open": "shop_open"}
    assert exposed("counter", "orders.shipped", "{order}", rename) == "shop_shipped_total"
    assert exposed("gauge", "orders.open", "", rename) == "shop_open"
    assert exposed("histogram", "eventcore.commands.duration", "s", rename) == "eventcore_command_duration_seconds"


def test_a_renamed_counter_still_ends_with_total() -> None:
    assert exposed("counter", "orders.shipped", "", {"orders_shipped": "shipped"}) == "shipped_total"


@pytest.mark.parametrize(
    ("rename", "problem"),
    [
        ({"orders": "9lives"}, "'orders' = '9lives' does not fit; expected"),
        ({"orders": "job:orders:sum"}, "expected an instrument and a Prometheus name"),
        ({"Orders": "orders"}, "'Orders' is no name of an instrument; expected its name in code"),
        ({"orders..shipped": "orders"}, "'orders..shipped' is no name of an instrument"),
        ({"orders": "__orders"}, "beginning with neither a digit"),
        ({"orders": "same", "sales": "same"}, "'orders' and 'sales' would both be 'same'"),
        ({"orders": "same", "sales": "same_total"}, "'orders' and 'sales' would both be"),
        ({"a.b": "x", "a_b": "y"}, "'a.b' and 'a_b' are the same instrument"),
        ({"orders": "eventcore_command_duration_seconds"}, "'eventcore.commands.duration' and 'orders' would both be"),
    ],
)
def test_a_rename_that_cannot_be_is_refused_with_the_reason(rename: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match="rename: ") as caught:
        PrometheusExporter(rename=rename)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("counter", "orders.total", ""), ("counter", "orders", "")),
        (("gauge", "queue.time.seconds", ""), ("gauge", "queue.time", "s")),
        (("counter", "orders", ""), ("gauge", "orders.total", "")),
        (("histogram", "orders", ""), ("gauge", "orders.count", "")),
        (("histogram", "orders", ""), ("gauge", "orders.sum", "")),
        (("gauge", "wait", "ms"), ("gauge", "wait.ms", "ms")),
    ],
)
def test_a_name_in_use_is_not_given_twice(first: tuple[Kind, str, str], second: tuple[Kind, str, str]) -> None:
    names = Names(check_renames({}))
    kept = names.find(*first)
    assert kept is not None
    assert names.find(*second) is None
    assert names.find(*second) is None
    assert names.find(*first) == kept
    assert names.lost[second[0], second[1]][1] == first[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("counter", "orders", ""), ("counter", "orders.created", "")),
        (("counter", "orders", ""), ("gauge", "orders.created", "")),
        (("counter", "orders.total", ""), ("gauge", "orders", "")),
        (("histogram", "orders", ""), ("counter", "orders.count", "")),
        (("histogram", "orders", ""), ("gauge", "orders.created", "")),
    ],
)
def test_names_of_which_no_sample_is_shared_are_both_given(first: tuple[Kind, str, str], second: tuple[Kind, str, str]) -> None:
    for one, other in ((first, second), (second, first)):
        names = Names(check_renames({}))
        assert names.find(*one) is not None
        assert names.find(*other) is not None


def test_a_collision_is_decided_by_who_was_created_first() -> None:
    names = Names(check_renames({}))
    assert names.find("counter", "orders.total", "", created=9) is not None
    assert names.find("counter", "orders", "", created=4) is not None
    assert names.find("counter", "orders.total", "", created=9) is None
    assert names.lost["counter", "orders.total"] == ("orders_total", "orders")
    assert names.find("gauge", "orders.total", "", created=5) is None


@pytest.mark.parametrize(
    ("kind", "name", "owner"),
    [
        ("counter", "eventcore.commands", "eventcore.commands.total"),
        ("gauge", "eventcore.command.duration.seconds.count", "eventcore.commands.duration"),
        ("gauge", "eventcore.events.written.total", "eventcore.events.written"),
    ],
)
def test_the_published_names_belong_to_core_also_before_it_records_anything(kind: Kind, name: str, owner: str) -> None:
    names = Names(check_renames({}))
    assert names.find(kind, name, "", created=1) is None
    assert names.lost[kind, name][1] == owner
    assert Names(check_renames({owner: "other"})).find(kind, name, "", created=1) is not None


@pytest.mark.parametrize(
    ("kind", "name", "unit", "expected"),
    [
        ("gauge", "y.ms", "ms", "y_milliseconds"),
        ("counter", "waited.s", "s", "waited_seconds_total"),
        ("counter", "waited.s.total", "s", "waited_seconds_total"),
        ("gauge", "sold.by", "By", "sold_by_bytes"),
        ("gauge", "ms", "ms", "ms_milliseconds"),
    ],
)
def test_the_symbol_of_a_unit_in_a_name_becomes_its_word(kind: Kind, name: str, unit: str, expected: str) -> None:
    assert exposed(kind, name, unit) == expected


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"port": 70000}, "port is 70000: expected 0 to 65535"),
        ({"path": "metrics"}, "path is 'metrics': expected one that begins with '/'"),
        ({"path": '/"><script>'}, "expected one that begins with '/'"),
        ({"host": "a b"}, "host is 'a b'"),
        ({"scrape_timeout": 0.0}, "scrape_timeout is 0.0: expected seconds"),
        ({"max_requests": 0}, "max_requests is 0: expected 1 or more"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        PrometheusExporter(**settings)  # type: ignore[arg-type]  # the wrong values are the point
    assert problem in str(caught.value)


@pytest.mark.parametrize("by_code", [True, False])
async def test_a_misspelt_key_of_eventcores_own_is_a_fault_of_the_configuration(by_code: bool) -> None:
    rename = {
        "eventcore.comands.total": "shop_commands_total",
        "orders.shiped": "shipped",
        "eventcore_events_written": "written",
    }
    config = {"exporters": {"enabled": [], "prometheus": {"port": 0, "rename": rename}}}
    names: list[str] = [] if by_code else ["prometheus"]
    with pytest.raises(ConfigurationError) as caught:  # either line may raise
        async with open_store("memory:", exporters=names, config={} if by_code else config) as store:
            store.register_exporter(PrometheusExporter(port=0, rename=rename))
    [fault] = caught.value.faults
    assert fault.key == "exporters.prometheus.rename.eventcore.comands.total"
    assert "did you mean 'eventcore_commands_total'?" in fault.problem
