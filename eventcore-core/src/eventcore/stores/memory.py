"""The store without durability: everything in lists of this process, for tests and trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from eventcore.codec import StoredEvent
from eventcore.stores.base import CONFLICT, AppendRequest, BackendPage, EventFilter, NewEvent, Purpose, Verdict
from eventcore.streams import StreamId

__all__ = ["MemoryBackend"]

_PAGE: Final = 500


@final
class MemoryBackend:
    """A backend whose events live as long as it does."""

    system = "memory"

    def __init__(self) -> None:
        self._log: list[StoredEvent] = []
        self._streams: dict[str, list[StoredEvent]] = {}

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self, timeout: float) -> None:
        """Nothing to let go of."""

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Judge the requests in order and keep the events of the accepted ones."""
        began: dict[str, int] = {}
        return [self._judge(request, began) for request in requests]

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
        found: list[StoredEvent] = []
        for row in self._log[after:up_to]:
            if wanted.event_types is not None and row.event_type not in wanted.event_types:
                continue
            if wanted.pattern is not None and not wanted.pattern.regex.fullmatch(row.stream_id):
                continue
            found.append(row)
            if len(found) == limit:
                break
        return found

    async def head_position(self) -> int:
        """The length of the log."""
        return len(self._log)


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
