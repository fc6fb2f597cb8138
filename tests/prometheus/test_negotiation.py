"""The format that a client gets, by its request headers."""

from __future__ import annotations

import pytest

from eventcore_prometheus.negotiation import accepts_gzip, choose_format, time_limit

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept", [PROMETHEUS_2, PROMETHEUS_3, "application/openmetrics-text", 'Application/OpenMetrics-Text; version="1.0.0"']
)
def test_who_prefers_openmetrics_gets_it(accept: str) -> None:
    assert choose_format(accept).openmetrics


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        BROWSER,
        "text/plain;version=0.0.4",
        "text/plain;q=0.9,application/openmetrics-text;q=0.5",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
        "application/json",
        "application/openmetrics-text;q=nonsense",
        ";;,=,;q",
    ],
)
def test_everybody_else_gets_text(accept: str) -> None:
    assert not choose_format(accept).openmetrics


def test_what_is_named_wins_over_a_wildcard_of_the_same_weight() -> None:
    assert choose_format("*/*, application/openmetrics-text").openmetrics


@pytest.mark.parametrize(
    ("header", "expected"), [("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("gzip;q=0", False), ("identity", False)]
)
def test_gzip_only_for_those_who_take_it(header: str, expected: bool) -> None:
    assert accepts_gzip(header) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [("10", 9.5), ("0.5", 0.45), ("", 30.0), ("-1", 30.0), ("nan", 30.0), ("inf", 30.0), ("soon", 30.0), ("100", 30.0)],
)
def test_the_scrapers_timeout_is_kept_with_a_margin_and_capped(header: str, expected: float) -> None:
    assert time_limit(header, 30.0) == pytest.approx(expected)
