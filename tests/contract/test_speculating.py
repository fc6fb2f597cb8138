"""The part of the contract that executes commands, by stores that decide on streams which they have not read.

``EVENTCORE_SPECULATION=on pytest tests/contract`` runs the whole contract so, ``off`` without; ``.ci/long`` does both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from eventcore.stores import MemoryBackend, SqliteBackend, backend_from_url
from eventcore.testing import MakeBackend
from eventcore.testing.contract.commanding import CommandContract
from eventcore.testing.contract.repeating import RepeatContract
from eventcore.testing.contract.sharing import SharingContract
from eventcore.testing.contract.states import StateContract


@pytest.mark.once
class TestCommands(CommandContract, RepeatContract, SharingContract, StateContract):
    @pytest.fixture(autouse=True)
    def speculating(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EVENTCORE_SPECULATION", "on")

    @pytest.fixture(params=["memory", "sqlite", "postgresql"])
    def make_backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> MakeBackend:
        makers: dict[str, Callable[[], MakeBackend]] = {
            "memory": lambda: MemoryBackend().another,
            "sqlite": lambda: lambda: SqliteBackend(str(tmp_path / "store.db")),
            "postgresql": lambda: self._in_postgres(request),
        }
        return makers[request.param]()

    def _in_postgres(self, request: pytest.FixtureRequest) -> MakeBackend:
        pytest.importorskip("asyncpg")
        url = f"{request.getfixturevalue('newest_postgres').url()}?schema=contract_{uuid4().hex}"
        return lambda: backend_from_url(url)
