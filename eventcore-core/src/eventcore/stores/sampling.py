"""What a backend may tell of itself beyond what ``Backend`` asks: all of it is optional, and what is unknown is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable

import msgspec

Wait: TypeAlias = Literal["lock", "pool"]
"""What a call waited for before it could begin: a lock of the database, or a free connection."""

WaitObserver: TypeAlias = Callable[[Wait, str, float], None]
"""Told of each wait: for what, the lock's name (empty for the pool), and how many seconds. Safe to call from any thread."""


@final
class BackendCounters:
    """Plain numbers that a backend keeps as it works, to be read from any thread at any time; ``None`` is unknown.

    Attributes:
        bytes_read, bytes_written: of rows, on their way from and to the database, since the backend was made.
        connections_idle, connections_used: of its pool now.
        on_wait: to be told of waits; nobody listens while it is ``None``.
    """

    __slots__ = ("bytes_read", "bytes_written", "connections_idle", "connections_used", "on_wait")

    def __init__(self) -> None:
        self.bytes_read: int | None = None
        self.bytes_written: int | None = None
        self.connections_idle: int | None = None
        self.connections_used: int | None = None
        self.on_wait: WaitObserver | None = None


@final
class DatabaseSample(msgspec.Struct, frozen=True, gc=False):
    """What only asking the database tells, whoever has written; ``None`` is unknown.

    ``head`` is the head position, ``last_append_ns`` when its event was recorded, ``size`` the bytes that the store takes.
    """

    head: int | None = None
    last_append_ns: int | None = None
    size: int | None = None


@runtime_checkable
class SupportsSampling(Protocol):
    """A backend that tells of itself."""

    counters: BackendCounters

    async def sample(self) -> DatabaseSample:
        """Ask the database; called every few seconds, so it must be cheap."""
        ...
