"""A store whose exporter has no backend closes within its own limit, and says what to do."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from eventcore import open_store
from eventcore.exporting import hookimpl
from tests.health.conftest import until
from tests.real_parts.ports import free_ports


async def test_closing_takes_no_longer_than_close_timeout_where_nothing_listens(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("eventcore_otel")
    (port,) = free_ports(1)
    config = {"exporters": {"otel": {"endpoint": f"http://127.0.0.1:{port}"}}}
    async with open_store("memory:", exporters=["otel"], config=config, close_timeout=2.0) as store:
        with store.telemetry.span("lost"):
            pass
        begun = time.monotonic()
    assert time.monotonic() - begun < 7  # the default is 10

    async def logged() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "not everything was delivered at shutdown" in record.getMessage()]

    # The exporter's thread may end a little later than the store.
    [line] = await until(logged, 5)
    assert line.name == "eventcore.exporters.otel"
    assert "EVENTCORE_EXPORTERS=none" in line.getMessage()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_close_timeout_that_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="close_timeout"):
        open_store("memory:", exporters="none", close_timeout=seconds)


class Hanging:
    """An exporter whose hook hangs until the test lets it go."""

    interval = 3600.0

    def __init__(self, hook: str, gate: threading.Event) -> None:
        self._hook = hook
        self._gate = gate

    @hookimpl
    def export_counters(self) -> None:
        self._hang("export_counters")

    @hookimpl
    def shutdown(self) -> None:
        self._hang("shutdown")

    def _hang(self, hook: str) -> None:
        if hook == self._hook:
            self._gate.wait(30)


@pytest.mark.parametrize(
    ("hook", "begins"),
    [("export_counters", "not everything was delivered at shutdown: "), ("shutdown", "not shut down in time: ")],
)
async def test_a_hook_that_hangs_beyond_close_timeout_is_named_in_one_record(
    caplog: pytest.LogCaptureFixture, hook: str, begins: str
) -> None:
    gate = threading.Event()
    async with open_store("memory:", exporters=[], config={}, close_timeout=0.5) as store:
        store.telemetry.register_exporter(Hanging(hook, gate), name="hanging")
        assert await asyncio.to_thread(store.telemetry.exporters()[0].started.wait, 10)  # type: ignore[union-attr]  # it runs
        store.telemetry.counter("test.things", unit="1", description="things").add(1)

    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "eventcore.exporters.hanging"]

    [record] = logged()
    assert record.startswith(f"{begins}hook {hook} has not returned for ")
    gate.set()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "eventcore-exporter-hanging"]
    await asyncio.to_thread(thread.join, 10)
    assert logged() == [record], "the late end adds nothing"
