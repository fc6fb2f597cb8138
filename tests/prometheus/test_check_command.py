"""``eventcore check`` with the real exporter: its address is free, already served, or used by another program."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from eventcore.cli.pulling import fetch_page
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_prometheus import PrometheusExporter


def check(port: int, folder: Path, service_name: str = "") -> tuple[int, dict[str, Any]]:
    telemetry = f'[telemetry]\nservice_name = "{service_name}"\n' if service_name else ""
    (folder / "eventcore.toml").write_text(
        f'{telemetry}[exporters]\nenabled = ["prometheus"]\n[exporters.prometheus]\nport = {port}\n'
    )
    command = [sys.executable, "-m", "eventcore", "check", "--json", "--timeout", "5"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    return done.returncode, json.loads(done.stdout)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_free_address_shows_the_test_metric(tmp_path: Path) -> None:
    code, answer = check(free_port(), tmp_path)
    assert code == 0
    assert "the address was free" in str(answer)


async def test_an_address_that_serves_these_metrics_already_is_well(tmp_path: Path) -> None:
    import asyncio

    async with Telemetry(exporters="none") as telemetry:
        exporter = PrometheusExporter(port=free_port())
        telemetry.register_exporter(exporter)
        telemetry.counter("eventcore.test").add(1)
        (pipeline,) = telemetry.exporters()
        assert isinstance(pipeline, Pipeline)
        await asyncio.to_thread(pipeline.started.wait, 10)
        assert exporter.address is not None
        code, answer = await asyncio.to_thread(check, exporter.address[1], tmp_path)
    assert code == 0
    assert "already serves metrics of eventcore" in str(answer)


async def test_a_service_that_runs_is_not_joined_by_the_check_of_its_own_configuration(tmp_path: Path) -> None:
    import asyncio

    async with Telemetry(exporters="none", service_name="bank") as telemetry:
        exporter = PrometheusExporter(port=free_port())
        telemetry.register_exporter(exporter)
        telemetry.counter("eventcore.test").add(1)
        (pipeline,) = telemetry.exporters()
        assert isinstance(pipeline, Pipeline)
        await asyncio.to_thread(pipeline.started.wait, 10)
        assert exporter.address is not None
        assert exporter.url is not None
        code, answer = await asyncio.to_thread(check, exporter.address[1], tmp_path, "bank")
        page, failure = await asyncio.to_thread(fetch_page, exporter.url, time.monotonic() + 5)
    assert code == 0
    assert "already serves metrics of eventcore, from another process" in str(answer)
    assert page is not None, failure
    assert 'worker="1"' not in page
    assert "eventcore_check" not in page


def test_an_address_that_somebody_else_holds_is_named_with_the_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, answer = check(port, tmp_path)
    assert code == 1
    assert str(port) in str(answer)
