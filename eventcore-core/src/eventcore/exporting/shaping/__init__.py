"""What one exporter gets of the metrics: which instruments, with which labels, as totals or as differences."""

from eventcore.exporting.shaping.deltas import Deltas
from eventcore.exporting.shaping.shape import Shape

__all__ = ["Deltas", "Shape"]
