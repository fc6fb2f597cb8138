"""``eventcore plugins prometheus`` names the instruments that a running process does not show."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from eventcore import open_store
from eventcore_prometheus import PrometheusExporter
from tests.real_parts.waiting import wait_until


@pytest.mark.once
async def test_the_instruments_that_a_running_process_does_not_show_are_named(tmp_path: Path) -> None:
    exporter = PrometheusExporter(port=0)
    async with open_store("memory:", exporters=[]) as store:
        store.register_exporter(exporter)
        store.telemetry.gauge("orders.total").set(5)
        store.telemetry.counter("orders").add(1)
        await asyncio.to_thread(wait_until, lambda: exporter.address)
        assert exporter.address is not None
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "EVENTCORE_EXPORTERS": "prometheus"}
        environment["EVENTCORE_EXPORTERS__PROMETHEUS__PORT"] = str(exporter.address[1])

        async def ask(*options: str) -> str:
            command = [sys.executable, "-m", "eventcore", "plugins", "prometheus", *options]
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe)
            out, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            return out.decode()

        text, answer = await ask(), await ask("--json")
    assert "not shown     instruments: 1 collision: orders (collision)" in text
    live: dict[str, Any] = json.loads(answer)["live"]
    assert live["hidden"] == {"collision": 1, "invalid": 0, "filtered": 0}
    assert live["hidden_names"] == {"orders": "collision"}
