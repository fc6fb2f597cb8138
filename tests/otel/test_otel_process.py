"""The OTLP exporter in a process of its own, to a real collector."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from eventcore.errors import ConfigurationError
from eventcore.telemetry import Telemetry
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver
from tests.pipeline.conftest import eventually
from tests.real_parts.rotel import Rotel

# Processes and servers, whose behaviour does not depend on the interpreter.
pytestmark = [pytest.mark.once, pytest.mark.timeout(90)]


def pipeline_of(telemetry: Telemetry) -> Any:
    [pipeline] = telemetry.exporters()
    return pipeline


def telemetry_in_a_process(endpoint: str, **pipeline: Any) -> Telemetry:
    settings = {"process": True, "interval": 3600.0, "backoff": 0.05, "max_backoff": 0.1, "export_timeout": 30.0, **pipeline}
    otel = {"endpoint": endpoint, "insecure": True, "pipeline": settings}
    telemetry = Telemetry(config={"exporters": {"otel": otel}}, exporters=["otel"], traces_per_second="all")
    telemetry.start_blocking()
    eventually(lambda: pipeline_of(telemetry).state == "running", 30)
    return telemetry


def test_the_account_adds_up_when_the_process_is_killed_at_random_while_spans_flow(rotel: Rotel) -> None:
    telemetry = telemetry_in_a_process(rotel.grpc_endpoint, span_interval=0.01, span_batch=50)
    seed = random.randrange(10**6)
    chance, kills, recorded = random.Random(seed), 0, 0
    pids: set[int] = set()
    begun = time.monotonic()
    while kills < 3:
        assert time.monotonic() - begun < 60, f"seed {seed}"
        for _ in range(25):
            telemetry.span(f"span {recorded}").end()
            recorded += 1
        time.sleep(0.005)
        process = pipeline_of(telemetry).handle._process
        if process is not None and process.pid not in pids and pipeline_of(telemetry).stats().spans.exported:
            # At any point of a cycle: while spans are packed, sent to it, converted, sent on, or acknowledged.
            time.sleep(chance.random() * 0.05)
            os.kill(process.pid, signal.SIGKILL)
            pids.add(process.pid)
            kills += 1
    report = telemetry.shutdown_blocking(30.0)["otel"]
    dropped = sum(report.spans_dropped.values())
    assert recorded == report.spans_recorded == report.spans_exported + dropped + report.spans_unknown, f"seed {seed}: {report}"
    assert report.spans_pending == 0
    received = [span.span_id for span in rotel.spans()]
    assert len(set(received)) == len(received), f"seed {seed}: {report}"  # unknown ones are not sent again
    assert report.spans_exported <= len(received) <= report.spans_exported + report.spans_unknown, f"seed {seed}: {report}"
    assert report.spans_exported > 0


_PROGRAM = """
import sys
from eventcore.telemetry import Telemetry
from opentelemetry import trace

telemetry = Telemetry(exporters=["otel"], config={"exporters": {"otel": {"activate": "always", "pipeline": {"process": True}}}})
telemetry.start_blocking()
telemetry.flush_blocking(30.0)  # it is asked when the exporter has started
with telemetry.span("ship") as span:
    entered = span.enter()
    current = trace.get_current_span().get_span_context()
    print(current.trace_id == span.trace_id, current.span_id == span.span_id)
    span.leave(entered)
print(bool(telemetry.shutdown_blocking(30.0)))
print(sorted(name for name in ("grpc", "google.protobuf", "opentelemetry.sdk") if name in sys.modules))
"""


def test_the_stores_process_has_the_ambient_context_and_no_grpc(receiver: Receiver) -> None:
    secret = "s3cret-token"
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "EVENTCORE_EXPORTERS__OTEL__HEADERS": f"{{authorization = 'Bearer {secret}'}}",
        "OTEL_SERVICE_NAME": "shop",
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.splitlines(), done.returncode) == (["True True", "True", "[]"], 0), done.stderr
    assert [span.name for span in receiver.spans()] == ["ship"]
    assert receiver.metadata[0]["authorization"] == f"Bearer {secret}"
    assert receiver.resources()[0]["service.name"] == "shop"


def faults_of(start: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        start()
    return str(raised.value)


def test_a_pull_exporter_is_refused_with_advice() -> None:
    telemetry = Telemetry(exporters=["prometheus"], config={"exporters": {"prometheus": {"pipeline": {"process": True}}}})
    faults = faults_of(telemetry.start_blocking)
    assert "exporters.prometheus.pipeline.process" in faults
    assert "'prometheus' is a pull exporter, which answers scrapes from the store's process; leave 'process' out" in faults


def test_an_instance_is_refused_with_advice() -> None:
    telemetry = Telemetry(exporters=[], config={"exporters": {"otel": {"pipeline": {"process": True}}}})
    faults = faults_of(lambda: telemetry.register_exporter(OpenTelemetryExporter(), name="otel"))
    assert "exporters.otel.pipeline.process" in faults
    assert "let the configuration load the exporter" in faults
    assert telemetry.exporters() == ()


def test_settings_that_only_this_process_has_are_refused_with_advice() -> None:
    class Local(str):
        def __reduce__(self) -> Any:
            raise TypeError("only here")

    otel = {"endpoint": Local("http://localhost:4317"), "pipeline": {"process": True}}
    telemetry = Telemetry(exporters=["otel"], config={"exporters": {"otel": otel}})
    faults = faults_of(telemetry.start_blocking)
    assert "its settings cannot be given to another process (TypeError: only here)" in faults


def test_a_setting_whose_class_is_of_the_main_module_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(str):
        __module__ = "__main__"

    # So that this process can pickle it.
    Local.__qualname__ = "Local"
    monkeypatch.setattr(sys.modules["__main__"], "Local", Local, raising=False)
    otel = {"headers": {"authorization": Local("s3cret")}, "pipeline": {"process": True}}
    telemetry = Telemetry(exporters=["otel"], config={"exporters": {"otel": otel}})
    faults = faults_of(telemetry.start_blocking)
    assert (
        "its settings cannot be given to another process (TypeError: Local is defined in the program's main module)" in faults
    )
    assert "s3cret" not in faults
