"""The plain values that pass between eventcore and a store, and what its answers mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, final

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

SCHEMA_VERSION: Final = 7
"""The version of the stored data, the same for every kind of store.

Version 1 has events; 2 adds projections; 3 what they need to go on after their process has died or stopped; 4 snapshots and
redactions; 5 idempotency keys; 6 what refused appends return.
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
class Refused(msgspec.Struct, frozen=True, gc=False):
    """What an append call found in the streams of requests that it refused, under the same lock: it saves a read.

    Attributes:
        versions: the version of each stream of the call's requests when the call began.
        rows: of streams that have rows behind the version in ``base``, all of these rows, up to the version above. May be left
            out: the rows of one call are bounded, and those of a stream with a stored state are better read from there.
        head: the head position when the call began.
        redactions: the number of redactions of the store that the rows have seen.
    """

    versions: Versions
    rows: Mapping[StreamId, Sequence[StoredEvent]]
    head: int
    redactions: int


@final
class Verdicts(list[Verdict]):
    """The verdicts on the requests of one append call, from a store that says more than that.

    Attributes:
        refused: what it found in the streams of refused requests; ``None`` if it refused none.
        redactions: the number of redactions that the call has found; ``None`` if it has not looked.
    """

    __slots__ = ("redactions", "refused")

    def __init__(self, verdicts: Iterable[Verdict], refused: Refused | None = None, redactions: int | None = None) -> None:
        super().__init__(verdicts)
        self.refused = refused
        self.redactions = redactions


@final
class AppendHints(msgspec.Struct, frozen=True, gc=False):
    """What commands may rely on when they append to a kind of store; the attribute ``append_hints`` of its ``EventLog``.

    Attributes:
        speculate: whether an append may come before any read, and name streams that were not read with version 0. The store
            then has to notice a redaction of events that were only appended, too (``EventsRedacted``).
        smallest_half: up to this number, all waiting commands are appended together. Of more, half are appended while the
            others are answered.
    """

    speculate: bool = False
    smallest_half: int = 64


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
