"""The fixtures of the contract: the tested store as backends, and as an application opens it."""

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
"""Returns a backend that is not open yet. All backends of one function share one store, which is empty at first."""

Run: TypeAlias = Callable[..., "asyncio.Task[None]"]

_CLOSE: Final = 10.0


class ReadModel(Protocol):
    """A table of positions in the database of the store. The author of the test class creates it."""

    def write(self, transaction: Any, position: int) -> Awaitable[None] | None:
        """Insert a row through a transaction of the store: ``async def`` if the store awaits its handlers, else ``def``."""
        ...

    async def positions(self) -> Sequence[int]:
        """The rows in the order of insertion, read through another connection."""
        ...


@asynccontextmanager
async def opened_store(backend: Backend, **settings: Any) -> AsyncGenerator[EventStore]:
    """An open store without exporters; ``settings`` are further arguments of ``open_store``."""
    async with open_store(backend, name="contract", config={}, exporters="none", timeout=30.0, **settings) as store:
        yield store


class ContractFixtures:
    """A test class must override ``make_backend``, and may override ``read_model``."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """A function without arguments; see ``MakeBackend``."""
        raise NotImplementedError(
            f"{type(self).__name__} inherits the contract of stores: override its fixture make_backend so that it returns a "
            "function without arguments, which returns a backend that is not open yet. All backends share one store, which is "
            "empty at first and used by this test only"
        )

    @pytest.fixture
    def read_model(self) -> ReadModel | None:
        """A table in the store's database; ``None`` if the store gives handlers no transaction."""
        return None

    @pytest_asyncio.fixture
    async def backend(self, make_backend: MakeBackend) -> AsyncIterator[Backend]:
        backend = make_backend()
        await backend.open()
        yield backend
        await backend.close(_CLOSE)

    @pytest_asyncio.fixture
    async def another_backend(self, make_backend: MakeBackend, backend: Backend) -> AsyncIterator[Backend]:
        """A second backend of the store of ``backend``, as another process has it."""
        another = make_backend()
        await another.open()
        yield another
        await another.close(_CLOSE)

    @pytest_asyncio.fixture
    async def store(self, make_backend: MakeBackend) -> AsyncIterator[EventStore]:
        async with opened_store(make_backend()) as store:
            yield store

    @pytest_asyncio.fixture
    async def another_store(self, make_backend: MakeBackend, store: EventStore) -> AsyncIterator[EventStore]:
        """A second store on the data of ``store``, as another process has it."""
        async with opened_store(make_backend()) as another:
            yield another

    @pytest_asyncio.fixture
    async def run(self) -> AsyncIterator[Run]:
        """A function that starts a projection. Its task is cancelled when the test ends."""
        tasks: list[asyncio.Task[None]] = []

        def run(store: EventStore, projection: Projection, *, lease: float = 5.0) -> asyncio.Task[None]:
            tasks.append(asyncio.create_task(store.run(projection, lease=lease)))
            return tasks[-1]

        yield run
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE)
