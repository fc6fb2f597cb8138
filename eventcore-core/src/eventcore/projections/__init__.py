"""Projections: read models that follow the global order, each run by one process at a time."""

from eventcore.projections.dead_letters import RetriedDeadLetters
from eventcore.projections.definition import projection_key
from eventcore.projections.host import ProjectionHost
from eventcore.projections.projection import OnError, Projection

__all__ = ["OnError", "Projection", "ProjectionHost", "RetriedDeadLetters", "projection_key"]
