"""The fixtures of tests/store, and a function that runs projections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from eventcore import EventStore, Projection
from tests.store.conftest import Measured, measured, sqlite_url, store, telemetry, url

__all__ = ["Measured", "Run", "measured", "run", "sqlite_url", "store", "telemetry", "url"]

Run = Callable[..., "asyncio.Task[None]"]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """A function that starts a projection. Its task is cancelled when the test ends."""
    tasks: list[asyncio.Task[None]] = []

    def run(store: EventStore, projection: Projection, *, lease: float = 5.0) -> asyncio.Task[None]:
        task = asyncio.create_task(store.run(projection, lease=lease))
        tasks.append(task)
        return task

    yield run
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=10)
