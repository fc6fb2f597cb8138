"""The exporter as a plugin: entry point, configuration by its signature, light import, and no blocked event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from eventcore.errors import ConfigurationError
from eventcore.telemetry import Pipeline, Telemetry
from eventcore_prometheus import PrometheusExporter
from tests.real_parts.waiting import wait_until

Run = Callable[..., Any]
Request = Callable[..., Any]


def configured(**settings: Any) -> Telemetry:
    return Telemetry(config={"exporters": {"prometheus": settings}}, exporters=["prometheus"])


async def test_it_is_found_configured_and_served(request_: Request) -> None:
    settings = {
        "port": 0,
        "path": "/m",
        "rename": {"orders.shipped": "shop_shipped_total"},
        "scrape_timeout": 5,
        "max_requests": 3,
    }
    async with configured(**settings) as telemetry:
        (pipeline,) = telemetry.exporters()
        assert isinstance(pipeline, Pipeline)
        exporter = pipeline.handle.exporter
        assert isinstance(exporter, PrometheusExporter)
        assert pipeline.name == "prometheus"
        assert pipeline.interval is None
        url = await asyncio.to_thread(wait_until, lambda: exporter.url)
        telemetry.counter("orders.shipped").labels().add(2)
        assert "shop_shipped_total 2\n" in (await asyncio.to_thread(request_, url)).text
        assert url is not None
        assert url.endswith("/m")
    assert exporter.url is None


async def test_every_setting_of_the_wrong_type_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with configured(port="high", path=7, rename={"a": 1}, registry="default", prot=9):
            pass
    message = str(caught.value)
    for setting in ("port", "path", "rename", "registry", "prot"):
        assert f"exporters.prometheus.{setting}" in message
    assert "which only code can pass" in message


def test_importing_the_plugin_loads_nothing_heavy() -> None:
    heavy = ("prometheus_client", "http.server", "grpc")
    script = f"import eventcore_prometheus, sys; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.timing
async def test_ten_thousand_series_are_served_while_the_event_loop_goes_on(run: Run) -> None:
    running = await run(scrape_timeout=30.0)
    for instrument in range(5):
        counter = running.telemetry.counter(f"orders.kind{instrument}", labels=("country",))
        for series in range(1000):
            counter.labels(f"C{series}").add(series)
        waits = running.telemetry.histogram(f"wait.kind{instrument}", unit="s", labels=("country",))
        for series in range(1000):
            waits.labels(f"C{series}").record(series / 100)
    scrape = asyncio.create_task(asyncio.to_thread(running.scrape))
    lags: list[float] = []
    while not scrape.done():
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - begun - 0.001)
    answer = scrape.result()
    assert answer.status == 200
    assert answer.text.count("_count{") == 5000
    assert answer.text.count("_total{country") == 5000
    # The longest delay may come from other work of the machine; a blocked event loop delays more than one.
    assert sorted(lags)[int(len(lags) * 0.95)] < 0.01
