"""Fixtures for the tests of eventcore-otel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from eventcore.exporting import Resource
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver, receiving
from tests.otel.values import Driver

Drive = Callable[..., Driver]


@pytest.fixture(autouse=True)
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove OTEL_* variables that the machine has set."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """Starts an exporter with the given settings; it is shut down when the test ends."""
    drivers: list[Driver] = []

    def start(resource: Resource | None = None, **settings: object) -> Driver:
        driver = Driver(OpenTelemetryExporter(**settings), resource)  # type: ignore[arg-type]  # each test gives right ones
        drivers.append(driver)
        return driver

    yield start
    for driver in drivers:
        driver.shutdown()
