"""The contract of stores, as tests. A test class for each kind of store inherits them."""

from eventcore.testing.contract.appending import AppendContract
from eventcore.testing.contract.commanding import CommandContract
from eventcore.testing.contract.fixtures import MakeBackend, ReadModel
from eventcore.testing.contract.following import FollowContract
from eventcore.testing.contract.limits import LimitContract
from eventcore.testing.contract.projections import LeaseContract, ProjectContract
from eventcore.testing.contract.reading import ReadContract
from eventcore.testing.contract.redacting import RedactContract
from eventcore.testing.contract.repeating import RepeatContract
from eventcore.testing.contract.sharing import SharingContract
from eventcore.testing.contract.states import StateContract

__all__ = ["MakeBackend", "ProjectionContract", "ReadModel", "StoreContract"]


class StoreContract(
    AppendContract,
    ReadContract,
    FollowContract,
    CommandContract,
    RepeatContract,
    SharingContract,
    LimitContract,
    RedactContract,
    StateContract,
):
    """Tests of how a store keeps events and executes commands. Inherit it and override the fixture ``make_backend``.

    It needs pytest and pytest-asyncio, in any mode.

    >>> import pytest
    >>> from eventcore.stores import MemoryBackend
    >>> class TestMemory(StoreContract):
    ...     @pytest.fixture
    ...     def make_backend(self):
    ...         backend = MemoryBackend()
    ...         return backend.another
    """


class ProjectionContract(LeaseContract, ProjectContract):
    """Tests of how a store keeps leases, checkpoints and dead letters. Inherit it and override ``make_backend``.

    For a store that gives handlers its transaction, override ``read_model``, too.
    """
