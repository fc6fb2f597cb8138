"""The contract of projections: leases, checkpoints and dead letters."""

from eventcore.testing.contract.projections.leasing import LeaseContract, fill_with_letters
from eventcore.testing.contract.projections.projecting import ProjectContract

__all__ = ["LeaseContract", "ProjectContract", "fill_with_letters"]
