"""The contract on the store in memory: its stores share one backend, since no other process can see it."""

from __future__ import annotations

import pytest

from eventcore.stores import MemoryBackend
from eventcore.testing import MakeBackend, ProjectionContract, StoreContract


class InMemory:
    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        backend = MemoryBackend()
        return lambda: backend


class TestStore(InMemory, StoreContract):
    pass


class TestProjections(InMemory, ProjectionContract):
    pass
