"""How the contract talks to a backend directly: requests to append, and what the log holds afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from eventcore.events import EventMetadata, RecordedEvent, StreamId
from eventcore.events.codec import Codec, StoredEvent
from eventcore.recording import IdGenerator
from eventcore.stores import AppendRequest, Backend, EventFilter, NewEvent, StreamPattern
from eventcore.testing.contract.accounts import Deposited

EVERYTHING: Final = EventFilter()

LARGEST_PAGE: Final = 8 << 20
"""The bytes that a page may have, if it has more than one event."""

_codec: Final = Codec()
_ids: Final = IdGenerator()
_TIME: Final = 1_700_000_000_123_456_789


def new_event(
    stream: StreamId,
    version: int,
    *,
    data: bytes | None = None,
    event_type: str = Deposited.event_type,
    metadata: bytes = b"{}",
) -> NewEvent:
    """A new event. ``data`` and ``event_type`` need not belong to an event class."""
    encoded, event = _codec.encode(Deposited(amount=1))
    recorded = RecordedEvent(stream, version, 0, event, EventMetadata(), _ids.hex32(), event_type, _TIME)
    return NewEvent(recorded, encoded if data is None else data, metadata)


def request(read: Mapping[StreamId, int], *writes: StreamId, expected: Mapping[StreamId, int] | None = None) -> AppendRequest:
    """A request that writes one event to each of ``writes``.

    Args:
        read: the versions of its streams when the call begins.
        expected: the versions after the earlier requests of the call; left out, ``read``.
    """
    before = dict(read if expected is None else expected)
    now = dict(before)
    events: list[NewEvent] = []
    for stream in writes:
        now[stream] += 1
        events.append(new_event(stream, now[stream]))
    return AppendRequest(read, before, events)


async def fill(backend: Backend, *streams: StreamId) -> None:
    """Append one event to each of ``streams`` of an empty store."""
    assert await backend.log.append([request(dict.fromkeys(streams, 0), *streams)]) == [1], (
        "an empty store must accept the first append"
    )


async def everything(backend: Backend) -> list[StoredEvent]:
    rows: list[StoredEvent] = []
    while page := await backend.log.scan(rows[-1].position if rows else 0, 1 << 40, 1 << 20, EVERYTHING):
        rows += page
    return rows


async def fill_large(backend: Backend, streams: Iterable[StreamId], count: int, size: int) -> None:
    """Append ``count`` events to each of ``streams`` of an empty store, in turns; each has ``size`` bytes of data."""
    data = b'{"amount":1,"note":"' + b"x" * (size - 22) + b'"}'
    for version in range(1, count + 1):
        for stream in streams:
            new = [new_event(stream, version, data=data)]
            await backend.log.append([AppendRequest({stream: version - 1}, {stream: version - 1}, new)])


def check_size(rows: Iterable[StoredEvent]) -> None:
    sizes = [len(row.data) for row in rows]
    assert len(sizes) <= 1 or sum(sizes) <= LARGEST_PAGE, "a page must be bounded in bytes, whatever the size of its events"


async def log(backend: Backend) -> list[tuple[int, str, int]]:
    """Position, stream and version of every event, by position."""
    return [(row.position, row.stream_id, row.version) for row in await everything(backend)]


def positions(rows: Iterable[StoredEvent]) -> list[int]:
    return [row.position for row in rows]


def matching(pattern: str | None = None, *event_types: str) -> EventFilter:
    return EventFilter(None if pattern is None else StreamPattern.parse(pattern), event_types or None)
