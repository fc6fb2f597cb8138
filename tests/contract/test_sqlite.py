"""The contract on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from eventcore.stores import SqliteBackend
from eventcore.testing import MakeBackend, ProjectionContract, ReadModel, StoreContract


class PositionsInSqlite:
    """Implements ``ReadModel``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, transaction: sqlite3.Connection, position: int) -> None:
        transaction.execute("CREATE TABLE IF NOT EXISTS mine (position INTEGER NOT NULL)")
        transaction.execute("INSERT INTO mine VALUES (?)", (position,))

    async def positions(self) -> Sequence[int]:
        with closing(sqlite3.connect(self._path)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'mine'").fetchone():
                return []
            return [position for (position,) in database.execute("SELECT position FROM mine ORDER BY rowid")]


class InSqlite:
    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> MakeBackend:
        return lambda: SqliteBackend(str(tmp_path / "store.db"))

    @pytest.fixture
    def read_model(self, tmp_path: Path) -> ReadModel:
        return PositionsInSqlite(tmp_path / "store.db")


class TestStore(InSqlite, StoreContract):
    pass


class TestProjections(InSqlite, ProjectionContract):
    pass
