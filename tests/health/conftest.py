from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from eventcore import EventStore, Projection, Telemetry, open_store
from eventcore.health import CheckResult, Health, HealthSettings, asgi_app
from tests.store.bank import Deposit, account

# Soon, so that a test need not wait for what a service waits for.
QUICK = HealthSettings(
    keep=0.0, interval=0.1, limit=0.5, nobody_after=0.5, stalled_after=0.5, blocked_after=0.5, dead_after=0.6, append_after=0.2
)


@pytest.fixture
async def telemetry() -> AsyncIterator[Telemetry]:
    async with Telemetry(exporters=[], traces_per_second="all") as telemetry:
        yield telemetry


@pytest.fixture
async def store(telemetry: Telemetry) -> AsyncIterator[EventStore]:
    async with open_store("memory:", telemetry=telemetry, health=QUICK) as store:
        yield store


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


async def get(store: EventStore, path: str, *, method: str = "GET", root_path: str = "") -> Answered:
    """One request to the ASGI application, without a server."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await asgi_app(store)({"type": "http", "method": method, "path": path, "root_path": root_path}, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answered(start["status"], headers, body["body"].decode())


async def until(condition: Callable[[], Awaitable[Any]], timeout: float = 10.0) -> Any:
    """Poll an asynchronous condition until its result is true, and return the result."""
    async with asyncio.timeout(timeout):
        while not (result := await condition()):
            await asyncio.sleep(0.02)
    return result


Run = Callable[..., "asyncio.Task[None]"]


@pytest.fixture
async def run(store: EventStore) -> AsyncIterator[Run]:
    """Run a projection until the end of the test."""
    tasks: list[asyncio.Task[None]] = []

    def run(projection: Projection, on: EventStore = store) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(on.run(projection)))
        return tasks[-1]

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def deposit(store: EventStore, times: int = 1) -> None:
    for _ in range(times):
        await store.execute(Deposit(account=account("a")))


async def check(store: EventStore, name: str) -> CheckResult:
    return (await store.health()).checks[name]


async def when(store: EventStore, condition: Callable[[Health], bool]) -> Health | None:
    health = await store.health()
    return health if condition(health) else None
