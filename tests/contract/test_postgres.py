"""The contract on PostgreSQL: the newest that pip brings, and Debian's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final

import pytest

from eventcore.stores import backend_from_url
from eventcore.testing import MakeBackend, ProjectionContract, ReadModel, StoreContract
from tests.real_parts.postgres import ForeignPostgres, PostgresServer

asyncpg: Final = pytest.importorskip("asyncpg")


class PositionsInPostgres:
    """Implements ``ReadModel``."""

    def __init__(self, server: PostgresServer | ForeignPostgres, database: str, schema: str) -> None:
        self._url = server.url(database)
        self._table = f"mine_{schema}"
        server.sql(f"CREATE TABLE {self._table} (n serial, position bigint NOT NULL)", database)

    async def write(self, transaction: Any, position: int) -> None:
        await transaction.execute(f"INSERT INTO {self._table} (position) VALUES ($1)", position)

    async def positions(self) -> Sequence[int]:
        connection = await asyncpg.connect(self._url)
        try:
            return [row[0] for row in await connection.fetch(f"SELECT position FROM {self._table} ORDER BY n")]
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return count(1)


@pytest.fixture(scope="module", params=["newest", pytest.param("debian", marks=pytest.mark.once)])
def server(request: pytest.FixtureRequest) -> PostgresServer | ForeignPostgres:
    server: PostgresServer | ForeignPostgres = request.getfixturevalue(f"{request.param}_postgres")
    return server


@pytest.fixture(scope="module")
def database(server: PostgresServer | ForeignPostgres) -> str:
    """One database for all tests, which have a schema each: that is made sooner."""
    return server.new_database()


class InPostgres:
    @pytest.fixture
    def schema(self, numbers: Iterator[int]) -> str:
        return f"contract_{next(numbers)}"

    @pytest.fixture
    def make_backend(self, server: PostgresServer | ForeignPostgres, database: str, schema: str) -> MakeBackend:
        return lambda: backend_from_url(f"{server.url(database)}?schema={schema}")

    @pytest.fixture
    def read_model(self, server: PostgresServer | ForeignPostgres, database: str, schema: str) -> ReadModel:
        return PositionsInPostgres(server, database, schema)


class TestStore(InPostgres, StoreContract):
    pass


class TestProjections(InPostgres, ProjectionContract):
    pass
