"""What a store's backend is: the few calls that memory, SQLite and servers answer, and the plain values that pass through them.

A backend knows neither classes of events nor commands. It judges and keeps; batching, caching and decoding are above it, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, final

import msgspec

from eventcore.codec import StoredEvent
from eventcore.events import RecordedEvent
from eventcore.stores.patterns import StreamPattern
from eventcore.streams import StreamId

__all__ = [
    "CONFLICT",
    "SCHEMA_VERSION",
    "AppendRequest",
    "Backend",
    "BackendPage",
    "EventFilter",
    "NewEvent",
    "Purpose",
    "Verdict",
]

Verdict: TypeAlias = int
"""What became of one append request: the position of its first event, 0 if it has none and its check held, or ``CONFLICT``."""

CONFLICT: Final = -1

SCHEMA_VERSION: Final = 1
"""The version of what is stored, the same for every kind of store."""

Purpose: TypeAlias = Literal["command", "api"]
"""Whom a read serves: a command, or the application itself."""


@final
class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the store: ``recorded`` without its position, and its data and metadata as JSON."""

    recorded: RecordedEvent
    data: bytes
    metadata: bytes


@final
class AppendRequest(msgspec.Struct, frozen=True, gc=False):
    """What one command asks for: append ``events`` if its streams stand where it has seen them; else nothing.

    Requests of one call are judged in order. One is accepted when each of its streams had version ``base`` when the call began
    and has version ``expected`` when its turn comes; the two differ where it builds on events of requests before it. Both are
    needed: by ``expected`` alone, a single event of another process could pass for the one of a refused predecessor.
    ``origin`` is handed through untouched, for those who observe the calls.
    """

    base: Mapping[StreamId, int]
    expected: Mapping[StreamId, int]
    events: Sequence[NewEvent]
    origin: Any = None


@final
class BackendPage(msgspec.Struct, frozen=True, gc=False):
    """Rows of some streams, and the head position of the snapshot that they come from.

    ``limit`` is how many rows of one stream the page could hold: a stream with as many may have more.
    """

    rows: Mapping[StreamId, Sequence[StoredEvent]]
    head: int
    limit: int


@final
class EventFilter(msgspec.Struct, frozen=True):
    """Which events ``scan`` returns: of streams that match ``pattern`` and of types in ``event_types``; ``None`` is any."""

    pattern: StreamPattern | None = None
    event_types: tuple[str, ...] | None = None


class Backend(Protocol):
    """One store, as far as it differs from the others. Every method raises ``StoreError`` when it cannot do its part."""

    system: str
    """The value of ``db.system.name``."""

    async def open(self) -> None:
        """Connect, and create what is missing."""
        ...

    async def close(self, timeout: float) -> None:
        """Let go of everything within ``timeout`` seconds; calls that are in flight are finished first."""
        ...

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Judge the requests in order in one transaction; return a verdict for each once the accepted events are durable."""
        ...

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
    ) -> BackendPage:
        """Of each stream the events behind the given version (and at most at position ``up_to``), all from one snapshot.

        ``origins`` and ``purpose`` say on whose behalf, to those who observe the calls.
        """
        ...

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """At most ``limit`` wanted events with ``after < position <= up_to``, in order of position."""
        ...

    async def head_position(self) -> int:
        """The position of the last event, 0 when there is none."""
        ...
