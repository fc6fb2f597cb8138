"""What the tests of the contract are given: the store that is tested, as a backend and as an application holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeAlias

import pytest
import pytest_asyncio

from eventcore.projections import Projection
from eventcore.store import EventStore, open_store
from eventcore.stores import Backend

MakeBackend: TypeAlias = Callable[[], Backend]
"""Gives a backend that is not open yet; all that one function gives are of the same store, which is empty at first."""

Run: TypeAlias = Callable[..., "asyncio.Task[None]"]

_CLOSE: Final = 10.0


class ReadModel(Protocol):
    """A table of positions in the database of the store, made by whoever provides it."""

    def write(self, transaction: Any, position: int) -> Awaitable[None] | None:
        """Add a row within a transaction of the store; ``async def`` where the store awaits its handlers, else ``def``."""
        ...

    async def positions(self) -> Sequence[int]:
        """What stands in the table, in the order of insertion, as another connection sees it."""
        ...


@asynccontextmanager
async def opened_store(backend: Backend) -> AsyncGenerator[EventStore]:
    """A store that exports nothing, on a backend."""
    async with open_store(backend, name="contract", config={}, exporters="none", timeout=30.0) as store:
        yield store


class ContractFixtures:
    """The fixtures of the contract. ``make_backend`` has to be overridden, ``read_model`` may be."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """A function that gives backends, not yet open, of one store that is empty at first."""
        raise NotImplementedError(
            f"{type(self).__name__} inherits the contract of stores: override its fixture make_backend so that it returns a "
            "function without arguments that gives a backend, not yet open; each call one more of the same store, which is "
            "empty at first and of this test's own"
        )

    @pytest.fixture
    def read_model(self) -> ReadModel | None:
        """A table in the store's database; ``None`` where handlers get no transaction."""
        return None

    @pytest_asyncio.fixture
    async def backend(self, make_backend: MakeBackend) -> AsyncIterator[Backend]:
        """The backend of an empty store."""
        backend = make_backend()
        await backend.open()
        yield backend
        await backend.close(_CLOSE)

    @pytest_asyncio.fixture
    async def another_backend(self, make_backend: MakeBackend, backend: Backend) -> AsyncIterator[Backend]:
        """A second backend of the same store, as in another process."""
        another = make_backend()
        await another.open()
        yield another
        await another.close(_CLOSE)

    @pytest_asyncio.fixture
    async def store(self, make_backend: MakeBackend) -> AsyncIterator[EventStore]:
        """An empty store."""
        async with opened_store(make_backend()) as store:
            yield store

    @pytest_asyncio.fixture
    async def another_store(self, make_backend: MakeBackend, store: EventStore) -> AsyncIterator[EventStore]:
        """A second one on the same data, as in another process."""
        async with opened_store(make_backend()) as another:
            yield another

    @pytest_asyncio.fixture
    async def run(self) -> AsyncIterator[Run]:
        """A function that runs a projection until the test is over, or its task is cancelled."""
        tasks: list[asyncio.Task[None]] = []

        def run(store: EventStore, projection: Projection, *, lease: float = 5.0) -> asyncio.Task[None]:
            tasks.append(asyncio.create_task(store.run(projection, lease=lease)))
            return tasks[-1]

        yield run
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE)
