"""Small chunks: what a hook gets at once is as much as it converts in about half a millisecond.

Threads of one interpreter take turns of 5 ms. A hook that converts a large collection in one go makes the event loop wait for
its turn again and again; a hook that returns after half a millisecond, to a pipeline that then rests, does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from eventcore.recording.values import CounterData, GaugeData, HistogramData

__all__ = ["ChunkSize", "metric_chunks"]

_SLICE: Final = 0.0005
_FIRST: Final = 50
_LARGEST: Final = 1000

DataT = TypeVar("DataT", CounterData, GaugeData, HistogramData)


class ChunkSize:
    """How many items one call of a hook gets, and what an item costs; learnt from the calls before."""

    __slots__ = ("cost", "items")

    def __init__(self) -> None:
        self.items = _FIRST
        self.cost = 50e-6

    def learn(self, items: int, cpu_seconds: float) -> None:
        """Adapt to a call that converted ``items`` in ``cpu_seconds`` of this thread's processor time."""
        if items:
            self.cost += (max(cpu_seconds, 1e-9) / items - self.cost) / 4
            fitting = int(_SLICE / self.cost)
            self.items = max(1, min(fitting, self.items * 2, _LARGEST))


def metric_chunks(metrics: Sequence[DataT], size: ChunkSize) -> Iterator[tuple[list[DataT], int]]:
    """Chunks of at most ``size.items`` points with their number of points; one instrument's points may span several chunks."""
    chunk: list[DataT] = []
    room = size.items
    for data in metrics:
        points = data.points
        begin = 0
        while begin < len(points):
            end = min(begin + room, len(points))
            whole = begin == 0 and end == len(points)
            chunk.append(data if whole else msgspec.structs.replace(data, points=points[begin:end]))
            room -= end - begin
            begin = end
            if not room:
                yield chunk, sum(len(part.points) for part in chunk)
                chunk, room = [], size.items
    if chunk:
        yield chunk, sum(len(part.points) for part in chunk)
