"""A store whose exporter has no backend closes within its own limit, and says what to do."""

from __future__ import annotations

import logging
import time

import pytest

from eventcore import open_store
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
