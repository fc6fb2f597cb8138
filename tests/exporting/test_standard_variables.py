"""The standard variables of OpenTelemetry that core reads for all exporters, at their place in the precedence."""

from __future__ import annotations

from typing import Any

import pytest

from eventcore.exporting.configuration import Configuration, TelemetrySettings, load_configuration
from eventcore.recording import RatioSampler, SpanLimits
from eventcore.telemetry import Telemetry


def load(environ: dict[str, str], config: dict[str, Any] | None = None, **more: Any) -> Configuration:
    configuration = load_configuration({"telemetry": config or {}}, environ=environ, plugins=(), **more)
    assert configuration.faults == ()
    return configuration


def telemetry(**environ: str) -> TelemetrySettings:
    configuration = load(environ)
    assert configuration.ignored == ()
    return configuration.telemetry


def test_service_name_and_resource_are_read_and_percent_decoded() -> None:
    read = telemetry(
        OTEL_SERVICE_NAME="shop", OTEL_RESOURCE_ATTRIBUTES="service.name=other, deployment.environment.name=a%2Cb ,team=%C3%A9,"
    )
    assert read.service_name == "shop"
    assert read.resource == {"deployment.environment.name": "a,b", "team": "é"}
    assert telemetry(OTEL_RESOURCE_ATTRIBUTES="service.name=other").service_name == "other"


def test_everything_else_takes_precedence_key_by_key() -> None:
    environ = {"OTEL_SERVICE_NAME": "standard", "OTEL_RESOURCE_ATTRIBUTES": "team=a,zone=1"}
    from_table = load(environ, {"service_name": "table", "resource": {"team": "b"}}).telemetry
    assert (from_table.service_name, from_table.resource) == ("table", {"team": "b", "zone": "1"})
    environ["EVENTCORE_TELEMETRY__SERVICE_NAME"] = "environment"
    assert load(environ, {"service_name": "table"}).telemetry.service_name == "environment"


def test_limits_of_spans_are_read_and_the_special_ones_count() -> None:
    read = telemetry(
        OTEL_ATTRIBUTE_COUNT_LIMIT="10",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="20",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="100",
        OTEL_SPAN_EVENT_COUNT_LIMIT="0",
        OTEL_SPAN_LINK_COUNT_LIMIT="999999999",
        OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT="",
    )
    expected = SpanLimits(attributes=20, events=0, links=1_000_000, event_attributes=10, link_attributes=10, text=100)
    assert read.span_limits == expected


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio", "follows_parent"),
    [
        ("parentbased_traceidratio", "0.25", 0.25, True),
        ("parentbased_always_on", "", 1.0, True),
        ("PARENTBASED_ALWAYS_OFF", "0.5", 0.0, True),
        ("traceidratio", "", 1.0, False),
        ("always_on", "", 1.0, False),
        ("always_off", "", 0.0, False),
    ],
)
def test_a_sampler_is_honoured_and_warned_about_once_if_it_is_not_parent_based(
    sampler: str,
    argument: str,
    ratio: float,
    follows_parent: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    chosen = Telemetry(config={}, exporters=[])._tracer.sampler
    expected = RatioSampler(ratio, follows_parent=follows_parent)
    assert isinstance(chosen, RatioSampler)
    assert (chosen._bound, chosen.follows_parent) == (expected._bound, follows_parent)
    assert [f"parentbased_{sampler}" in record.getMessage() for record in caplog.records] == [True] * (not follows_parent)


def test_a_rate_from_any_other_source_takes_the_place_of_the_sampler() -> None:
    environ = {"OTEL_TRACES_SAMPLER": "always_off"}
    assert load(environ).telemetry.sampler == "always_off"
    assert load(environ, {"traces_per_second": 5}).telemetry.sampler == ""
    assert load(environ, {"sampler": "parentbased_always_on"}).telemetry.sampler == "parentbased_always_on"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_RESOURCE_ATTRIBUTES", "team=a,nonsense"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=%ff"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "٣"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "9" * 5000),
    ],
)
def test_a_broken_value_is_one_warning_that_names_the_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configuration = load({variable: value})
    assert configuration.telemetry == TelemetrySettings()
    assert len(configuration.ignored) == 1
    monkeypatch.setenv(variable, value)
    Telemetry(config={}, exporters=[])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(variable)
    assert len(record.getMessage()) < 500


def test_a_broken_ratio_samples_every_trace_and_is_warned_about() -> None:
    for ratio in ("2", "half", "nan"):
        configuration = load({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio})
        assert (configuration.telemetry.sampler, configuration.telemetry.sampler_ratio) == ("parentbased_traceidratio", 1.0)
        assert [problem.split()[0] for problem in configuration.ignored] == ["OTEL_TRACES_SAMPLER_ARG"]


def test_boundaries_of_histograms_are_set_by_pattern_and_checked() -> None:
    telemetry = Telemetry(config={"telemetry": {"histograms": {"http.*": [0.1, 1]}}}, exporters=[])
    assert telemetry.timer("http.server.duration").boundaries == (0.1, 1.0)
    assert telemetry.timer("other").boundaries != (0.1, 1.0)
    faulty = load_configuration({"telemetry": {"histograms": {"a": [2, 1], "b": [1]}}}, environ={}, plugins=())
    (fault,) = faulty.faults
    assert fault.key == "telemetry.histograms.a"
    assert "ascending" in fault.problem
    assert faulty.telemetry.histograms == {"b": [1.0]}
