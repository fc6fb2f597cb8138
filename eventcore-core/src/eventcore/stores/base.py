"""The interface between eventcore and a kind of store.

A ``Backend`` has two parts: an ``EventLog`` (events) and a ``ProjectionLedger`` (leases, checkpoints and dead letters). Both
know neither event classes nor commands: they accept or refuse, store and return rows. Batching, caching and decoding are done
above them, once for all stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.stores.values import (
    AppendHints,
    AppendRequest,
    Apply,
    BackendPage,
    Checkpoint,
    DeadLetter,
    EventFilter,
    KeyRecord,
    Lease,
    LogPage,
    ProjectionRecord,
    Purpose,
    Redaction,
    RunState,
    Snapshot,
    StateKey,
    Verdict,
    Versions,
)

_NO_HINTS: Final = AppendHints()
_NO_KEYS: Final[Mapping[StreamId, StateKey]] = {}


def append_hints(log: EventLog) -> AppendHints:
    """What a log says of its appends in the attribute ``append_hints``, which it need not have."""
    hints: AppendHints = getattr(log, "append_hints", _NO_HINTS)
    return hints


class EventLog(Protocol):
    """The events of a store: appending them, and reading them by stream or in the global order.

    Every method raises ``StoreError`` when the store cannot do what is asked. A log may have an attribute ``append_hints``
    (``eventcore.stores.AppendHints``).
    """

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Check the requests in order in one transaction, and return a verdict for each once the accepted events are durable.

        A store may return ``Verdicts``, which hold the rows of refused requests' streams: their commands need not read then.

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
