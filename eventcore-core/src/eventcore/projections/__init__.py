"""Projections: read models that follow the global order, each run by one process at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventcore.ground import when_used
from eventcore.projections.definition import projection_key, unknown_name
from eventcore.projections.host import ProjectionHost
from eventcore.projections.projection import OnError, Projection

if TYPE_CHECKING:
    from eventcore.projections.dead_letters import RetriedDeadLetters

__all__ = ["OnError", "Projection", "ProjectionHost", "RetriedDeadLetters", "projection_key", "unknown_name"]

# An application without projections never imports what runs them.
__getattr__ = when_used(__name__, RetriedDeadLetters="eventcore.projections.dead_letters")
