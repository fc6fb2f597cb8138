"""The cycles of one exporter: which hooks are called in which order, and what becomes of the data afterwards."""

from eventcore.exporting.delivery.cycles.calls import Failure
from eventcore.exporting.delivery.cycles.cycles import CycleEnd, Cycles

__all__ = ["CycleEnd", "Cycles", "Failure"]
