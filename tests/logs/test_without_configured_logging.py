"""Where logging is not configured, Python writes only the message of a warning to standard error: it says whose it is."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from eventcore.ground import own_logger

PROGRAM = """
import asyncio
from eventcore import open_store, Telemetry
from eventcore.exporting import Exporter, hookimpl

class Shaky(Exporter):
    @hookimpl
    def export_counters(self, counters, timeout):
        raise OSError("nobody listens")

async def main():
    config = {"telemetry": {"series_limit": 2}, "exporters": {"shaky": {"pipeline": {"max_age": 0.2}}}}
    async with Telemetry(exporters=[], config=config) as telemetry:
        async with open_store("memory:", telemetry=telemetry) as store:
            telemetry.register_exporter(Shaky())
            counter = telemetry.counter("orders", labels=("customer",))
            for number in range(5):
                counter.labels(str(number)).add(1)
            await telemetry.flush(1.0)
        await telemetry.shutdown(1.0)

asyncio.run(main())
"""


@pytest.mark.once
def test_a_warning_on_a_terminal_names_eventcore_and_the_exporter() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Traceback", "OSError"))]
    assert lines
    assert all(line.startswith("eventcore.") for line in lines), done.stderr
    assert any(line.startswith("eventcore.exporters.shaky: ") and "nobody listens" in line for line in lines), done.stderr
    assert any(line.startswith("eventcore.recording.kinds: 'orders' takes no further series") for line in lines), done.stderr


@pytest.fixture
def bare_logger() -> Iterator[logging.Logger]:
    logger = own_logger("eventcore.tests.bare")
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.propagate = True


def test_a_handler_of_the_application_gets_the_message_as_it_is(bare_logger: logging.Logger) -> None:
    records: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    bare_logger.addHandler(Kept())
    bare_logger.warning("%d %% done", 5)
    assert [record.getMessage() for record in records] == ["5 % done"]
