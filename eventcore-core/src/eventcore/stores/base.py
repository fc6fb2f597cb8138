"""The interface between eventcore and a kind of store, and the plain values that pass through it.

A ``Backend`` has two parts: an ``EventLog`` (events) and a ``ProjectionLedger`` (leases, checkpoints and dead letters). Both
know neither event classes nor commands: they accept or refuse, store and return rows. Batching, caching and decoding are done
above them, once for all stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, final

import msgspec

from eventcore.errors import StoreError
from eventcore.events import RecordedEvent, StreamId, StreamPattern
from eventcore.events.codec import StoredEvent

Verdict: TypeAlias = int
"""The answer to one append request: the position of its first event; 0 if it has no events and its check held; ``CONFLICT``;
``KNOWN_KEY``."""

CONFLICT: Final = -1
"""The verdict on a request that was refused because one of its streams has another version. Nothing of it was stored."""

KNOWN_KEY: Final = -2
"""The verdict on a request whose idempotency key the store holds, or an earlier request of the call has. Nothing of it was
stored."""

SCHEMA_VERSION: Final = 5
"""The version of the stored data, the same for every kind of store.

Version 1 has events; 2 adds projections; 3 what they need to go on after their process has died or stopped; 4 snapshots and
redactions; 5 idempotency keys.
"""

Versions: TypeAlias = Mapping[StreamId, int]
"""A version of each of several streams; 0 is the version of a stream without events."""

Apply: TypeAlias = Callable[[Any], Any] | None
"""Writes a read model in a transaction of the ledger (``ProjectionLedger.commit_checkpoint``); ``None`` writes nothing."""

Purpose: TypeAlias = Literal["command", "projection", "api"]
"""What a read is for: a command, a projection, or a call of the application (``EventStore.read``)."""


def version_of(migration: str) -> int:
    """The version of the stored data that a migration leads to: ``"4_snapshots.sql"`` leads to 4."""
    return int(migration.partition("_")[0])


class EventsRedacted(StoreError):
    """Events were redacted since commands of this process last read or appended: what it keeps of events may be the old text.

    Nothing was stored. The commands are loaded and decided again; that is no attempt and no conflict. Callers of eventcore
    never see it.
    """


@final
class StateKey(msgspec.Struct, frozen=True, gc=False):
    """Which stored snapshots fit a class of stream states.

    Attributes:
        state_type: the name of the class.
        state_version: its declared version.
    """

    state_type: str
    state_version: int


@final
class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """A stored state of one stream.

    Attributes:
        key: the class of states that it fits.
        version: the version of the stream that the state has seen.
        event_id: the id of the event at this version; shows whether the stream is still on the same timeline.
        redactions: how many redactions of the store the state has seen; a later redaction of its stream makes it unusable.
        data: the encoded state.
    """

    key: StateKey
    version: int
    event_id: str
    redactions: int
    data: bytes


@final
class Redaction(msgspec.Struct, frozen=True, gc=False):
    """The trace of one redaction: which event no longer says what it said, since when and why.

    Attributes:
        number: the number of the redaction, counted over the whole store; a later one is larger.
        stream_id, version, position, event_id: the event.
        reason: why it was redacted.
        redacted_at_ns: when, in nanoseconds since 1970.
    """

    number: int
    stream_id: str
    version: int
    position: int
    event_id: str
    reason: str
    redacted_at_ns: int


@final
class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event to append.

    Attributes:
        recorded: the event; its position is not known yet.
        data: its data as JSON in UTF-8.
        metadata: its metadata as JSON in UTF-8.
    """

    recorded: RecordedEvent
    data: bytes
    metadata: bytes


@final
class CommandKey(msgspec.Struct, frozen=True, gc=False):
    """The idempotency key of a command, to be stored together with its events.

    Attributes:
        key: the key, 1 to 128 characters without control characters.
        fingerprint: tells the command from others: equal for equal commands, in every process.
        attempts: the attempts that the command took.
        seconds: how long the store keeps the key, by the store's clock.
    """

    key: str
    fingerprint: str
    attempts: int
    seconds: float


@final
class KeyRecord(msgspec.Struct, frozen=True, gc=False):
    """What a store keeps of the first command with an idempotency key.

    Attributes:
        fingerprint: that of the command.
        attempts: the attempts that it took.
        first: the position of its first event; 0 if it has none.
        events: the number of its events, which have consecutive positions.
        position: the position of its last event; without events, that of the last event before its check.
    """

    fingerprint: str
    attempts: int
    first: int
    events: int
    position: int


@final
class AppendRequest(msgspec.Struct, frozen=True, gc=False):
    """Append ``events`` if every stream of one command still has the version that the command has seen; else append nothing.

    The requests of one ``append`` call are checked in order. A request is accepted when each of its streams had version
    ``base`` when the call began and has version ``expected`` after the accepted requests before it. The two differ when the
    request builds on events of earlier requests in the same call. Both are checked: with ``expected`` alone, an event that
    another process has appended could be mistaken for the event of an earlier request that was refused.

    Attributes:
        base: for each stream, its version when the call begins.
        expected: for each stream, its version before this request. Has the same keys as ``base``.
        events: the events to append, in order; may be empty, then the request is only a check.
        origin: the command's span, for observers of the calls. A store does not use it.
        key: the idempotency key to store when the request is accepted. A request whose key is known is refused before its
            streams are checked.
    """

    base: Versions
    expected: Versions
    events: Sequence[NewEvent]
    origin: Any = None
    key: CommandKey | None = None


@final
class BackendPage(msgspec.Struct, frozen=True, gc=False):
    """Rows of several streams, read from one snapshot of the store.

    A page is bounded in rows per stream and in bytes. So it may hold few rows of a stream, or none, although there are more.
    It holds at least one row when there is one to read.

    Attributes:
        rows: for each stream that was asked for, its rows in order of version.
        head: the head position of the snapshot of the store.
        more: the streams that have further rows in the store behind those of the page, up to the highest position to read.
        snapshots: for each stream that has a usable stored state: this state. Its rows begin behind the state's version.
        redactions: the number of redactions in the snapshot of the store.
    """

    rows: Mapping[StreamId, Sequence[StoredEvent]]
    head: int
    more: frozenset[StreamId] = frozenset()
    snapshots: Mapping[StreamId, Snapshot] = {}
    redactions: int = 0


@final
class EventFilter(msgspec.Struct, frozen=True):
    """Which events to read.

    Attributes:
        pattern: only events of streams whose id matches; ``None``: of all streams.
        event_types: only events of these stored types; ``None``: of all types.
    """

    pattern: StreamPattern | None = None
    event_types: tuple[str, ...] | None = None


@final
class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """The last event that a reader has read in the global order.

    The event id shows whether the store is still on the timeline that was read. After a failover to a replica that lagged, or
    after a restore from a backup, the position holds another event or none.

    Attributes:
        position: the position of the last event that was read.
        event_id: the id of the event at this position.
    """

    position: int
    event_id: str


START: Final = Checkpoint(0, "")
"""The checkpoint before the first event."""


@final
class LogPage(msgspec.Struct, frozen=True, gc=False):
    """Matching events in order of position, read from one snapshot.

    Attributes:
        rows: the events that match the filter.
        end: the last position that was searched, whether or not its event matches; the next call continues there.
        head: the head position of the snapshot. When ``end.position == head``, the reader has caught up.
    """

    rows: Sequence[StoredEvent]
    end: Checkpoint
    head: int


@final
class RunState(msgspec.Struct, frozen=True, gc=False):
    """What the runners of a projection tell their successors (``ProjectionLedger.save_run_state``).

    Attributes:
        filter: the filter of the projection as text; empty when none was saved.
        attempt_position: the position of an event at which a runner tries its handler.
        attempts: how many attempts at this event have begun, and not come back because the process ended.
    """

    filter: str = ""
    attempt_position: int = 0
    attempts: int = 0


@final
class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to run one projection for some time.

    Attributes:
        projection: the name of the projection.
        token: the fencing token, larger than that of every earlier lease: only the newest token can move the checkpoint.
        checkpoint: the projection's checkpoint when the lease was acquired.
        seconds: how long the lease lasts from when it was acquired or renewed.
        abandoned: whether the owner before has not released it, since its process ended or lost the store.
        state: the run state that was saved last.
    """

    projection: str
    token: int
    checkpoint: Checkpoint
    seconds: float = 5.0
    abandoned: bool = False
    state: RunState = RunState()


@final
class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """An event that a projection could not apply and has skipped.

    Attributes:
        projection: the name of the projection.
        position, event_id: the event.
        error_type, error: the class name and the text of the exception.
        attempts: how often the event was tried.
        failed_at_ns: when the last attempt failed, in nanoseconds since 1970.
    """

    projection: str
    position: int
    event_id: str
    error_type: str
    error: str
    attempts: int
    failed_at_ns: int


@final
class ProjectionRecord(msgspec.Struct, frozen=True, gc=False):
    """What the store knows about one projection.

    Attributes:
        name: the name of the projection.
        checkpoint: the last event that it has applied or skipped.
        owner: the runner that holds the lease; empty when no runner holds it.
        token: the token of the newest lease.
        lease_left: seconds until the lease ends, by the store's clock; 0 when no runner holds it.
        dead_letters: how many dead letters it has.
    """

    name: str
    checkpoint: Checkpoint
    owner: str
    token: int
    lease_left: float
    dead_letters: int


_NO_KEYS: Final[Mapping[StreamId, StateKey]] = {}


class EventLog(Protocol):
    """The events of a store: appending them, and reading them by stream or in the global order.

    Every method raises ``StoreError`` when the store cannot do what is asked.
    """

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Check the requests in order in one transaction, and return a verdict for each once the accepted events are durable.

        Raises:
            HistoryDiverged: an event that this process has read or appended before is no longer in the store. The requests may
                build on it, so none of them was stored.
            EventsRedacted: the store has more redactions than commands of this process have seen. The requests may build on the
                old text of an event, so none of them was stored. The next call knows the redactions.
        """
        ...

    async def find_keys(self, keys: Sequence[str]) -> Mapping[str, KeyRecord]:
        """What the store keeps of those idempotency keys that it knows and that have not expired."""
        ...

    async def read_streams(
        self,
        after: Versions,
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = _NO_KEYS,
    ) -> BackendPage:
        """Read the next events of several streams, all from one snapshot of the store.

        Args:
            after: for each stream, the version after which to read.
            up_to: the highest position to read; ``None``: up to the end.
            origins: the spans of the commands that asked, for observers of the calls.
            purpose: what the read is for.
            snapshots: for streams that are read from version 0, the class of states of which to return the stored state. A
                state is returned if the event at its version has its event id, if no later redaction concerns its stream, and
                if it lies within ``up_to``.

        Raises:
            HistoryDiverged: (only when ``purpose`` is ``"command"``) an event that this process has read or appended before is
                no longer in the store. The versions in ``after`` may count it.
            EventsRedacted: (only when ``purpose`` is ``"command"``) the store has other redactions than commands of this
                process have seen. Events that are kept may have their old text. The next call knows the redactions.
        """
        ...

    async def save_snapshots(self, snapshots: Mapping[StreamId, Snapshot]) -> None:
        """Store states of streams. Of each stream and key, the state with the highest version is kept.

        A state that ``read_streams`` would not return (its event is not there, or its stream was redacted since) is left out
        without an error.
        """
        ...

    async def find_event(self, event_id: str) -> StoredEvent | None:
        """The event with this id, ``None`` when there is none.

        No index helps: the call searches windows of positions, the newest first, and takes seconds on millions of events.
        """
        ...

    async def redact(self, event_id: str, data: bytes, reason: str, *, position: int | None = None) -> Redaction | None:
        """Replace the data of an event, delete the stored states of its stream, and leave a trace, in one transaction.

        Args:
            event_id: the id of the event.
            data: its new data as JSON in UTF-8.
            reason: why, not empty; stored with the trace.
            position: the position of the event, if it is known; ``None`` searches for it.

        Returns:
            The trace; ``None`` when there is no such event.
        """
        ...

    async def check_redactions(self) -> None:
        """Check, for a process that has nothing to read or append, whether it must forget the old text of events.

        Raises:
            EventsRedacted: see ``append``.
        """
        ...

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """At most ``limit`` matching events with ``after < position <= up_to``, in order of position; fewer if they are large.

        So a short page may have further events behind its last one; an empty page has none.
        """
        ...

    async def head_position(self) -> int:
        """The position of the last event, 0 when there is none."""
        ...

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """At most ``limit`` matching events after a checkpoint, fewer if they are large, all from one snapshot.

        One call searches a bounded number of positions. So a filter that matches few events neither makes the call long nor
        keeps the reader at the same checkpoint.

        Raises:
            HistoryDiverged: the event of ``after`` is not at its position.
        """
        ...

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """Wait until the head position is above ``position``, at most ``timeout`` seconds; return the head position."""
        ...


class ProjectionLedger(Protocol):
    """The state of projections: leases, checkpoints and dead letters. Leases are measured by the store's clock.

    Every method raises ``StoreError`` when the store cannot do what is asked.
    """

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """Acquire the lease of a projection, with a new token; ``None`` while another owner holds it."""
        ...

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """Extend the lease to ``seconds`` from now; false when the lease has a newer token or was released."""
        ...

    async def release_lease(self, lease: Lease) -> None:
        """End the lease now, so that another runner need not wait for its end; does nothing when it has a newer token."""
        ...

    async def save_run_state(self, lease: Lease, state: RunState) -> None:
        """Keep ``state`` durably for the next runner, which gets it with its lease.

        Raises:
            LeadershipLost: the lease has a newer token or was released.
        """
        ...

    async def commit_checkpoint(
        self, lease: Lease, before: Checkpoint, after: Checkpoint, dead_letters: Sequence[DeadLetter] = (), apply: Apply = None
    ) -> None:
        """Move the checkpoint from ``before`` to ``after`` and store dead letters, in one transaction.

        Args:
            lease: the lease under which the projection runs.
            before: the checkpoint as the caller knows it.
            after: the new checkpoint.
            dead_letters: stored with it; one with the same position replaces the older one.
            apply: writes a read model in the same transaction, so that the read model and its checkpoint change together or not
                at all. SQLite calls it in its writer thread with the ``sqlite3.Connection``; PostgreSQL awaits it with the
                ``asyncpg`` connection; the store in memory calls it with ``None``.

        Raises:
            LeadershipLost: the lease has a newer token or was released, or the checkpoint is not ``before``. Nothing was
                stored.
        """
        ...

    async def projections(self) -> Sequence[ProjectionRecord]:
        """Every projection that has ever had a lease, by name."""
        ...

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """The first ``limit`` dead letters of a projection, in order of position."""
        ...

    async def remove_dead_letter(self, letter: DeadLetter, apply: Apply = None) -> bool:
        """Remove a dead letter, and call ``apply`` in the same transaction; false, without calling it, when there is none."""
        ...

    async def reset_projection(self, projection: str) -> None:
        """Remove the checkpoint and the dead letters, so that the projection starts again at the first event.

        Raises:
            LeadershipLost: a runner holds the lease.
        """
        ...


class Backend(Protocol):
    """One store: its event log, its projection ledger, and how to open and close it."""

    system: str
    """The value of ``db.system.name`` in metrics and spans."""

    @property
    def log(self) -> EventLog:
        """The events. Exists before ``open``; its calls then raise ``StoreClosed``."""
        ...

    @property
    def ledger(self) -> ProjectionLedger:
        """The state of projections. Exists before ``open``; its calls then raise ``StoreClosed``."""
        ...

    async def open(self) -> None:
        """Connect, and create what is missing."""
        ...

    async def close(self, timeout: float) -> None:
        """Finish the calls that are running and release everything, within ``timeout`` seconds."""
        ...
