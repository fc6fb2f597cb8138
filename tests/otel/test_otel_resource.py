"""The resource: detectors of the SDK and of other packages, the container, and what replaces what."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.resources import ResourceDetector
from opentelemetry.sdk.trace import TracerProvider

import eventcore_otel.resource
from eventcore.exporting import Resource
from eventcore_otel.resource import container_id
from tests.otel.receiver import Receiver
from tests.otel.values import Driver, counter, span

Drive = Callable[..., Driver]

SCHEMA = "https://opentelemetry.io/schemas/1.30.0"
released = threading.Event()


class Cloud(ResourceDetector):
    """A detector of another package."""

    def detect(self) -> SdkResource:
        found: Any = {
            "cloud.region": "eu-1",
            "service.name": "detected",
            "zones": ("a", "b"),
            "service.instance.id": "detected",
        }
        return SdkResource(found, SCHEMA)


class Broken(ResourceDetector):
    def detect(self) -> SdkResource:
        raise RuntimeError("no metadata service")


class Hanging(ResourceDetector):
    def detect(self) -> SdkResource:
        released.wait(30)
        return SdkResource({})


@pytest.fixture
def detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_ours(group: str) -> list[EntryPoint]:
        ours = [EntryPoint(name.lower(), f"{__name__}:{name}", group) for name in ("Cloud", "Broken", "Hanging")]
        return [*entry_points(group=group), *ours]

    monkeypatch.setattr(eventcore_otel.resource, "entry_points", with_ours)
    monkeypatch.setattr(eventcore_otel.resource, "_TIMEOUT", 0.5)


def test_the_detectors_of_the_sdk_find_process_host_and_system(receiver: Receiver, drive: Drive) -> None:
    drive(endpoint=receiver.endpoint, resource_detectors=["process", "host", "os"], service_version="1.2.3").spans([span()])
    [found] = receiver.resources()
    assert found["process.pid"] == os.getpid()
    assert found["host.name"] == socket.gethostname()
    assert found["os.type"] == "linux"
    assert found["service.version"] == "1.2.3"
    assert (found["service.name"], found["service.instance.id"]) == ("from-core", "instance-1")
    assert found["telemetry.sdk.name"] == "eventcore"


@pytest.mark.conforms("Resource", "`OTEL_EXPERIMENTAL_RESOURCE_DETECTORS` names resource detectors.")
def test_the_variable_of_the_sdk_names_them_too(receiver: Receiver, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "otel, host ,service_instance")
    drive(endpoint=receiver.endpoint).spans([span()])
    [found] = receiver.resources()
    assert found["host.name"] == socket.gethostname()
    assert found["service.instance.id"] == "instance-1"
    assert "process.pid" not in found


@pytest.mark.usefixtures("detectors")
def test_what_core_and_the_settings_say_replaces_what_a_detector_finds(receiver: Receiver, drive: Drive) -> None:
    settings: dict[str, Any] = {"resource_detectors": ["cloud"], "resource_attributes": {"cloud.region": "us-2"}}
    drive(endpoint=receiver.endpoint, **settings).spans([span()])
    [found] = receiver.resources()
    assert (found["cloud.region"], found["service.name"], found["zones"]) == ("us-2", "from-core", ["a", "b"])
    assert found["service.instance.id"] == "instance-1"
    assert receiver.requests[0].resource_spans[0].schema_url == SCHEMA


@pytest.mark.conforms("Resource", "A resource detector that fails does not stop the export.")
@pytest.mark.usefixtures("detectors")
def test_a_detector_that_raises_or_hangs_is_left_out_and_named(
    receiver: Receiver, drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    begun = time.monotonic()
    driver = drive(endpoint=receiver.endpoint, resource_detectors=["broken", "hanging", "missing", "cloud"])
    assert time.monotonic() - begun < 5
    released.set()
    driver.spans([span()])
    assert receiver.resources()[0]["cloud.region"] == "eu-1"
    words = " ".join(record.getMessage() for record in caplog.records)
    assert "'broken' failed and is left out: RuntimeError: no metadata service" in words
    assert "'hanging' has not returned within 0.5 s" in words
    assert "'missing' is not installed; known are broken, cloud, container, hanging, host, os" in words


@pytest.mark.parametrize("configured", ["unknown_service:python", "orders"])
def test_a_service_without_a_name_has_the_one_of_the_tracer_provider(
    configured: str, receiver: Receiver, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider(resource=SdkResource.create({"service.name": "shop", "team": "a"}))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    drive(Resource((("service.name", configured),)), endpoint=receiver.endpoint).spans([span()])
    [found] = receiver.resources()
    assert found["service.name"] == ("orders" if configured == "orders" else "shop")
    assert "team" not in found


def test_a_tracer_provider_without_a_name_gives_none(receiver: Receiver, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(resource=SdkResource.create({})))
    drive(Resource((("service.name", "unknown_service:python"),)), endpoint=receiver.endpoint).spans([span()])
    assert receiver.resources()[0]["service.name"] == "unknown_service:python"


def test_a_resource_is_sent_once_a_request_however_large_it_is(receiver: Receiver, drive: Drive) -> None:
    resource = Resource(tuple((f"attribute.{n}", "x" * 50) for n in range(25)))
    driver = drive(resource, endpoint=receiver.endpoint)
    driver.metrics(*([counter(f"c{n}", {"a": n})] for n in range(50)))
    driver.spans(*([span(n)] for n in range(1, 51)))
    assert receiver.calls == 2
    assert len(receiver.resources()) == 2


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("cgroup", "4:memory:/docker/{id}"),
        ("cgroup", "0::/system.slice/docker-{id}.scope"),
        ("cgroup", "0::/kubepods/burstable/pod2f1/cri-containerd-{id}.scope"),
        ("mountinfo", "1 2 0:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/vda1 rw"),
    ],
)
def test_a_container_is_found_by_its_cgroup_or_its_mounts(tmp_path: Path, file: str, line: str) -> None:
    number = "0123456789abcdef" * 4
    (tmp_path / file).write_text(f"0::/\n{line.format(id=number)}\n")
    assert container_id([str(tmp_path / "missing"), str(tmp_path / file)]) == number


def test_outside_a_container_there_is_no_container_id(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/user.slice/session-1.scope\n")
    (tmp_path / "mountinfo").write_text(f"1 2 0:1 /{'a' * 64} /data rw - ext4 /dev/vda1 rw\n")
    assert container_id([str(tmp_path / "cgroup"), str(tmp_path / "mountinfo")]) == ""
