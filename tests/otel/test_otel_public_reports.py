"""Reports from public trackers, each as it was told: what happened to others must not happen here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from eventcore.telemetry import Pipeline, Telemetry
from tests.otel.receiver import Receiver
from tests.real_parts import DdapmTestAgent, wait_until


@asynccontextmanager
async def configured_by_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> AsyncIterator[Telemetry]:
    """A telemetry with the plugin as it is installed, which only standard variables configure."""
    for name, text in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", text)
    async with Telemetry(exporters=["otel"], traces_per_second="all") as telemetry:
        assert telemetry.failed_exporters == ()
        telemetry.counter("orders.shipped").add(3)
        with telemetry.span("ship order"):
            pass
        yield telemetry


@pytest.mark.parametrize("url", ["http_endpoint", "http_endpoint/"])
async def test_a_backend_that_speaks_http_only_is_reached_by_the_variable_for_the_protocol(
    url: str, ddapm: DdapmTestAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kagent-dev/kagent#1682, Flagsmith/flagsmith#7812: the exporter spoke one protocol, whatever the variable said."""
    endpoint = ddapm.http_endpoint + url.removeprefix("http_endpoint")
    variables = {"EXPORTER_OTLP_PROTOCOL": "http/protobuf", "EXPORTER_OTLP_ENDPOINT": endpoint}
    async with configured_by_variables(monkeypatch, **variables) as telemetry:
        assert await telemetry.flush(10)
    assert [span.name for span in ddapm.spans()] == ["ship order"]
    assert ddapm.points("orders.shipped")[0].value == 3


async def test_an_endpoint_with_the_path_of_a_signal_does_not_stop_the_service(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """open-telemetry/opentelemetry-operator#862, open-telemetry/opentelemetry-collector#5319: a path in a gRPC endpoint."""
    async with configured_by_variables(monkeypatch, EXPORTER_OTLP_ENDPOINT=f"{receiver.endpoint}/v1/traces") as telemetry:
        assert await telemetry.flush(10)
    assert [span.name for span in receiver.spans()] == ["ship order"]
    assert [record.message for record in caplog.records if "OTEL_EXPORTER_OTLP_ENDPOINT" in record.message] == [
        f"OTEL_EXPORTER_OTLP_ENDPOINT='{receiver.endpoint}/v1/traces' is followed in part: "
        f"gRPC takes no path; {receiver.endpoint} is used"
    ]


async def test_a_disabled_sdk_sends_nothing_and_a_flush_is_true(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """crewAIInc/crewAI#1532, open-telemetry/opentelemetry-python#3184: spans were sent although the SDK was disabled."""
    variables = {"SDK_DISABLED": "true", "EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    async with configured_by_variables(monkeypatch, **variables) as telemetry:
        assert await telemetry.flush(10)
        [pipeline] = telemetry.exporters()
        assert isinstance(pipeline, Pipeline)
        assert (pipeline.state, pipeline.signals) == ("running", ())
    assert receiver.calls == 0


async def test_metrics_that_are_switched_off_are_not_sent_and_no_error_is_logged_for_ever(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """open-telemetry/opentelemetry-python#4686: metrics were exported, with errors, whatever was tried to stop it."""
    variables = {"METRICS_EXPORTER": "none", "EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    async with configured_by_variables(monkeypatch, **variables) as telemetry:
        assert await telemetry.flush(10)
    assert ([span.name for span in receiver.spans()], receiver.metrics()) == (["ship order"], [])
    assert caplog.records == []


async def test_the_preferred_temporality_reaches_the_wire(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """open-telemetry/opentelemetry-js#5529: the preference was set, and cumulative totals were sent."""
    variables = {
        "EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "METRIC_EXPORT_INTERVAL": "3600000",
    }
    async with configured_by_variables(monkeypatch, **variables) as telemetry:
        assert await telemetry.flush(10)
        telemetry.counter("orders.shipped").add(4)
        assert await telemetry.flush(10)
    sums = [metric.sum for metric in receiver.metrics() if metric.name == "orders.shipped"]
    assert [each.aggregation_temporality for each in sums] == [1, 1]
    assert [each.data_points[0].as_int for each in sums] == [3, 4]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EXPORTER_OTLP_TIMEOUT", "30s"),
        ("BSP_MAX_QUEUE_SIZE", "-1"),
        ("METRIC_EXPORT_INTERVAL", "0"),
        ("EXPORTER_OTLP_COMPRESSION", "snappy"),
    ],
)
async def test_a_number_that_is_none_is_a_warning_and_no_crash_at_the_start(
    name: str, text: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """open-telemetry/opentelemetry-js#6295, open-telemetry/opentelemetry-dotnet#7187: an invalid value threw at the start."""
    async with configured_by_variables(monkeypatch, **{name: text}, EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as telemetry:
        assert await telemetry.flush(10)
    assert sum(f"OTEL_{name}='{text}'" in record.message for record in caplog.records) == 1


async def test_a_timeout_of_0_is_no_limit(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """MindfulSoftwareLLC/dartastic_opentelemetry#59: the specification's 0 means no limit, and was refused."""
    variables = {"EXPORTER_OTLP_TIMEOUT": "0", "BSP_EXPORT_TIMEOUT": "0", "BSP_SCHEDULE_DELAY": "0"}
    async with configured_by_variables(monkeypatch, **variables, EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as telemetry:
        wait_until(receiver.spans)
        assert await telemetry.flush(10)


async def test_a_bearer_token_with_a_plain_space_is_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """open-telemetry/opentelemetry-python#3189: a header was refused because its space was not percent-encoded."""
    variables = {"EXPORTER_OTLP_HEADERS": "Authorization=Bearer eyJhbGciOiJIUzI1,broken"}
    async with configured_by_variables(monkeypatch, **variables, EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as telemetry:
        assert await telemetry.flush(10)
    assert receiver.metadata[0]["authorization"] == "Bearer eyJhbGciOiJIUzI1"
