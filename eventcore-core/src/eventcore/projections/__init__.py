"""Projections: read models that follow the global order, each run by one process at a time."""

from eventcore.projections.definition import projection_key
from eventcore.projections.host import ProjectionHost, RetriedDeadLetters
from eventcore.projections.projection import OnError, Projection

__all__ = ["OnError", "Projection", "ProjectionHost", "RetriedDeadLetters", "projection_key"]
