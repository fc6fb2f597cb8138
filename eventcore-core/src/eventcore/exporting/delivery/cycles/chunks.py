"""Small chunks: how much one call of a hook gets, and how long the worker thread pauses after it.

A hook gets as much at once as it converts in about half a millisecond, and the worker thread pauses
between two chunks, so that the event loop gets the GIL (why and how much:
``eventcore.ground.pacing``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from eventcore.ground.pacing import THREAD_SLICE
from eventcore.recording.values import MetricData

# After each chunk the thread pauses for seven times as long as the chunk took, within limits: it
# takes an eighth of a processor while it works. A shorter pause does not let the event loop finish
# a turn; a longer one only delays the export. Where the settings allow spans a larger share of a
# processor, the pauses between their chunks are as much shorter.
_PAUSE_FACTOR: Final = 7.0
_SHORTEST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.005

# The size of a hook's first chunk, before the cost of an item is known, and of the largest.
_FIRST_CHUNK: Final = 50
_LARGEST_CHUNK: Final = 1000
_FIRST_COST: Final = 50e-6

SPAN_SLICE: Final = 2 * THREAD_SLICE
"""Processor seconds of a call with spans. They have a budget, and come all the time: with shorter calls most of the time goes
into waiting for the GIL, up to 5 ms before each."""


class ChunkSize(msgspec.Struct):
    """How many items one call of a hook gets, learnt from the calls before.

    Attributes:
        items: spans or points of the next chunk.
        cost: processor seconds that one item takes, as a moving average.
        slice: processor seconds that one call may take.
        pause_factor: how many times as long as a chunk took the thread pauses after it.
    """

    items: int = _FIRST_CHUNK
    cost: float = _FIRST_COST
    slice: float = THREAD_SLICE
    pause_factor: float = _PAUSE_FACTOR

    @classmethod
    def of_spans(cls, cpu_budget: float) -> ChunkSize:
        """The size of a chunk of spans, whose conversion may use this share of one processor."""
        return cls(slice=SPAN_SLICE, pause_factor=min(_PAUSE_FACTOR, 1 / cpu_budget - 1))

    def learn(self, items: int, cpu_seconds: float) -> None:
        """Adapt to a call that converted ``items`` in ``cpu_seconds`` of processor time."""
        if items:
            self.cost += (max(cpu_seconds, 1e-9) / items - self.cost) / 4
            self.items = max(1, min(int(self.slice / self.cost), self.items * 2, _LARGEST_CHUNK))

    def pause(self, begun: float, deadline: float) -> None:
        """Pause after a chunk of a cycle that began at ``begun`` and must end by ``deadline`` (``time.monotonic``)."""
        now = time.monotonic()
        # Without a pause once two thirds of the time have passed: a cycle that misses its deadline
        # delivers nothing.
        if deadline - now >= (now - begun) / 2:
            time.sleep(min(max(self.pause_factor * self.items * self.cost, _SHORTEST_PAUSE), _LONGEST_PAUSE))


def metric_chunks(metrics: Sequence[MetricData], size: ChunkSize) -> Iterator[tuple[list[MetricData], int]]:
    """Chunks of at most ``size.items`` points, each with its number of points; an instrument may span several chunks."""
    chunk: list[MetricData] = []
    room = size.items
    for data in metrics:
        points = data.points
        begin = 0
        while begin < len(points):
            end = min(begin + room, len(points))
            is_whole = begin == 0 and end == len(points)
            chunk.append(data if is_whole else msgspec.structs.replace(data, points=points[begin:end]))
            room -= end - begin
            begin = end
            if not room:
                yield chunk, sum(len(part.points) for part in chunk)
                # The hook has run meanwhile, and the size has been adapted.
                chunk, room = [], size.items
    if chunk:
        yield chunk, sum(len(part.points) for part in chunk)
