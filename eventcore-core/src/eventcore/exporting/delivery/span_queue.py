"""The spans of one exporter: a bounded queue, the batch in flight, and an account that is exact to the span.

An exporter that is registered under a name in use replaces the one before it. The pipelines of both
exporters use the same spans, account and lock; each has a `SpanQueue` to reach them, with a token
that says whether it owns them:

- ``successor()`` is called when the new exporter is registered. Spans that end from now on are for
  the successor. The predecessor still owns the queue and may deliver the spans that were offered
  before.
- ``take_over()`` is called by the successor's worker when the predecessor has ended or its time is
  up. From now on the predecessor owns nothing: its queue looks empty, and a ``commit`` of a hook
  that returns late changes nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.recording.spans import Span

DropReason: TypeAlias = Literal["queue_full", "budget", "rejected", "gave_up", "shutdown"]
_REASONS: Final[tuple[DropReason, ...]] = ("queue_full", "budget", "rejected", "gave_up", "shutdown")


@final
class SpanCounts(msgspec.Struct, frozen=True):
    """The account of spans: ``recorded == exported + sum(dropped.values()) + pending``."""

    recorded: int
    exported: int
    dropped: Mapping[str, int]
    pending: int


@final
class QueueToken(msgspec.Struct, eq=False):
    """One exporter's part in a shared queue. Guarded by the queue's lock, except for ``full_because``.

    Attributes:
        capacity: how many of its spans may wait or be in flight.
        generation: how many exporters it and its predecessors have replaced.
        begin: the position of its first span. Positions number all spans that were ever queued.
        end: the position of its successor's first span; infinite without a successor.
        closed: whether spans that are offered to it are dropped.
        full_because: the reason to count a drop under while the queue is full. The worker thread
            sets ``"budget"`` while its processor budget holds it back; this is a single assignment,
            so that no lock is needed.
    """

    capacity: int
    generation: int = 0
    begin: int = 0
    end: float = inf
    closed: bool = False
    full_because: DropReason = "queue_full"


class _Shared:
    """What the queues of an exporter and of its successors share. Every attribute is guarded by ``lock``.

    Attributes:
        waiting: spans that are not yet in a batch, oldest first.
        batch: spans that were handed to the owner's hooks and are not yet committed.
        head: the position of the first waiting span.
        owner: the token of the exporter that may take, commit and give up spans.
        newest: the token of the exporter registered last, which new spans are for. Differs from
            ``owner`` only between ``successor()`` and ``take_over()``.
    """

    def __init__(self, owner: QueueToken) -> None:
        self.lock = threading.Lock()
        self.waiting: deque[Span] = deque()
        self.batch: list[Span] = []
        self.head = 0
        self.recorded = 0
        self.exported = 0
        self.dropped: Counter[DropReason] = Counter()
        self.owner = self.newest = owner

    def tail(self) -> int:
        """The position of the next span to be queued."""
        return self.head + len(self.waiting)


@final
class SpanQueue:
    """One pipeline's access to its exporter's spans. Every method may be called from any thread.

    Args:
        capacity: how many spans may wait or be in flight; more are dropped.

    Attributes:
        token: what makes this pipeline the owner of the shared spans, or not.
    """

    def __init__(self, capacity: int) -> None:
        self.token = QueueToken(capacity)
        self._shared = _Shared(self.token)

    def __len__(self) -> int:
        """How many spans this pipeline may still deliver, those in flight included."""
        with (shared := self._shared).lock:
            return len(shared.batch) + self._takeable() if shared.owner is self.token else 0

    def successor(self, capacity: int) -> SpanQueue:
        """The queue of the pipeline that replaces this one. Spans that are offered from now on are the successor's."""
        queue = SpanQueue(capacity)
        with (shared := self._shared).lock:
            self.token.end = shared.tail()
            queue.token = shared.newest = QueueToken(capacity, self.token.generation + 1, shared.tail())
        queue._shared = shared
        return queue

    def take_over(self) -> None:
        """Become the owner: what the predecessor has not committed is delivered again, and its later answers are ignored."""
        with (shared := self._shared).lock:
            if shared.owner.generation > self.token.generation:
                return  # a successor has taken over already, and ownership never goes back
            shared.owner = self.token
            shared.head -= len(shared.batch)
            shared.waiting.extendleft(reversed(shared.batch))
            shared.batch = []
            excess = len(shared.waiting) - self.token.capacity
            # A pipeline that has itself been replaced exports nothing more, and leaves the limit to
            # its successor.
            if excess > 0 and shared.newest is self.token:
                # Keep all its own spans, which are never more than its capacity, and the oldest
                # ones of its predecessors.
                inherited = self.token.begin - shared.head
                spans = list(shared.waiting)
                shared.waiting = deque(spans[: inherited - excess] + spans[inherited:])
                shared.dropped["queue_full"] += excess

    def offer(self, spans: Sequence[Span], lost: int = 0) -> None:
        """Queue ended spans up to the capacity, and count ``lost`` spans that were dropped before they could be offered."""
        with (shared := self._shared).lock:
            shared.recorded += len(spans) + lost
            # Not `self.token`: the distributor may still hold this pipeline when its successor has
            # just been registered.
            token = shared.newest
            if token.closed:
                shared.dropped["shutdown"] += len(spans) + lost
                return
            # While a predecessor still delivers, only spans offered since the replacement count
            # against the capacity.
            held = len(shared.waiting) + len(shared.batch) if shared.owner is token else shared.tail() - token.begin
            room = max(token.capacity - held, 0)
            if len(spans) > room:
                shared.dropped[token.full_because] += len(spans) - room
            shared.waiting.extend(spans[:room])
            shared.dropped["queue_full"] += lost

    def take(self, limit: int) -> list[Span]:
        """The batch to export: the one that has not been committed yet, else up to ``limit`` of the oldest waiting spans."""
        with (shared := self._shared).lock:
            if shared.owner is not self.token:
                return []
            if not shared.batch:
                count = min(limit, self._takeable())
                shared.batch = [shared.waiting.popleft() for _ in range(count)]
                shared.head += count
            return list(shared.batch)

    def commit(self, count: int, rejected: int = 0) -> None:
        """Count the first ``count`` spans of the batch as exported, except ``rejected`` ones, which the backend refused."""
        with (shared := self._shared).lock:
            # Nothing is in flight any more if the pipeline was replaced or closed while its hook
            # was running.
            count = min(count, self._in_flight())
            rejected = min(rejected, count)
            del shared.batch[:count]
            shared.exported += count - rejected
            shared.dropped["rejected"] += rejected

    def give_up(self) -> int:
        """Drop the batch, which has been tried often enough. Returns how many spans it had."""
        with (shared := self._shared).lock:
            count = self._in_flight()
            del shared.batch[:count]
            shared.dropped["gave_up"] += count
            return count

    def close(self) -> None:
        """Drop every span that waits, is in flight or will be offered. Without effect once a successor is registered."""
        with (shared := self._shared).lock:
            if shared.newest is self.token:
                self.token.closed = True
                shared.owner = self.token
                shared.dropped["shutdown"] += len(shared.batch) + len(shared.waiting)
                shared.head = shared.tail()
                shared.batch = []
                shared.waiting.clear()

    def counts(self) -> SpanCounts:
        """The account at one instant. It goes on from exporter to successor."""
        with (shared := self._shared).lock:
            return SpanCounts(
                recorded=shared.recorded,
                exported=shared.exported,
                dropped={reason: shared.dropped[reason] for reason in _REASONS},
                pending=len(shared.waiting) + len(shared.batch),
            )

    @property
    def in_flight(self) -> int:
        """Spans of this pipeline's batch, which is not committed yet."""
        with self._shared.lock:
            return self._in_flight()

    # The caller of these holds the lock.

    def _in_flight(self) -> int:
        return len(self._shared.batch) if self._shared.owner is self.token else 0

    def _takeable(self) -> int:
        return int(min(len(self._shared.waiting), self.token.end - self._shared.head))
