"""What a backend may report about itself. All of it is optional; a value that is not known is ``None``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, Protocol, TypeAlias, final, runtime_checkable

import msgspec

from eventcore.ground import BreakerState

CANCELLED_WAIT: Final = 0.1
"""Seconds from which on a wait for a connection that its caller gives up counts as one that ended without a connection. A
caller that leaves sooner has another reason than the wait."""

Wait: TypeAlias = Literal["lock", "pool"]
"""What a call waited for before it could start: a lock of the database, or a free connection of the pool."""

WaitObserver: TypeAlias = Callable[[Wait, str, float], None]
"""Called after each wait with what was waited for, the name of the lock (empty for the pool) and seconds. Thread-safe."""


@final
class BackendCounters(msgspec.Struct, gc=False):
    """Plain numbers that a backend updates while it works. Any thread may read them at any time.

    Attributes:
        bytes_read, bytes_written: bytes of rows from and to the database, since the backend was made.
        connections_idle, connections_used: connections to the server now: free, and all others. An ended one counts as used
            until the server has ended its side of it.
        connections_limit: the most connections that the backend opens.
        connection_timeouts: waits for a connection that ended without one, by their timeout or since their caller gave up.
        connection_problem: why the last attempt to connect has failed; ``None`` when it has succeeded. Calls try again until
            their timeout, so this is known sooner than what they raise.
        breaker: whether calls fail at once since the server is known to be away.
        on_wait: called after each wait; ``None``: waits are not observed.
        own_io: surrounds the backend's own statements, in the same task, for drivers that are instrumented by others.
        connection_waits: when each call that waits for a connection began to wait (``time.monotonic``), the oldest first. For
            the event loop of the store only.
    """

    bytes_read: int | None = None
    bytes_written: int | None = None
    connections_idle: int | None = None
    connections_used: int | None = None
    connections_limit: int | None = None
    connection_timeouts: int | None = None
    connection_problem: str | None = None
    breaker: BreakerState | None = None
    on_wait: WaitObserver | None = None
    own_io: Callable[[], AbstractContextManager[None]] = nullcontext
    connection_waits: dict[object, float] = {}


@final
class DatabaseSample(msgspec.Struct, frozen=True, gc=False):
    """What only the database itself knows, since other processes write to it, too.

    Attributes:
        head: the head position.
        last_append_ns: when the event at the head position was recorded, in nanoseconds since 1970.
        size: bytes that the store takes on disk.
        disk_free: bytes that are free on the disk, where this process can see it.
    """

    head: int | None = None
    last_append_ns: int | None = None
    size: int | None = None
    disk_free: int | None = None


@runtime_checkable
class LimitsCalls(Protocol):
    """A backend whose calls end by a timeout. A command as a whole then takes no longer than that."""

    @property
    def call_timeout(self) -> float:
        """Seconds that one call may take."""
        ...


@runtime_checkable
class SupportsProbe(Protocol):
    """A backend that can be asked for a sign of life beside its other calls, so that these do not delay the answer."""

    async def probe(self) -> int:
        """Ask the database, and return the head position. Raises ``StoreError`` when it does not answer."""
        ...


@runtime_checkable
class SupportsSampling(Protocol):
    """A backend that reports about itself."""

    counters: BackendCounters

    async def sample(self) -> DatabaseSample:
        """Ask the database. Called every few seconds, so it must be cheap."""
        ...
