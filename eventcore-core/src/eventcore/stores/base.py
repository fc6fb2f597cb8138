"""What a store's backend is: the few calls that memory, SQLite and servers answer, and the plain values that pass through them.

A backend knows neither classes of events nor commands. It judges and keeps; batching, caching and decoding are above it, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, final

import msgspec

from eventcore.events import RecordedEvent, StreamId, StreamPattern
from eventcore.events.codec import StoredEvent

Verdict: TypeAlias = int
"""What became of one append request: the position of its first event, 0 if it has none and its check held, or ``CONFLICT``."""

CONFLICT: Final = -1

SCHEMA_VERSION: Final = 2
"""The version of what is stored, the same for every kind of store: 1 has events, 2 has projections, too."""

Purpose: TypeAlias = Literal["command", "projection", "api"]
"""Whom a read serves: a command, a projection, or the application itself."""


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


@final
class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """How far a reader has come in the global order: the position, and the id of the event that stands there.

    The id tells whether the store is still on the timeline that was read: after a failover to a replica that lagged, or a
    restore, another event has the position, or none.
    """

    position: int
    event_id: str


START: Final = Checkpoint(0, "")
"""Before the first event."""


@final
class LogPage(msgspec.Struct, frozen=True, gc=False):
    """Some wanted events in order of position, and how far they were looked for.

    ``end`` is where to go on: the last position that was looked at, wanted or not. ``head`` is the head position of the same
    snapshot; ``end.position == head`` means that the reader has caught up.
    """

    rows: Sequence[StoredEvent]
    end: Checkpoint
    head: int


@final
class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to run one projection for a while. ``token`` grows with every new holder: it is the fence of the checkpoint."""

    projection: str
    token: int
    checkpoint: Checkpoint


@final
class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """An event that a projection could not apply and has put aside."""

    projection: str
    position: int
    event_id: str
    error_type: str
    error: str
    attempts: int
    failed_at_ns: int


@final
class ProjectionRecord(msgspec.Struct, frozen=True, gc=False):
    """What the store knows of one projection. ``owner`` is empty and ``lease_left`` 0 when nobody runs it.

    ``lease_left`` is seconds by the store's own clock.
    """

    name: str
    checkpoint: Checkpoint
    owner: str
    token: int
    lease_left: float
    dead_letters: int


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
        """Judge the requests in order in one transaction; return a verdict for each once the accepted events are durable.

        Raises:
            HistoryDiverged: what was read or appended before, on which they may build, is gone; none of them stands.
        """
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

        Raises:
            HistoryDiverged: (for a command) what was read or appended before, from which the versions may come, is gone.
        """
        ...

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """At most ``limit`` wanted events with ``after < position <= up_to``, in order of position."""
        ...

    async def head_position(self) -> int:
        """The position of the last event, 0 when there is none."""
        ...

    # For readers that follow the global order

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """At most ``limit`` wanted events behind ``after``, and how far they were looked for, all from one snapshot.

        One call looks at a bounded window of positions, so that a filter that matches little neither runs long nor stands
        still.

        Raises:
            HistoryDiverged: the event of ``after`` does not stand at its position.
        """
        ...

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """The head position, as soon as it is above ``position``, or after ``timeout`` seconds whatever it is."""
        ...

    # Projections: leases, checkpoints and dead letters. The clock is the store's.

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """The lease of a projection with a new token, ``None`` while another owner holds it."""
        ...

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """Keep the lease for so long from now; false when it is another's."""
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease back, so that another need not wait for its end; no harm when it is another's already."""
        ...

    async def commit_checkpoint(
        self,
        lease: Lease,
        before: Checkpoint,
        after: Checkpoint,
        dead_letters: Sequence[DeadLetter] = (),
        apply: Callable[[Any], Any] | None = None,
    ) -> None:
        """Move the checkpoint, and keep the dead letters, in one transaction.

        ``apply`` is called with that transaction first, so that a read model in the same database changes with its checkpoint
        or not at all: SQLite calls it in its writer thread with the ``sqlite3.Connection``, PostgreSQL awaits it with the
        ``asyncpg`` connection, a store in memory calls it with ``None``.

        Raises:
            LeadershipLost: the token is not the newest, or the checkpoint is not ``before``: nothing of it stands.
        """
        ...

    async def projections(self) -> Sequence[ProjectionRecord]:
        """Every projection that has ever had a lease, by name."""
        ...

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """The dead letters of a projection, in order of position."""
        ...

    async def remove_dead_letter(self, letter: DeadLetter, apply: Callable[[Any], Any] | None = None) -> bool:
        """Forget a dead letter that was applied after all (by ``apply``, in the same transaction); false when it is gone."""
        ...

    async def reset_projection(self, projection: str) -> None:
        """Forget checkpoint and dead letters, so that the projection begins again.

        Raises:
            LeadershipLost: somebody runs it.
        """
        ...
