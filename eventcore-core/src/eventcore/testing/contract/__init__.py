"""What every store has to do, as tests: inherited by one class for each kind of store."""

from eventcore.testing.contract.appending import AppendContract
from eventcore.testing.contract.commanding import CommandContract
from eventcore.testing.contract.fixtures import MakeBackend, ReadModel
from eventcore.testing.contract.following import FollowContract
from eventcore.testing.contract.leasing import LeaseContract
from eventcore.testing.contract.limits import LimitContract
from eventcore.testing.contract.projecting import ProjectContract
from eventcore.testing.contract.reading import ReadContract
from eventcore.testing.contract.sharing import SharingContract

__all__ = ["MakeBackend", "ProjectionContract", "ReadModel", "StoreContract"]


class StoreContract(AppendContract, ReadContract, FollowContract, CommandContract, SharingContract, LimitContract):
    """What a store does with events and commands: inherit it, and override the fixture ``make_backend``.

    The tests are those of pytest; they run with pytest-asyncio in any mode. A store passes when all of them do.

    >>> import pytest
    >>> from eventcore.stores import MemoryBackend
    >>> class TestMemory(StoreContract):
    ...     @pytest.fixture
    ...     def make_backend(self):
    ...         backend = MemoryBackend()
    ...         return lambda: backend
    """


class ProjectionContract(LeaseContract, ProjectContract):
    """What a store does for projections: inherit it, and override ``make_backend`` as for ``StoreContract``.

    A store that gives handlers its transaction overrides ``read_model``, too.
    """
