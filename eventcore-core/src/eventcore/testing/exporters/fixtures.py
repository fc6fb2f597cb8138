"""Pytest fixtures. In a ``conftest.py``: ``pytest_plugins = ["eventcore.testing.exporters.fixtures"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventcore.testing.exporters.clock import MovableClock
from eventcore.testing.exporters.recording import RecordingTelemetry


@pytest.fixture
def clock() -> Iterator[MovableClock]:
    """The clock of eventcore, which the test moves by ``advance``; removed after the test."""
    clock = MovableClock()
    clock.install()
    try:
        yield clock
    finally:
        clock.remove()


@pytest.fixture
def telemetry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingTelemetry]:
    """A telemetry of this test alone, whose values and spans can be checked; see ``RecordingTelemetry``.

    Until the test ends, no other telemetry of this process loads an exporter. If the test uses the fixture ``clock``, its
    ``advance`` wakes the exporters.
    """
    monkeypatch.setenv("EVENTCORE_EXPORTERS", "none")
    telemetry = RecordingTelemetry()
    if "clock" in request.fixturenames:
        clock: MovableClock = request.getfixturevalue("clock")
        clock.on_advance = telemetry.wake_exporters
    yield telemetry
    telemetry.shutdown_blocking(10)
