"""``eventcore health``: what it prints, and its exit code."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from eventcore import open_store
from eventcore.cli import main
from eventcore.health import HealthListener, asgi_app
from eventcore.serving import Access
from tests.projections.models import Seen, deposit
from tests.real_parts.ports import free_ports
from tests.real_parts.waiting import wait_until

pytestmark = pytest.mark.once


Ask = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def health(capsys: pytest.CaptureFixture[str]) -> Ask:
    """A function that runs the command in a thread, and returns its exit code and what it printed; errors have a prefix."""

    async def health(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, ["health", *arguments])
        printed = capsys.readouterr()
        assert not (printed.out and printed.err)
        return code, printed.out or printed.err

    return health


async def test_it_is_a_command_of_its_own_process_for_probes_of_containers() -> None:
    store = open_store("memory:", exporters="none")
    with HealthListener(store, port=0) as listener:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "eventcore", "health", f"{listener.url}/readyz"), stdout=subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 1
    assert output.decode() == "unhealthy, not ready\n  unhealthy: store: the store has not been opened yet\n"


async def test_a_service_is_asked_over_http_and_the_code_says_whether_it_is_well(health: Ask) -> None:
    store = open_store("memory:", exporters="none")
    with HealthListener(store, port=0) as listener:
        assert await health(f"{listener.url}/livez") == (0, "healthy\n")
        assert (await health(f"{listener.url}/readyz"))[0] == 1
        async with store:
            store.add_health_check("mail", lambda: False)
            code, text = await health(listener.url, "--json")
            found: dict[str, Any] = json.loads(text)
            assert (code, found["ok"], found["status"]) == (0, True, "degraded")
            assert found["checks"]["mail"]["reason"] == "the check returned False"
            # Not the health of a store.
            code, text = await health(f"{listener.url}/data.json")
            assert (code, text) == (
                1,
                f"eventcore: {listener.url}/data.json answered 200, and not with the health of a store\n",
            )
            await store.drain()
            assert (await health(f"{listener.url}/readyz"))[0] == 1


async def test_the_path_of_a_mounted_application_leads_to_its_health(health: Ask) -> None:
    app = Starlette(routes=[Mount("/health", asgi_app(store := open_store("memory:", exporters="none")))])
    [port] = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
    async with store:
        serving = asyncio.create_task(server.serve())
        await asyncio.to_thread(wait_until, lambda: server.started)
        found = [await health(f"http://127.0.0.1:{port}{path}") for path in ("/health", "/health/", "/health/readyz")]
        others = [await health(f"http://127.0.0.1:{port}{path}") for path in ("/shop", "")]
        server.should_exit = True
        await asyncio.wait_for(serving, 10)
    assert found == [(0, "healthy\n")] * 3
    for asked, (code, text) in zip(("shop", "healthz"), others, strict=True):
        assert code == 1
        assert text == (
            f"eventcore: http://127.0.0.1:{port}/{asked} answered 404, and not with the health of a store; give the path where "
            f"the service has mounted its health, such as http://127.0.0.1:{port}/health\n"
        )


async def test_an_access_token_is_sent_from_the_command_line_or_the_environment(
    health: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "a-token-of-a-probe"
    async with open_store("memory:", exporters="none") as store:
        with HealthListener(store, port=0, access=Access(tokens=[token])) as listener:
            url = f"{listener.url}/readyz"
            code, text = await health(url)
            assert (code, "answered 401" in text, "EVENTCORE_HEALTH_TOKEN" in text) == (1, True, True)
            assert await health(url, "--token", token) == (0, "healthy\n")
            monkeypatch.setenv("EVENTCORE_HEALTH_TOKEN", token)
            assert await health(url) == (0, "healthy\n")
            assert (await health(url, "--token", "two\nlines"))[0] == 2


async def test_who_does_not_answer_is_not_well_and_a_wrong_url_has_a_code_of_its_own(health: Ask) -> None:
    [port] = free_ports(1)
    silent = socket.create_server(("127.0.0.1", 0))
    refused = await health(f"http://user:hunter2@127.0.0.1:{port}/readyz")
    late = await health(f"http://127.0.0.1:{silent.getsockname()[1]}/readyz", "--timeout", "0.3")
    silent.close()
    assert refused[0] == 1
    assert "Connection refused" in refused[1]
    assert "hunter2" not in refused[1]
    assert late[0] == 1
    assert "timed out" in late[1]
    assert (await health("gopher://somewhere"))[0] == 2
    assert await health("sqlite:////nowhere/shop.db") == (2, "eventcore: there is no file /nowhere/shop.db\n")


async def test_a_package_that_is_missing_is_no_sign_of_an_unhealthy_store(health: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the import system does where the package is not installed: importing it raises ImportError.
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    code, text = await health("postgresql://shop:hunter2@localhost/shop")
    assert code == 2
    assert text.startswith("eventcore: a PostgreSQL store needs asyncpg: pip install")


async def test_a_url_without_a_scheme_is_answered_with_that_of_a_service(health: Ask) -> None:
    for url in ("localhost:8101/health", "8101"):
        code, text = await health(url)
        assert code == 2
        assert text.rstrip().endswith("; or, for a running service, http://HOST:PORT/readyz")
    code, text = await health("sqlite://shop.db")
    assert "http" not in text


async def test_a_store_is_opened_and_checked_and_a_projection_that_nobody_runs_is_named(health: Ask, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with open_store(url, exporters="none") as store:
        await deposit(store, 2)
        running = asyncio.create_task(store.run(Seen()))
        await store.wait_for("seen", 2)
        code, text = await health(url)
        assert (code, text) == (0, "healthy\n")
    await running
    code, text = await health(url)
    assert code == 0
    # When the last runner ended is not known: how long the command looked is no answer.
    assert text == "degraded\n  unhealthy: projection:seen: no process runs it\n"
