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

Spans leave the queue in one of three ways: exported, dropped for a reason, or *unknown*. Unknown are
spans that the backend may or may not have: a call with them was cut, and a further one was cut too,
was refused or could not be made.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.recording.spans import Span

DropReason: TypeAlias = Literal["queue_full", "budget", "rejected", "gave_up", "shutdown"]
_REASONS: Final[tuple[DropReason, ...]] = ("queue_full", "budget", "rejected", "gave_up", "shutdown")


@final
class SpanCounts(msgspec.Struct, frozen=True):
    """The account of spans: ``recorded == exported + sum(dropped.values()) + unknown + pending``."""

    recorded: int
    exported: int
    dropped: Mapping[str, int]
    unknown: int
    pending: int


@final
class _Batch(msgspec.Struct):
    """Spans that were taken for export and are not settled, oldest first.

    Attributes:
        since: when the batch was taken first (``time.monotonic``).
        attempts: how often it was taken.
        handed: so many of its first spans are in the hands of a hook, which has not answered for
            them.
        doubtful: so many of its first spans may have arrived: a call with them had an unknown
            outcome. At most one such call is made again.
    """

    spans: list[Span] = []
    since: float = 0.0
    attempts: int = 0
    handed: int = 0
    doubtful: int = 0

    def remove_first(self, count: int) -> None:
        del self.spans[:count]
        self.handed = max(self.handed - count, 0)
        self.doubtful = max(self.doubtful - count, 0)

    def remove(self, spans: Collection[Span]) -> int:
        """Remove some of the spans, by identity. Returns how many there were."""
        gone = {id(span) for span in spans}
        before = len(self.spans)
        self.handed = sum(id(span) not in gone for span in self.spans[: self.handed])
        self.doubtful = sum(id(span) not in gone for span in self.spans[: self.doubtful])
        self.spans = [span for span in self.spans if id(span) not in gone]
        return before - len(self.spans)


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
        batch: what the owner is exporting.
        head: the position of the first waiting span.
        owner: the token of the exporter that may take, commit and give up spans.
        newest: the token of the exporter registered last, which new spans are for. Differs from
            ``owner`` only between ``successor()`` and ``take_over()``.
    """

    def __init__(self, owner: QueueToken) -> None:
        self.lock = threading.Lock()
        self.waiting: deque[Span] = deque()
        self.batch = _Batch()
        self.head = 0
        self.recorded = 0
        self.exported = 0
        self.unknown = 0
        self.dropped: Counter[DropReason] = Counter()
        self.owner = self.newest = owner

    def tail(self) -> int:
        """The position of the next span to be queued."""
        return self.head + len(self.waiting)

    def drop_batch(self, reason: DropReason) -> int:
        """Drop what is in the batch; spans that may have arrived count as unknown. Returns how many there were."""
        batch, self.batch = self.batch, _Batch()
        uncertain = max(batch.handed, batch.doubtful)
        self.unknown += uncertain
        self.dropped[reason] += len(batch.spans) - uncertain
        return len(batch.spans)

    def end_call(self, outcome_unknown: bool, again: bool = True) -> int:
        """A call has ended without delivering. Returns how many spans count as unknown from now on."""
        batch = self.batch
        handed, batch.handed = batch.handed, 0
        if not outcome_unknown:
            return 0
        # Those that were doubtful before have been sent twice now, and are not sent again.
        twice = min(handed, batch.doubtful) if again else handed
        self.unknown += twice
        batch.remove_first(twice)
        batch.doubtful = max(batch.doubtful, handed - twice)
        return twice


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
            return len(shared.batch.spans) + self._takeable() if shared.owner is self.token else 0

    def successor(self, capacity: int) -> SpanQueue:
        """The queue of the pipeline that replaces this one. Spans that are offered from now on are the successor's."""
        queue = SpanQueue(capacity)
        with (shared := self._shared).lock:
            self.token.end = shared.tail()
            queue.token = shared.newest = QueueToken(capacity, self.token.generation + 1, shared.tail())
        queue._shared = shared
        return queue

    def take_over(self) -> None:
        """Become the owner: what the predecessor has not committed is delivered again, and its later answers are ignored.

        Spans that a hook of the predecessor has and does not answer for have an unknown outcome.
        """
        with (shared := self._shared).lock:
            if shared.owner.generation > self.token.generation:
                return  # a successor has taken over already, and ownership never goes back
            shared.owner = self.token
            shared.end_call(outcome_unknown=True)
            if not (batch := shared.batch).doubtful:
                shared.head -= len(batch.spans)
                shared.waiting.extendleft(reversed(batch.spans))
                shared.batch = batch = _Batch()
            excess = len(batch.spans) + len(shared.waiting) - self.token.capacity
            # A pipeline that has itself been replaced exports nothing more, and leaves the limit to
            # its successor.
            if excess > 0 and shared.newest is self.token:
                # Keep all its own spans, which are never more than its capacity, and the oldest
                # ones of its predecessors.
                inherited = self.token.begin - shared.head
                cut = min(excess, inherited)
                spans = list(shared.waiting)
                shared.waiting = deque(spans[: inherited - cut] + spans[inherited:])
                surplus = batch.spans[len(batch.spans) - (excess - cut) :]
                uncertain = max(batch.doubtful - (len(batch.spans) - len(surplus)), 0)
                batch.remove(surplus)
                shared.unknown += uncertain
                shared.dropped["queue_full"] += excess - uncertain

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
            held = len(shared.waiting) + len(shared.batch.spans) if shared.owner is token else shared.tail() - token.begin
            room = max(token.capacity - held, 0)
            if len(spans) > room:
                shared.dropped[token.full_because] += len(spans) - room
            shared.waiting.extend(spans[:room])
            shared.dropped["queue_full"] += lost

    def take(self, limit: int) -> list[Span]:
        """The batch to export: the one that is not settled yet, else up to ``limit`` of the oldest waiting spans."""
        with (shared := self._shared).lock:
            if shared.owner is not self.token:
                return []
            if not shared.batch.spans:
                count = min(limit, self._takeable())
                shared.batch = _Batch([shared.waiting.popleft() for _ in range(count)], time.monotonic())
                shared.head += count
            shared.batch.attempts += 1
            return list(shared.batch.spans)

    def top_up(self, limit: int) -> list[Span]:
        """The batch, with waiting spans added up to ``limit``. Counts as an attempt."""
        with (shared := self._shared).lock:
            if shared.owner is not self.token:
                return []
            count = max(min(limit - len(shared.batch.spans), self._takeable()), 0)
            shared.batch.spans += [shared.waiting.popleft() for _ in range(count)]
            shared.head += count
            shared.batch.attempts += 1
            return list(shared.batch.spans)

    def hand(self, count: int) -> None:
        """The first ``count`` spans of the batch are given to a hook: until it answers, they may arrive."""
        with (shared := self._shared).lock:
            if shared.owner is self.token:
                shared.batch.handed = min(count, len(shared.batch.spans))

    def commit(self, count: int, rejected: int = 0) -> None:
        """Count the first ``count`` spans of the batch as exported, except ``rejected`` ones, which the backend refused.

        Which ones it refused is not known. As many as may have arrived by an earlier call count as unknown.
        """
        with (shared := self._shared).lock:
            # Nothing is in flight any more if the pipeline was replaced or closed while its hook
            # was running.
            count = min(count, self._in_flight())
            rejected = min(rejected, count)
            uncertain = min(rejected, shared.batch.doubtful)
            shared.batch.remove_first(count)
            shared.exported += count - rejected
            shared.unknown += uncertain
            shared.dropped["rejected"] += rejected - uncertain

    def settle(self, spans: Collection[Span], *, exported: bool) -> None:
        """Count some spans of the batch as exported, or as rejected because they cannot be converted."""
        with (shared := self._shared).lock:
            if self._in_flight():
                count = shared.batch.remove(spans)
                if exported:
                    shared.exported += count
                else:
                    shared.dropped["rejected"] += count

    def fail(self, *, outcome_unknown: bool, again: bool = True) -> int:
        """The hooks did not deliver what they were handed. Returns how many spans are given up as unknown.

        Args:
            outcome_unknown: whether the backend may have it all the same. Such spans are sent once
                more; after a second unknown outcome they are given up.
            again: whether they are sent once more; if not, they are given up at once.
        """
        with (shared := self._shared).lock:
            return shared.end_call(outcome_unknown, again) if self._in_flight() else 0

    def give_up(self, reason: DropReason = "gave_up") -> int:
        """Drop the batch. Returns how many spans it had; those that may have arrived count as unknown."""
        with (shared := self._shared).lock:
            return shared.drop_batch(reason) if self._in_flight() else 0

    def batch_age(self) -> float:
        """Seconds since the batch was taken first; 0 without a batch."""
        with (shared := self._shared).lock:
            return time.monotonic() - shared.batch.since if self._in_flight() else 0.0

    def attempts(self) -> int:
        """How often the batch was taken."""
        with self._shared.lock:
            return self._shared.batch.attempts

    def close(self) -> None:
        """Drop every span that waits, is in flight or will be offered. Without effect once a successor is registered.

        Spans that a hook has and has not answered for count as unknown.
        """
        with (shared := self._shared).lock:
            if shared.newest is self.token:
                self.token.closed = True
                shared.owner = self.token
                shared.drop_batch("shutdown")
                shared.dropped["shutdown"] += len(shared.waiting)
                shared.head = shared.tail()
                shared.waiting.clear()

    def mark(self) -> int:
        """The position of the next span to be queued, for ``pending_before``."""
        with (shared := self._shared).lock:
            return int(min(shared.tail(), self.token.end))

    def pending_before(self, mark: int) -> int:
        """How many spans that were queued before ``mark`` this pipeline has not settled."""
        with (shared := self._shared).lock:
            if shared.owner is not self.token:
                return 0
            in_batch = len(shared.batch.spans) - max(shared.head - mark, 0)
            return max(in_batch, 0) + max(min(shared.tail(), mark) - shared.head, 0)

    def counts(self) -> SpanCounts:
        """The account at one instant. It goes on from exporter to successor."""
        with (shared := self._shared).lock:
            return SpanCounts(
                recorded=shared.recorded,
                exported=shared.exported,
                dropped={reason: shared.dropped[reason] for reason in _REASONS},
                unknown=shared.unknown,
                pending=len(shared.waiting) + len(shared.batch.spans),
            )

    @property
    def in_flight(self) -> int:
        """Spans of this pipeline's batch, which is not settled yet."""
        with self._shared.lock:
            return self._in_flight()

    @property
    def handed(self) -> int:
        """Spans that a hook has been given and has not answered for."""
        with (shared := self._shared).lock:
            return shared.batch.handed if shared.owner is self.token else 0

    # The caller of these holds the lock.

    def _in_flight(self) -> int:
        return len(self._shared.batch.spans) if self._shared.owner is self.token else 0

    def _takeable(self) -> int:
        return int(min(len(self._shared.waiting), self.token.end - self._shared.head))
