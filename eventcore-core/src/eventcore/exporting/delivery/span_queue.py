"""The spans of one exporter: a bounded queue, the batch in flight, and an account that is right to the item."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.recording.spans import Span

DropReason: TypeAlias = Literal["queue_full", "budget", "rejected", "gave_up", "shutdown"]
_REASONS: Final[tuple[DropReason, ...]] = ("queue_full", "budget", "rejected", "gave_up", "shutdown")


@final
class SpanCounts(msgspec.Struct, frozen=True):
    """Where the spans went: ``recorded == exported + sum(dropped.values()) + pending``."""

    recorded: int
    exported: int
    dropped: Mapping[str, int]
    pending: int

    def plus(self, other: SpanCounts) -> SpanCounts:
        """Both accounts in one."""
        return SpanCounts(
            self.recorded + other.recorded,
            self.exported + other.exported,
            {reason: count + other.dropped.get(reason, 0) for reason, count in self.dropped.items()},
            self.pending + other.pending,
        )


class SpanQueue:
    """Takes spans from the distributor, gives batches to the worker, and keeps the account under one lock."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._waiting: deque[Span] = deque()
        self._batch: list[Span] = []
        self._recorded = 0
        self._exported = 0
        self._dropped: Counter[DropReason] = Counter()
        self._closed = False
        # Why the queue does not empty fast enough: set by the worker when its budget held it back.
        self.full_because: DropReason = "queue_full"

    def __len__(self) -> int:
        return len(self._waiting) + len(self._batch)

    @property
    def in_flight(self) -> int:
        """Spans of the batch that is not committed yet."""
        return len(self._batch)

    def offer(self, spans: Sequence[Span], lost: int = 0) -> None:
        """Take spans up to the capacity; ``lost`` ones were dropped before they could be offered."""
        with self._lock:
            self._recorded += len(spans) + lost
            if self._closed:
                self._dropped["shutdown"] += len(spans) + lost
                return
            room = max(self._capacity - len(self._waiting) - len(self._batch), 0)
            if len(spans) > room:
                self._dropped[self.full_because] += len(spans) - room
                spans = spans[:room]
            self._waiting.extend(spans)
            if lost:
                self._dropped["queue_full"] += lost

    def take(self, most: int) -> list[Span]:
        """The batch to export: the one that has not been committed yet, else the oldest waiting spans."""
        with self._lock:
            if not self._batch:
                count = min(most, len(self._waiting))
                self._batch = [self._waiting.popleft() for _ in range(count)]
            return list(self._batch)

    def commit(self, count: int, rejected: int = 0) -> int:
        """The first ``count`` spans of the batch are done with, ``rejected`` of them refused. Returns how many were refused.

        After ``close`` nothing changes: what was in flight has been reported, and an answer that comes later is ignored.
        """
        with self._lock:
            count = min(count, len(self._batch))
            rejected = min(rejected, count)
            self._batch = list(islice(self._batch, count, None))
            self._exported += count - rejected
            if rejected:
                self._dropped["rejected"] += rejected
            return rejected

    def give_up(self) -> int:
        """Drop the batch: it has been tried often enough. Returns how many spans that are."""
        with self._lock:
            count = len(self._batch)
            self._batch = []
            if count:
                self._dropped["gave_up"] += count
            return count

    def close(self) -> int:
        """Drop everything that waits or is in flight, and everything offered from now on. Returns how many were in flight."""
        with self._lock:
            in_flight = len(self._batch)
            if left := in_flight + len(self._waiting):
                self._dropped["shutdown"] += left
            self._batch = []
            self._waiting.clear()
            self._closed = True
            return in_flight

    def adopt(self, other: SpanQueue) -> None:
        """Take over the spans and the account of the queue of a replaced exporter; its late answers mean nothing."""
        with other._lock:
            spans = [*other._batch, *other._waiting]
            recorded, exported, dropped = other._recorded, other._exported, other._dropped
            other._batch, other._waiting = [], deque()
            other._recorded = other._exported = 0
            other._dropped = Counter()
        with self._lock:
            self._recorded += recorded
            self._exported += exported
            self._dropped.update(dropped)
            if self._closed:
                self._dropped["shutdown"] += len(spans)
                return
            kept = spans[: max(self._capacity - len(self._waiting), 0)]
            if len(spans) > len(kept):
                self._dropped["queue_full"] += len(spans) - len(kept)
            self._waiting.extendleft(reversed(kept))

    def counts(self) -> SpanCounts:
        """The account at one instant."""
        with self._lock:
            return SpanCounts(
                recorded=self._recorded,
                exported=self._exported,
                dropped={reason: self._dropped[reason] for reason in _REASONS},
                pending=len(self._waiting) + len(self._batch),
            )
