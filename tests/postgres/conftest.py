from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from eventcore.stores import Backend
from eventcore.stores.urls import backend_from_url
from tests.postgres.backends import OpenBackend, Server


@pytest.fixture(scope="session", params=["newest", pytest.param("debian", marks=pytest.mark.once)])
def server(request: pytest.FixtureRequest) -> Server:
    """The servers that every test runs on: the newest, and Debian's."""
    server: Server = request.getfixturevalue(f"{request.param}_postgres")
    return server


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """A database that holds an empty store, with nobody connected to it."""
    name = server.new_database()

    async def migrate() -> None:
        backend = backend_from_url(server.url(name))
        await backend.open()
        await backend.close(5)

    asyncio.run(migrate())
    return name


@pytest.fixture
def database(server: Server, template: str) -> str:
    """The name of a database with an empty store of this test's own."""
    return server.new_database(f"TEMPLATE {template}")


@pytest.fixture
def url(server: Server, database: str) -> str:
    """The URL of an empty store of this test's own."""
    return server.url(database)


@pytest.fixture
async def open_backend() -> AsyncIterator[OpenBackend]:
    """A function that opens the backend of a URL, which is closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_backend(url: str) -> Backend:
            backend = backend_from_url(url)
            await backend.open()
            stack.push_async_callback(backend.close, 5)
            return backend

        yield open_backend


@pytest.fixture
async def backend(url: str, open_backend: OpenBackend) -> Backend:
    """The backend of an empty store, open."""
    return await open_backend(url)
