"""The applications in docs/prometheus.md answer scrapes at `/metrics`, without a redirect."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from werkzeug.test import Client

from tests.docs.test_documentation import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/prometheus.md"


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def program(word: str) -> dict[str, Any]:
    """What the block that contains a word defines."""
    [source] = [text for text in blocks(PAGE, "python") if word in text]
    defined: dict[str, Any] = {"__name__": "page"}
    exec(compile(source, str(PAGE), "exec"), defined)  # the documentation's own program
    return defined


def is_a_page(text: str) -> None:
    assert re.search(r"^process_cpu_seconds_total [\d.e+-]+$", text, re.MULTILINE), text


@pytest.mark.parametrize("word", ["FastAPI(", "Starlette("])
def test_fastapi_and_starlette(word: str) -> None:
    app = program(word)["app"]

    async def ask() -> tuple[httpx.Response, ...]:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return (
                await client.get("/metrics", headers={"Accept": "text/plain"}),
                await client.head("/metrics"),
                await client.get("/metrics/none"),
            )

    answer, head, missing = asyncio.run(ask())
    assert (answer.status_code, head.status_code, missing.status_code) == (200, 200, 404)
    is_a_page(answer.text)
    assert "eventcore_store_up" in answer.text


def test_flask() -> None:
    defined = program("Flask(")
    defined["app"].add_url_rule("/", view_func=lambda: "the shop")
    try:
        client = Client(defined["app"])
        answer = client.get("/metrics")
        assert (answer.status_code, client.get("/").text) == (200, "the shop")
        is_a_page(answer.text)
        assert client.head("/metrics").data == b""
        assert client.post("/metrics").status_code == 405
    finally:
        defined["telemetry"].shutdown_blocking()
    assert client.get("/metrics").status_code == 503


def test_django() -> None:
    # In a process of its own, because Django can be configured once in a process only.
    source = next(text for text in blocks(PAGE, "python") if "get_asgi_application" in text)
    settings = 'import sys, types\nshop = types.ModuleType("shop.settings")\nshop.ROOT_URLCONF = "shop.settings"\n'
    settings += 'shop.urlpatterns = []\nshop.SECRET_KEY = "test"\nshop.ALLOWED_HOSTS = ["*"]\nshop.DEBUG = False\n'
    settings += 'sys.modules["shop"] = types.ModuleType("shop")\nsys.modules["shop.settings"] = shop\n'
    asks = """
import asyncio, httpx

async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        for path in ("/metrics", "/other"):
            answer = await client.get(path)
            print(path, answer.status_code, "process_cpu_seconds_total " in answer.text)

asyncio.run(ask())
telemetry.shutdown_blocking()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", settings + source + asks]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.stdout == "/metrics 200 True\n/other 404 False\n", done.stderr


def test_a_batch_job_leaves_its_last_values(tmp_path: Path) -> None:
    program("write_to_textfile")
    assert "rows_copied_total 3.0\n" in (tmp_path / "job.prom").read_text()


def test_a_plain_mount_redirects_as_the_page_says() -> None:
    async def ask() -> int:
        from starlette.applications import Starlette

        from eventcore_prometheus import PrometheusExporter

        app = Starlette()
        app.mount("/metrics", PrometheusExporter(port=None).asgi_app())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            return (await client.get("/metrics")).status_code

    assert asyncio.run(ask()) == 307
