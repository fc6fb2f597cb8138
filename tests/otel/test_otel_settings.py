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


@pytest.mark.conforms("OTLP exporter", "The scheme of the endpoint takes precedence over `insecure`.")
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
        ({"protocol": "http/json"}, "protocol='http/json': expected 'grpc' or 'http/protobuf'"),
        ({"temporality": "sometimes"}, "temporality='sometimes': expected cumulative, delta or lowmemory"),
        ({"span_exporter": "jaeger"}, "span_exporter='jaeger': expected an installed exporter (otlp, console, "),
        ({"metric_exporter": 5}, "metric_exporter: expected an exporter of OpenTelemetry's SDK or its name, not int"),
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


@pytest.mark.conforms("Variables", "A value that cannot be understood is a warning, and counts as not set.")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "expected grpc or http/protobuf; it is ignored"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/v1/metrics", "gRPC takes no path; http://c:4318 is used"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c:4318", "not an endpoint that gRPC knows"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "expected milliseconds, 0 or more; it is ignored"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "-1", "expected milliseconds, 0 or more"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "deflate", "expected gzip or none; it is ignored"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "pair 1 is left out: expected key=value pairs"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem", "is ignored: expected both a client certificate and its key"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "1", "expected true or false; it is ignored"),
        ("OTEL_SDK_DISABLED", "yes", "expected true or false; it is ignored"),
        ("OTEL_TRACES_EXPORTER", "jaeger", "expected an installed exporter (otlp, console, otlp_proto_grpc, "),
        ("OTEL_TRACES_EXPORTER", "otlp,console", "is followed in part: otlp is used; register a further exporter"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "is not followed in part: Prometheus scrapes"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "expected milliseconds, more than 0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "99999999", "expected milliseconds, at most one hour"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1e6", "expected a whole number, more than 0"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "low", "expected cumulative, delta or lowmemory"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on", "is not followed: exemplars come from sampled spans only"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "no", "expected trace_based, always_off or always_on"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "base2_exponential_bucket_histogram",
            "is not followed: histograms have explicit buckets",
        ),
        ("OTEL_CONFIG_FILE", "otel.yaml", "is not followed: configure eventcore in eventcore.toml"),
    ],
)
def test_a_variable_that_cannot_be_followed_is_one_warning_that_names_it(name: str, text: str, said: str) -> None:
    parameters = {"CLIENT_KEY": "https://c:1", "INSECURE": "c:1"}
    endpoint = next((value for part, value in parameters.items() if part in name), None)
    [warning] = resolve({name: text}, endpoint=endpoint).warnings
    assert warning.startswith(name)
    assert said in warning


def test_all_faults_are_reported_at_once_and_each_once() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # as above
        resolve({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, timeout=-1, compression="zip")
    assert str(caught.value).count("timeout=-1") == 1
    assert "compression='zip'" in str(caught.value)
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" not in str(caught.value)


def test_a_broken_header_does_not_lose_the_token_beside_it() -> None:
    settings = resolve({"OTEL_EXPORTER_OTLP_HEADERS": "broken,authorization=Bearer%20t,grpc-timeout=1,a=%ff"})
    assert headers_of(settings.traces) == {"authorization": "Bearer t"}
    [warning] = settings.warnings
    assert "Bearer" not in warning


@pytest.mark.conforms("OTLP exporter", "The options of one signal take precedence over the general ones.")
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
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            "OTEL_TRACES_EXPORTER": "console",
        },
        endpoint="http://parameter:2",
        headers={"A": "2"},
        timeout=3,
        temporality="cumulative",
        span_exporter="otlp",
    )
    assert settings.exporters == {"metrics": "otlp", "traces": "otlp"}
    assert settings.temporality == "cumulative"
    assert settings.traces.target == "parameter:2"
    assert headers_of(settings.traces) == {"a": "2"}
    assert settings.traces.timeout == 3.0


@pytest.mark.conforms("Variables", "An empty value counts as not set.")
def test_an_empty_variable_counts_as_not_set() -> None:
    assert resolve({"OTEL_EXPORTER_OTLP_ENDPOINT": " ", "OTEL_EXPORTER_OTLP_PROTOCOL": ""}) == resolve()


@pytest.mark.conforms("Variables", "A timeout of 0 is no limit.")
@pytest.mark.parametrize(
    ("text", "seconds"), [("10000", 10.0), ("500", 0.5), ("100", 0.1), ("10", 10.0), ("0.5", 0.5), ("0", 3600.0)]
)
def test_a_timeout_is_milliseconds_unless_it_can_only_be_seconds(text: str, seconds: float) -> None:
    assert resolve({"OTEL_EXPORTER_OTLP_TIMEOUT": text}).traces.timeout == seconds


@pytest.mark.conforms("OTLP exporter", "Headers are pairs separated by commas, percent-encoded.")
def test_headers_are_percent_decoded() -> None:
    settings = resolve({"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20a%3Db%2Cc, x-tenant = t ,"})
    assert headers_of(settings.traces) == {"authorization": "Bearer a=b,c", "x-tenant": "t"}


def test_what_core_reads_for_every_exporter_does_not_override_core() -> None:
    settings = resolve({"OTEL_RESOURCE_ATTRIBUTES": "team=a,broken", "OTEL_SERVICE_NAME": "weak"}, service_name="strong")
    assert settings.resource == (("service.name", "strong"),)
    assert settings.warnings == ()


@pytest.mark.parametrize("text", ["GZIP", "gzip", "Gzip"])
def test_compression_is_read_in_any_case(text: str) -> None:
    assert resolve({"OTEL_EXPORTER_OTLP_COMPRESSION": text}).traces.gzip


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
def test_no_warning_shows_what_the_variable_for_headers_holds(text: str) -> None:
    [warning] = resolve({"OTEL_EXPORTER_OTLP_HEADERS": text}).warnings
    assert "OTEL_EXPORTER_OTLP_HEADERS" in warning
    assert "s3cr3t" not in warning


def test_nothing_that_can_be_printed_shows_a_header() -> None:
    exporter = OpenTelemetryExporter(headers={"authorization": "s3cr3t"})
    shown = [repr(exporter), str(exporter), repr(vars(exporter)), repr(Parameters(headers={"a": "s3cr3t"}))]
    assert not [text for text in shown if "s3cr3t" in text]


def test_warnings_are_logged_at_the_start(
    drive: typing.Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "deflate")
    drive(endpoint="http://localhost:1")
    [record] = caplog.records
    assert record.getMessage() == "OTEL_EXPORTER_OTLP_COMPRESSION='deflate': expected gzip or none; it is ignored"


@pytest.mark.conforms("Metrics", "The preference of temporality has three values, in any case of letters.")
@pytest.mark.parametrize("text", ["delta", "lowmemory", "Cumulative", "DELTA"])
def test_the_preferred_temporality_is_followed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", text)
    assert OpenTelemetryExporter().temporality == text.lower()


@pytest.mark.conforms("SDK", "Interval, delay, timeouts, queue and batch follow their variables.")
def test_intervals_queues_and_timeouts_of_the_sdk_are_defaults_of_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        "OTEL_METRIC_EXPORT_TIMEOUT": "7000",
        "OTEL_BSP_SCHEDULE_DELAY": "5000",
        "OTEL_BSP_EXPORT_TIMEOUT": "9000",
        "OTEL_BSP_MAX_QUEUE_SIZE": "3000",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100",
    }.items():
        monkeypatch.setenv(name, text)
    exporter = OpenTelemetryExporter()
    assert exporter.interval == 60.0
    assert exporter.pipeline_defaults == {
        "span_interval": 5.0,
        "span_queue": 3000,
        "span_batch": 100,
        "export_timeout": 9.0,
    }
    settings = Settings.resolve(Parameters())
    assert (settings.metrics.timeout, settings.traces.timeout) == (7.0, 9.0)


@pytest.mark.conforms("SDK", "`OTEL_SDK_DISABLED`, and `none` as an exporter, switch signals off.")
@pytest.mark.parametrize(
    ("variables", "signals"),
    [
        ({}, ("metrics", "spans")),
        ({"OTEL_METRICS_EXPORTER": "none"}, ("spans",)),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, ("spans",)),
        ({"OTEL_TRACES_EXPORTER": "None"}, ("metrics",)),
        ({"OTEL_SDK_DISABLED": "TRUE"}, ()),
        ({"OTEL_SDK_DISABLED": "false"}, ("metrics", "spans")),
    ],
)
def test_a_signal_that_a_variable_switches_off_is_not_exported(
    variables: dict[str, str], signals: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert OpenTelemetryExporter(endpoint="http://c:4317").signals == signals


@pytest.mark.conforms("OTLP exporter", "Over HTTP, the path of the signal is appended to the general endpoint only.")
@pytest.mark.parametrize(
    ("variables", "urls"),
    [
        ({}, ("http://localhost:4318/v1/metrics", "http://localhost:4318/v1/traces")),
        ({"ENDPOINT": "https://c/otlp/"}, ("https://c/otlp/v1/metrics", "https://c/otlp/v1/traces")),
        ({"TRACES_ENDPOINT": "http://t/in"}, ("http://localhost:4318/v1/metrics", "http://t/in")),
    ],
)
def test_the_protocol_of_a_variable_is_followed_with_the_urls_of_the_specification(
    variables: dict[str, str], urls: tuple[str, str]
) -> None:
    settings = resolve(
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"} | {f"OTEL_EXPORTER_OTLP_{k}": v for k, v in variables.items()}
    )
    assert settings.exporters == {"metrics": "otlp_proto_http", "traces": "otlp_proto_http"}
    assert (settings.metrics.url, settings.traces.url) == urls
    assert settings.warnings == ()


def test_what_only_grpc_can_do_is_not_lost_by_a_variable_for_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    assert "'localhost:4317'" in repr(OpenTelemetryExporter(headers=lambda: {"authorization": "t"}))
    with pytest.raises(ValueError, match="need protocol='grpc'"):
        OpenTelemetryExporter(headers=lambda: {"authorization": "t"}, protocol="http/protobuf")


def test_a_variable_for_the_protocol_does_not_change_an_endpoint_that_code_gives() -> None:
    settings = resolve({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, endpoint="http://localhost:4317")
    assert settings.exporters == {"metrics": "otlp", "traces": "otlp"}
    assert resolve(endpoint="http://c:4318", protocol="http/protobuf").traces.url == "http://c:4318/v1/traces"


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
