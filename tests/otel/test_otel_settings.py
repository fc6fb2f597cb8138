"""Parameters, the standard OTEL_* variables, and secrets."""

from __future__ import annotations

import copy
import subprocess
import sys
import traceback
import typing

import msgspec
import pytest

from eventcore.exporting import Secret
from eventcore_otel import OpenTelemetryExporter
from eventcore_otel.settings import Destination, Parameters, Settings, Tls


def resolve(variables: dict[str, str] | None = None, **parameters: typing.Any) -> Settings:
    return Settings.resolve(Parameters(**parameters), variables or {})


def headers_of(destination: Destination) -> dict[str, str]:
    return {name: value.reveal() for name, value in destination.headers}


def test_without_any_setting_the_local_collector_is_used_in_plain_text() -> None:
    settings = resolve()
    assert settings.metrics == settings.traces == Destination("localhost:4317", None, (), 10.0, False)


@pytest.mark.parametrize(
    ("endpoint", "target", "tls"),
    [
        ("http://collector:4317", "collector:4317", False),
        ("http://collector:4317/", "collector:4317", False),
        ("HTTPS://collector:9999", "collector:9999", True),
        ("http://collector", "collector:4317", False),
        ("https://collector", "collector:443", True),
        ("http://[::1]:4317", "[::1]:4317", False),
        ("collector:4317", "collector:4317", True),
        ("dns:///collector:4317", "dns:///collector:4317", True),
        ("unix:/run/otel.sock", "unix:/run/otel.sock", True),
    ],
)
def test_an_endpoint_says_where_and_whether_with_tls(endpoint: str, target: str, tls: bool) -> None:
    destination = resolve(endpoint=endpoint).traces
    assert (destination.target, destination.tls is not None) == (target, tls)


def test_an_endpoint_without_a_scheme_is_plain_when_insecure() -> None:
    assert resolve(endpoint="collector:4317", insecure=True).traces.tls is None
    assert resolve({"OTEL_EXPORTER_OTLP_INSECURE": "true"}, endpoint="collector:4317").metrics.tls is None


def test_the_scheme_wins_over_the_variable_insecure() -> None:
    assert resolve({"OTEL_EXPORTER_OTLP_INSECURE": "true"}, endpoint="https://collector").traces.tls == Tls()
    assert resolve({"OTEL_EXPORTER_OTLP_INSECURE": "false"}, endpoint="http://collector").traces.tls is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoint": "http://c:1", "insecure": False}, "insecure=False contradicts the scheme http:// of endpoint"),
        ({"endpoint": "https://c:1", "insecure": True}, "insecure=True contradicts the scheme https:// of endpoint"),
        ({"endpoint": "http://c:4318/v1/traces"}, "this looks like an OTLP/HTTP endpoint"),
        ({"endpoint": "http://"}, "names no host"),
        ({"endpoint": ""}, "endpoint: expected a URL like"),
        ({"endpoint": "http://c:port"}, "endpoint: Port could not be cast"),
        ({"endpoint": "ftp://c:4317"}, "not an endpoint that gRPC knows"),
        ({"timeout": 0}, "timeout=0: expected seconds, more than 0"),
        ({"timeout": float("nan")}, "timeout=nan: expected seconds"),
        ({"compression": "zstd"}, "compression='zstd': expected gzip or none"),
        ({"service_name": ""}, "service_name: expected a text that is not empty"),
        ({"resource_attributes": {"a": [1]}}, "resource_attributes['a']: expected a str, bool, int or float, not list"),
        ({"endpoint": "https://c", "client_key": "k.pem"}, "client_certificate and client_key: expected both or neither"),
        ({"headers": {"grpc-timeout": "1"}}, "the name 'grpc-timeout' is reserved by gRPC"),
    ],
)
def test_a_bad_parameter_is_named_with_what_was_expected(settings: dict[str, typing.Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is compared below, without the escapes of a pattern
        resolve(**settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "expected grpc, the one protocol this exporter speaks"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "expected grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/v1/metrics", "gRPC takes no path"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "expected milliseconds, more than 0"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "-1", "expected milliseconds, more than 0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "expected gzip or none"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c", "expected key=value pairs separated by commas (item 2 is none)"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%ff", "expected percent-encoded UTF-8 (item 1 is not)"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "expected key=value pairs"),
    ],
)
def test_a_bad_variable_is_named_with_what_was_expected(name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # as above
        resolve({name: text})
    assert name in str(caught.value)
    assert said in str(caught.value)


def test_a_flag_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_INSECURE='yes': expected true or false"):
        resolve({"OTEL_EXPORTER_OTLP_INSECURE": "yes"}, endpoint="c:1")


def test_all_faults_are_reported_at_once_and_each_once() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # as above
        resolve({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, timeout=-1, compression="zip")
    assert str(caught.value).count("timeout=-1") == 1
    assert "compression='zip'" in str(caught.value)
    assert str(caught.value).count("OTEL_EXPORTER_OTLP_PROTOCOL") == 1


def test_a_signals_own_variable_wins_over_the_general_one() -> None:
    settings = resolve(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://both:1",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces:2",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "b=2",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "4000",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2000",
            "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "ca.pem",
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": "cert.pem",
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "key.pem",
        }
    )
    assert settings.metrics.target == "both:1"
    assert settings.metrics.tls is None
    assert settings.traces.target == "traces:2"
    assert settings.traces.tls == Tls("ca.pem", "cert.pem", "key.pem")
    assert (headers_of(settings.metrics), headers_of(settings.traces)) == ({"b": "2"}, {"a": "1"})
    assert (settings.metrics.timeout, settings.traces.timeout) == (4.0, 2.0)
    assert (settings.metrics.gzip, settings.traces.gzip) == (True, False)


def test_a_parameter_wins_over_every_variable() -> None:
    settings = resolve(
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://variable:1",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
            "OTEL_SERVICE_NAME": "variable",
        },
        endpoint="http://parameter:2",
        headers={"A": "2"},
        timeout=3,
        service_name="parameter",
    )
    assert settings.traces.target == "parameter:2"
    assert headers_of(settings.traces) == {"a": "2"}
    assert settings.traces.timeout == 3.0
    assert dict(settings.resource) == {"service.name": "parameter"}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert resolve({"OTEL_EXPORTER_OTLP_ENDPOINT": " ", "OTEL_EXPORTER_OTLP_PROTOCOL": ""}) == resolve()


@pytest.mark.parametrize(("text", "seconds"), [("10000", 10.0), ("500", 0.5), ("100", 0.1), ("10", 10.0), ("0.5", 0.5)])
def test_a_timeout_is_milliseconds_unless_it_can_only_be_seconds(text: str, seconds: float) -> None:
    assert resolve({"OTEL_EXPORTER_OTLP_TIMEOUT": text}).traces.timeout == seconds


def test_headers_and_resource_attributes_are_percent_decoded() -> None:
    settings = resolve(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20a%3Db%2Cc, x-tenant = t ",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=weak,team=%C3%A9quipe,",
            "OTEL_SERVICE_NAME": "strong",
        }
    )
    assert headers_of(settings.traces) == {"authorization": "Bearer a=b,c", "x-tenant": "t"}
    assert dict(settings.resource) == {"service.name": "strong", "team": "équipe"}


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"authorization": "s3cr3t\n"}},
        {"headers": {"authorization": Secret("s3cr3té")}},
        {"headers": {"s3cr3t in the name": "x"}},
        {"headers": {"a": "s3cr3t"}, "timeout": -1},
        {"endpoint": "http://user:s3cr3t@collector:4317"},
        {"endpoint": "user:s3cr3t@collector:4317"},
    ],
)
def test_no_error_ever_shows_a_secret(settings: dict[str, typing.Any]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # any text will do that does not have the secret
        resolve(**settings)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", ["a=s3cr3t%0A", "s3cr3t", "s3cr3t name=1", "=s3cr3t", "a=s3cr3t%ff"])
def test_no_error_shows_what_the_variable_for_headers_holds(text: str) -> None:
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        resolve({"OTEL_EXPORTER_OTLP_HEADERS": text})
    assert "s3cr3t" not in str(caught.value)


def test_nothing_that_can_be_printed_shows_a_header() -> None:
    exporter = OpenTelemetryExporter(headers={"authorization": "s3cr3t"})
    shown = [repr(exporter), str(exporter), repr(vars(exporter)), repr(Parameters(headers={"a": "s3cr3t"}))]
    assert not [text for text in shown if "s3cr3t" in text]


@pytest.mark.parametrize(("text", "warned"), [("delta", True), ("lowmemory", True), ("Cumulative", False), ("", False)])
def test_a_preference_that_is_not_followed_is_said_at_the_start(
    text: str, warned: bool, drive: typing.Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", text)
    drive(endpoint="http://localhost:1")
    assert ("sent as cumulative totals" in caplog.text) is warned


def test_the_signature_can_be_read_by_core() -> None:
    hints = typing.get_type_hints(OpenTelemetryExporter.__init__)

    def make(kind: type, value: object) -> object:
        return Secret(str(value)) if kind is Secret else value

    headers = msgspec.convert({"authorization": "s3cr3t"}, hints["headers"], dec_hook=make)
    assert headers == {"authorization": Secret("s3cr3t")}
    assert msgspec.convert({"n": 1, "text": "x"}, hints["resource_attributes"]) == {"n": 1, "text": "x"}
    assert msgspec.convert("gzip", hints["compression"]) == "gzip"
    OpenTelemetryExporter(headers=headers)


def test_a_copy_made_before_the_start_is_as_good_as_the_original() -> None:
    exporter = OpenTelemetryExporter(endpoint="http://c:1")
    assert repr(copy.copy(exporter)) == repr(exporter)


def test_importing_and_constructing_loads_neither_grpc_nor_opentelemetry() -> None:
    code = (
        "import sys, eventcore_otel; eventcore_otel.OpenTelemetryExporter();"
        "print([m for m in ('grpc', 'google', 'opentelemetry') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"
