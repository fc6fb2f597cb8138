"""The store without durability: everything in lists of this process, for tests and trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, final

from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.base import (
    CONFLICT,
    AppendRequest,
    BackendPage,
    Checkpoint,
    DeadLetter,
    EventFilter,
    Lease,
    LogPage,
    NewEvent,
    ProjectionRecord,
    Purpose,
    Verdict,
)
from eventcore.stores.failures import diverged
from eventcore.stores.head_watch import LocalHeadWatch
from eventcore.stores.memory.ledger import MemoryProjections
from eventcore.stores.sampling import BackendCounters, DatabaseSample

_PAGE: Final = 500
_WINDOW: Final = 10_000


@final
class MemoryBackend:
    """A backend whose events live as long as it does."""

    system = "memory"

    def __init__(self) -> None:
        self._log: list[StoredEvent] = []
        self._streams: dict[str, list[StoredEvent]] = {}
        self._projections = MemoryProjections()
        self._watch = LocalHeadWatch()
        self.counters = BackendCounters()

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self, timeout: float) -> None:
        """Nothing to let go of."""

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Judge the requests in order and keep the events of the accepted ones."""
        began: dict[str, int] = {}
        verdicts = [self._judge(request, began) for request in requests]
        self._watch.advance(len(self._log))
        return verdicts

    def _judge(self, request: AppendRequest, began: dict[str, int]) -> Verdict:
        streams = self._streams
        for stream, version in request.expected.items():
            now = len(streams.get(stream, ()))
            if now != version or began.setdefault(stream, now) != request.base[stream]:
                return CONFLICT
        if not request.events:
            return 0
        first = len(self._log) + 1
        for position, new in enumerate(request.events, first):
            row = _row(position, new)
            self._log.append(row)
            streams.setdefault(row.stream_id, []).append(row)
        return first

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
    ) -> BackendPage:
        """A page of each stream; nothing changes while it is made, so it is one snapshot."""
        head = len(self._log)
        rows: dict[StreamId, Sequence[StoredEvent]] = {}
        for stream, version in after.items():
            page = self._streams.get(stream, [])[version : version + _PAGE]
            if up_to is not None and page and page[-1].position > up_to:
                page = [row for row in page if row.position <= up_to]
            rows[stream] = page
        return BackendPage(rows, head, _PAGE)

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """A part of the log."""
        return list(islice(self._wanted(after, up_to, wanted), limit))

    def _wanted(self, after: int, up_to: int, wanted: EventFilter) -> Iterator[StoredEvent]:
        for row in self._log[after:up_to]:
            if wanted.event_types is not None and row.event_type not in wanted.event_types:
                continue
            if wanted.pattern is not None and not wanted.pattern.regex.fullmatch(row.stream_id):
                continue
            yield row

    async def head_position(self) -> int:
        """The length of the log."""
        return len(self._log)

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """A part of the log."""
        head = len(self._log)
        found = self._log[after.position - 1].event_id if 0 < after.position <= head else ""
        if found != after.event_id:
            raise diverged(after, found)
        far = min(after.position + (limit if wanted == EventFilter() else _WINDOW), head)
        rows = list(islice(self._wanted(after.position, far, wanted), limit))
        end = rows[-1].position if len(rows) == limit else far
        return LogPage(rows, Checkpoint(end, self._log[end - 1].event_id) if end else after, head)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """Woken by the next append."""
        return await self._watch.wait_beyond(position, timeout)

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """See ``MemoryProjections``, as for all that follows."""
        return self._projections.acquire_lease(projection, owner, seconds)

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """Keep it."""
        return self._projections.renew_lease(lease, seconds)

    async def release_lease(self, lease: Lease) -> None:
        """Give it back."""
        self._projections.release_lease(lease)

    async def commit_checkpoint(
        self,
        lease: Lease,
        before: Checkpoint,
        after: Checkpoint,
        dead_letters: Sequence[DeadLetter] = (),
        apply: Callable[[Any], Any] | None = None,
    ) -> None:
        """Move it."""
        await self._projections.commit_checkpoint(lease, before, after, dead_letters, apply)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """List them."""
        return self._projections.projections()

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """List the events put aside."""
        return self._projections.dead_letters(projection, limit)

    async def remove_dead_letter(self, letter: DeadLetter, apply: Callable[[Any], Any] | None = None) -> bool:
        """Forget one."""
        return await self._projections.remove_dead_letter(letter, apply)

    async def reset_projection(self, projection: str) -> None:
        """Begin again."""
        self._projections.reset_projection(projection)

    async def sample(self) -> DatabaseSample:
        """The newest event; memory has no size of its own."""
        return DatabaseSample(len(self._log), self._log[-1].recorded_at_ns if self._log else None)


def _row(position: int, new: NewEvent) -> StoredEvent:
    event = new.recorded
    return StoredEvent(
        position,
        event.stream_id,
        event.version,
        event.event_id,
        event.event_type,
        new.data.decode(),
        new.metadata.decode(),
        event.recorded_at_ns,
    )
