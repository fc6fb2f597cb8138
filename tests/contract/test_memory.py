"""The contract on the store in memory: its backends share the events of one, as those of other processes share a file."""

from __future__ import annotations

import pytest

from eventcore.stores import MemoryBackend
from eventcore.testing import MakeBackend, ProjectionContract, StoreContract


class InMemory:
    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        backend = MemoryBackend()
        return backend.another


class TestStore(InMemory, StoreContract):
    pass


class TestProjections(InMemory, ProjectionContract):
    pass
